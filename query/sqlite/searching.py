"""Answering a search from the SQLite file: rank the candidates, look at their phrases, hand out a page.

The match expression is put together here from quoted terms only; no text of a caller ever reaches FTS5's own
query language. Nothing here may run longer than `SEARCH_S_MAX`.
"""

import sqlite3
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Iterator
from struct import Struct as Packing
from typing import NamedTuple

import msgspec

from query import text as language
from query.store import (
    SEARCH_CHARS_MAX,
    SEARCH_LIMIT_MAX,
    SEARCH_S_MAX,
    Found,
    InvalidCursor,
    InvalidSearch,
    SearchTimeout,
    StoreDamaged,
)
from query.text import Search

DOCUMENT_FIELD = {"assets": b"data", "metadata": b"metadata"}
"""The name of the value in an answered document, by collection."""
RANKED_MIN = 1_024
"""Candidates that are ranked at least, so that the next pages need no second ranking."""
RANKED_GROWTH = 8
RANKINGS_KEPT = 16
HEX_DIGITS = frozenset("0123456789abcdef")
STEPS_BETWEEN_LOOKS = 20_000
"""Steps of SQLite's machine between two looks at the clock."""

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
    connection: sqlite3.Connection,
    rankings: Rankings,
    collection: str,
    search_text: str,
    limit: int,
    after: str | None,
) -> list[Found]:
    """One page of answers.

    Raises `InvalidCursor`, `InvalidSearch`, `SearchTimeout`, and what SQLite raises.
    """
    cursor = None if after is None else Cursor.decode(after)
    asked = language.parse(search_text)
    if not asked.terms or limit < 1:
        return []
    deadline = time.monotonic() + SEARCH_S_MAX
    connection.execute("BEGIN")  # one snapshot for all that is read
    connection.set_progress_handler(lambda: time.monotonic() > deadline, STEPS_BETWEEN_LOOKS)
    try:
        if cursor is None:
            (newest,) = connection.execute(f"SELECT coalesce(max(number), 0) FROM {collection}").fetchone()
            cursor = Cursor(newest, 0)
        page = _Page(connection, rankings, collection, search_text, asked, deadline)
        return list(page.found(cursor, limit))
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
            raise _too_broad() from None
        raise
    finally:
        connection.set_progress_handler(None, 0)
        connection.execute("ROLLBACK")


class _Page(NamedTuple):
    connection: sqlite3.Connection
    rankings: Rankings
    collection: str
    search_text: str
    asked: Search
    deadline: float

    def found(self, cursor: Cursor, limit: int) -> Iterator[Found]:
        needs_strings = self.asked.needs_strings
        read = f"SELECT id, body FROM {self.collection} WHERE number = ?"
        field = DOCUMENT_FIELD[self.collection]
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
                identifier, body = row
                name = identifier.hex()
                if needs_strings:
                    if time.monotonic() > self.deadline:
                        raise _too_broad()
                    if not self.asked.strings_match([*strings_of(body), name]):
                        continue
                document = b'{"%b":%b,"id":"%b"}' % (field, body, name.encode())
                yield Found(name, document, Cursor(cursor.newest, place).encode())
                count += 1
                if count == limit:
                    return
            if ranking.complete:
                return

    def _ranked(self, newest: int, wanted: int) -> Ranking:
        key = (self.collection, self.search_text, newest)
        ranking = self.rankings.get(key, wanted)
        if ranking is None:
            upto = max(RANKED_MIN, 1 << (wanted - 1).bit_length()) if wanted < 2**40 else wanted
            upto = RANKED_MIN
            while upto < wanted:
                upto *= RANKED_GROWTH
            table = f"{self.collection}_text"
            condition, needles = self._phrase_condition()
            # The full text index first, then the documents: CROSS JOIN keeps that order.
            rows = self.connection.execute(
                f"SELECT t.rowid FROM {table} t CROSS JOIN {self.collection} d ON d.number = t.rowid"
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
        condition, needles = "", []
        for phrase in self.asked.phrases:
            condition += " AND (d.plain = 0 OR instr(lower(d.body), ?) > 0"
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


def _too_broad() -> SearchTimeout:
    return SearchTimeout(
        f"The search is too broad: it was not done after {SEARCH_S_MAX:g} s; name rarer words"
    )


def is_plain(body: bytes) -> bool:
    """Whether the strings of a JSON text stand in it as they are: no escapes, no accents."""
    return body.isascii() and not (b"\\" in body or b"^" in body or b"`" in body)


def strings_of(body: bytes) -> list[str]:
    """The strings of a JSON text, none if it can't be read."""
    try:
        return language.strings_in(msgspec.json.decode(body))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []
