"""Answering a filter from the SQLite file: SQL narrows, Python decides, a page goes out.

Pages in the order of commitment, or its reverse, go on behind a place; in any other order the documents up to
the page's end are sorted for each page. Nothing here may run longer than `SEARCH_S_MAX` or keep more than its
bounds.
"""

import sqlite3
from collections.abc import Callable, Iterator
from sys import getsizeof
from typing import Any

import msgspec

from query import cursors
from query.cursors import Cursor
from query.documents import Document
from query.fields import apply
from query.filters import missing_in_embedded
from query.matching import matcher
from query.sorting import Down, natural_direction, sort_key
from query.sqlite import narrowing
from query.sqlite.asking import Snapshot, is_interrupt, snapshot
from query.sqlite.files import Connection
from query.sqlite.rows import COLUMNS, NUMBER, documents_of
from query.sqlite.tables import POSITIONS_MAX, number_of, numbers_of
from query.store import (
    PAGE_BYTES_MAX,
    SEARCH_LIMIT_MAX,
    SKIP_MAX,
    Find,
    InvalidCursor,
    InvalidSearch,
    Page,
    Place,
    SearchTimeout,
    StoreDamaged,
    StoreUnavailable,
)

MONGODB_ONLY = "is answered by MongoDB only: start the node with --mongo or --mongo-uri"
STEPS_BETWEEN_LOOKS = 2_000
"""As in `asking`; but here one step may look through a large document."""
LOOKAHEAD_S = 0.05
"""A full page looks so long for one more document; then it says that there may be more."""
SORTED_BYTES_MAX = 64 * 1024 * 1024
"""Memory for the values that documents are sorted by, as far as it can be estimated."""
SORTED_SLACK = 1_000
"""Documents beyond those wanted before the last ones are dropped."""

_encode = msgspec.json.encode


def check(question: Find) -> None:
    """Raises `InvalidSearch` for a question that wants more than this store offers."""
    operator = missing_in_embedded(question.filter)
    if operator is not None:
        raise InvalidSearch(f"The operator {operator} {MONGODB_ONLY}")
    if not 1 <= question.limit <= SEARCH_LIMIT_MAX:
        raise InvalidSearch(f"A page has from 1 to {SEARCH_LIMIT_MAX} documents, not {question.limit}")


def find(connection: Connection, question: Find) -> Page:
    """One page of answers.

    Raises `InvalidCursor`, `InvalidSearch`, `SearchTimeout`, `StoreUnavailable`, and what SQLite raises.
    """
    cursor = cursors.decode(question)
    with snapshot(connection, STEPS_BETWEEN_LOOKS) as now:
        if cursor is None:
            cursor = Cursor(now.height)
        elif cursor.height > now.height:
            raise StoreUnavailable(
                f"The query store is at block {now.height}, and the page before was of block {cursor.height}"
            )
        asked = _Asked(connection, question, now, cursor)
        direction = natural_direction(question.sort, question.collection)
        return asked.by_place(direction) if direction is not None else asked.sorted()


class _Asked:
    """A question on its way to its page."""

    def __init__(self, connection: Connection, question: Find, now: Snapshot, cursor: Cursor) -> None:
        self._connection = connection
        self._question = question
        self._now = now
        self._cursor = cursor
        self._matches: Callable[[Document], bool] = matcher(question.filter)

    def by_place(self, direction: int) -> Page:
        """The documents behind the cursor's place, in the order of commitment or against it."""
        question, height, after = self._question, self._cursor.height, self._cursor.place
        if self._cursor.offset is not None:
            raise _foreign()
        low, high = self._numbers()
        if after is not None and direction > 0:
            low = max(low, _number(question.collection, after))
        elif after is not None:
            high = min(high, _number(question.collection, after))
        page = _Documents(question)
        try:
            for place, document in self._matching(low, high, direction):
                if after is not None and (place <= after if direction > 0 else place >= after):
                    continue
                if page.full():
                    return page.end(height, Cursor(height, place=page.last))
                page.add(place, document)
                if page.full():
                    self._now.hurry(LOOKAHEAD_S)
        except (SearchTimeout, sqlite3.OperationalError) as error:
            if not page.full() or not (isinstance(error, SearchTimeout) or is_interrupt(error)):
                raise
            return page.end(height, Cursor(height, place=page.last))
        return page.end(height, None)

    def sorted(self) -> Page:
        """The documents behind the cursor's offset, in the order of the question's choice."""
        question, height, offset = self._question, self._cursor.height, self._cursor.offset or 0
        if self._cursor.place is not None:
            raise _foreign()
        if offset >= SKIP_MAX:
            raise InvalidSearch(
                f"In an order of its own choice a question reaches {SKIP_MAX:,} documents deep: narrow the"
                " filter, or leave out the sort and page in the order of commitment"
            )
        limit = min(question.limit, SKIP_MAX - offset)
        first = _First(offset + limit + 1)
        for place, document in self._matching(*self._numbers(), 1):
            first.add(sort_key(document, question.sort), place)
        page = _Documents(question)
        places = first.places()
        for place in places[offset : offset + limit]:
            page.add(place, self._document(place))
            if page.full():
                break
        reached = offset + page.count
        return page.end(height, Cursor(height, offset=reached) if reached < len(places) else None)

    def _numbers(self) -> tuple[int, int]:
        heights = narrowing.heights_in(self._question.filter, self._cursor.height)
        return numbers_of(self._question.collection, *heights)

    def _matching(self, low: int, high: int, direction: int) -> Iterator[tuple[Place, Document]]:
        collection, matches, look = self._question.collection, self._matches, self._now.look
        keys = narrowing.owners_in(collection, self._question.filter)
        text, values = narrowing.condition_of(collection, self._question.filter) or ("1", ())
        number, (columns, source) = NUMBER[collection], COLUMNS[collection]
        rows = self._connection.execute(
            f"SELECT {columns} FROM {source} WHERE {number} BETWEEN ?1 AND ?2 AND {text}"
            f" ORDER BY {number}{'' if direction > 0 else ' DESC'}",
            (low, high, *values),
        )
        for row in rows:
            look()
            made = documents_of(self._connection, collection, row, keys)
            for place, document in made if direction > 0 else reversed(list(made)):
                if matches(document):
                    yield place, document

    def _document(self, place: Place) -> Document:
        collection = self._question.collection
        number, (columns, source) = NUMBER[collection], COLUMNS[collection]
        self._now.look()
        for row in self._connection.execute(
            f"SELECT {columns} FROM {source} WHERE {number} = ?", (_number(collection, place),)
        ):
            for found, document in documents_of(self._connection, collection, row):
                if found == place:
                    return document
        raise StoreDamaged(f"The query store has lost a document of {collection}")


class _Documents:
    """A page while it is being filled."""

    def __init__(self, question: Find) -> None:
        self._question = question
        self._encoded: list[bytes] = []
        self._size_bytes = 0
        self.last: Place | None = None

    @property
    def count(self) -> int:
        return len(self._encoded)

    def add(self, place: Place, document: Document) -> None:
        encoded = _encode(apply(document, self._question.fields, self._question.exclude))
        self._encoded.append(encoded)
        self._size_bytes += len(encoded)
        self.last = place

    def full(self) -> bool:
        return self.count >= self._question.limit or self._size_bytes >= PAGE_BYTES_MAX

    def end(self, height: int, cursor: Cursor | None) -> Page:
        text = None if cursor is None else cursors.encode(self._question, cursor)
        return Page(self._encoded, height, text)


class _First:
    """The first `wanted` of many places, by a key and then by place."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._kept: list[tuple[Any, Place, int]] = []
        self._size_bytes = 0

    def add(self, key: Any, place: Place) -> None:
        """Raises `InvalidSearch` when the keys take too much memory."""
        size_bytes = _size_of(key)
        self._kept.append((key, place, size_bytes))
        self._size_bytes += size_bytes
        if len(self._kept) > 2 * self._wanted + SORTED_SLACK or self._size_bytes > SORTED_BYTES_MAX:
            self._cut()
            if self._size_bytes > SORTED_BYTES_MAX // 2:
                raise InvalidSearch(
                    "To sort this takes more memory than a question may have: narrow the filter, ask for"
                    " fewer documents, or sort by shorter values"
                )

    def places(self) -> list[Place]:
        self._cut()
        return [place for _, place, _ in self._kept]

    def _cut(self) -> None:
        self._kept.sort()
        del self._kept[self._wanted :]
        self._size_bytes = sum([size_bytes for _, _, size_bytes in self._kept])


def _size_of(key: Any) -> int:
    """About the memory that a key takes."""
    size_bytes = 0
    waiting = [key]
    while waiting:
        value = waiting.pop()
        size_bytes += getsizeof(value)
        if isinstance(value, Down):
            waiting.append(value.key)
        elif isinstance(value, tuple):
            waiting.extend(value)
    return size_bytes


def _number(collection: str, place: Place) -> int:
    if collection == "blocks":
        return place.height
    return number_of(place.height, min(place.position, POSITIONS_MAX - 1))


def _foreign() -> InvalidCursor:
    return InvalidCursor("The cursor in `after` was not made by this server for this question.")
