"""Answering a search from the SQLite file: rank the candidates, look at their phrases, hand out a page.

The match expression is put together here from quoted terms only; no text of a caller ever reaches FTS5's own
query language. Nothing here may run longer than `SEARCH_S_MAX`.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Iterator
from struct import Struct as Packing
from typing import NamedTuple

from query import text as language
from query.sqlite import asking, files
from query.sqlite.tables import BODY_TABLES, POSITION_BITS, TEXT_TABLES, strings_of, sum_of
from query.store import (
    SEARCH_CHARS_MAX,
    SEARCH_LIMIT_MAX,
    Found,
    InvalidCursor,
    InvalidSearch,
    StoreDamaged,
)
from query.text import Search

RANKED_MIN = 1_024
"""Candidates that are ranked at least, so that the next pages need no second ranking."""
RANKED_GROWTH = 8
RANKINGS_KEPT = 16
HEX_DIGITS = frozenset("0123456789abcdef")
_CURSOR = Packing(">QQ")


class Cursor(NamedTuple):
    """Where a page ends: the newest document that the first page could see, and the place in the ranking."""

    newest: int
    place: int

    def encode(self) -> str:
        return urlsafe_b64encode(_CURSOR.pack(*self)).rstrip(b"=").decode("ascii")

    @staticmethod
    def decode(text: str) -> "Cursor":
        """Raises `InvalidCursor` for a text that `encode` can't have made."""
        try:
            cursor = Cursor(*_CURSOR.unpack(urlsafe_b64decode(text.encode("ascii") + b"==")))
        except Exception:
            cursor = None
        if cursor is None or cursor.encode() != text or cursor.newest >= 2**63 or cursor.place >= 2**40:
            raise InvalidCursor("The cursor in `after` was not made by this server for this list.")
        return cursor


class Ranking(NamedTuple):
    """The best matches of one search by number, best first; `complete` if there are no more."""

    numbers: list[int]
    complete: bool


class Rankings:
    """The last rankings, so that the pages of one search are cut from one list. Safe to use from threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, int], Ranking] = OrderedDict()

    def get(self, key: tuple[str, str, int], wanted: int) -> Ranking | None:
        kept = self._kept.get(key)
        return kept if kept is not None and (kept.complete or len(kept.numbers) >= wanted) else None

    def put(self, key: tuple[str, str, int], ranking: Ranking) -> None:
        self._kept[key] = ranking
        while len(self._kept) > RANKINGS_KEPT:
            try:
                self._kept.popitem(last=False)
            except KeyError:
                break


def check(search_text: str, limit: int) -> None:
    """Raises `InvalidSearch` for a search that is too long or wants too much."""
    if len(search_text) > SEARCH_CHARS_MAX:
        raise InvalidSearch(
            f"A search has at most {SEARCH_CHARS_MAX} characters, this one {len(search_text)}"
        )
    if limit > SEARCH_LIMIT_MAX:
        raise InvalidSearch(f"A search gives at most {SEARCH_LIMIT_MAX} documents at once, not {limit}")


def search(
    connection: files.Connection,
    rankings: Rankings,
    collection: str,
    search_text: str,
    limit: int,
    after: str | None,
) -> list[Found]:
    """One page of answers.

    Raises `InvalidCursor`, `InvalidSearch`, `SearchTimeout`, `StoreUnavailable`, and what SQLite raises.
    """
    if not connection.text_search:
        raise InvalidSearch("Text search is switched off on this node (setting text_search)")
    cursor = None if after is None else Cursor.decode(after)
    asked = language.parse(search_text)
    if not asked.terms or limit < 1:
        return []
    with asking.snapshot(connection) as snapshot:
        if cursor is None:
            table, _ = BODY_TABLES[collection]
            (newest,) = connection.execute(f"SELECT coalesce(max(number), 0) FROM {table}").fetchone()
            cursor = Cursor(newest, 0)
        page = _Page(connection, rankings, collection, search_text, asked, snapshot)
        return list(page.found(cursor, limit))


class _Page(NamedTuple):
    connection: files.Connection
    rankings: Rankings
    collection: str
    search_text: str
    asked: Search
    snapshot: asking.Snapshot

    def found(self, cursor: Cursor, limit: int) -> Iterator[Found]:
        needs_strings = self.asked.needs_strings
        table, column = BODY_TABLES[self.collection]
        read = f"SELECT id, sum, {column} FROM {table} WHERE number = ?"
        field = column.encode()
        place, count = cursor.place, 0
        while True:
            ranking = self._ranked(cursor.newest, place + limit - count)
            for number in ranking.numbers[place:]:
                place += 1
                row = self.connection.execute(read, (number,)).fetchone()
                if row is None:
                    raise StoreDamaged(
                        f"The query store has terms but no document for {self.collection} {number}"
                    )
                identifier, checksum, body = row
                if type(identifier) is not bytes or type(body) is not bytes or sum_of(body) != checksum:
                    raise StoreDamaged(f"The query store has a row of {table} that can't be read")
                name = identifier.hex()
                if needs_strings:
                    self.snapshot.look()
                    if not self.asked.strings_match([*strings_of(body), name]):
                        continue
                document = b'{"%b":%b,"id":"%b"}' % (field, body, name.encode())
                height = cursor.newest >> POSITION_BITS
                yield Found(name, document, Cursor(cursor.newest, place).encode(), height)
                count += 1
                if count == limit:
                    return
            if ranking.complete:
                return

    def _ranked(self, newest: int, wanted: int) -> Ranking:
        key = (self.collection, self.search_text, newest)
        ranking = self.rankings.get(key, wanted)
        if ranking is None:
            upto = RANKED_MIN
            while upto < wanted:
                upto *= RANKED_GROWTH
            table = TEXT_TABLES[self.collection]
            condition, needles = self._phrase_condition()
            # The full text index first, then the documents: CROSS JOIN keeps that order.
            documents = (
                f" CROSS JOIN {BODY_TABLES[self.collection][0]} d ON d.number = t.rowid" if condition else ""
            )
            rows = self.connection.execute(
                f"SELECT t.rowid FROM {table} t{documents}"
                f" WHERE {table} MATCH ? AND t.rowid <= ?{condition} ORDER BY t.rank, t.rowid LIMIT ?",
                (match_expression(self.asked), newest, *needles, upto),
            ).fetchall()
            ranking = Ranking([number for (number,) in rows], len(rows) < upto)
            self.rankings.put(key, ranking)
        return ranking

    def _phrase_condition(self) -> tuple[str, list[str]]:
        """SQL that drops most documents without the phrases by their bytes alone, and its parameters.

        A phrase that is nowhere in the JSON of a plain document is in none of its strings. Its id is one of
        them.
        """
        _, column = BODY_TABLES[self.collection]
        condition, needles = "", []
        for phrase in self.asked.phrases:
            condition += f" AND (d.plain = 0 OR instr(lower(d.{column}), ?) > 0"
            needles.append(phrase)
            if set(phrase) <= HEX_DIGITS:
                condition += " OR instr(lower(hex(d.id)), ?) > 0"
                needles.append(phrase)
            condition += ")"
        return condition, needles


def match_expression(asked: Search) -> str:
    """The candidates in FTS5's language: one of the terms, none of the excluded ones."""
    wanted = " OR ".join(map(_quoted, asked.terms))
    if not asked.excluded_terms:
        return wanted
    return f"({wanted}) NOT ({' OR '.join(map(_quoted, asked.excluded_terms))})"


def _quoted(term: str) -> str:
    return '"' + term.replace('"', '""') + '"'
