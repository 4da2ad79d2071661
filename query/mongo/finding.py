"""Answering a filter or an aggregation from MongoDB: what it is told, and what becomes a page.

Pages in the order of commitment, or its reverse, go on behind a place, in any other order at an offset. Only
operators and stages that were read by `query.filters` and `query.pipelines` get here.
"""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

from pymongo.errors import ExecutionTimeout

from query import cursors, filters, pipelines
from query.cursors import Cursor
from query.documents import Place
from query.errors import InvalidCursor, InvalidSearch, StoreUnavailable
from query.fields import apply
from query.filters import Text, conjuncts, to_mongo
from query.mongo.asking import BATCH_DOCUMENTS, SEARCH_MS_MAX, both, built, documents, range_of
from query.mongo.connection import Database
from query.mongo.encoding import encode_key, place_of, to_json
from query.mongo.layout import State
from query.sorting import natural_direction
from query.sorting import to_mongo as sort_to_mongo
from query.store import PAGE_BYTES_MAX, SEARCH_LIMIT_MAX, SKIP_MAX, Aggregated, Find, Page

LOOKAHEAD_MS = 50
"""A full page looks so long for one more document; then it says that there may be more."""
NO_TEXT_SEARCH = "Text search is switched off on this node (setting text_search)"


def check(question: Find) -> None:
    """Raises `InvalidSearch` for a question that wants more than this store offers."""
    if not 1 <= question.limit <= SEARCH_LIMIT_MAX:
        raise InvalidSearch(f"A page has from 1 to {SEARCH_LIMIT_MAX} documents, not {question.limit}")


async def find(database: Database, question: Find) -> Page:
    """One page of answers.

    Raises `InvalidCursor`, `InvalidSearch`, `StoreUnavailable`, and what the driver raises.
    """
    cursor = cursors.decode(question)
    state = await built(database)
    height = state.checkpoint.height
    if cursor is None:
        cursor = Cursor(height)
    elif cursor.height > height:
        raise StoreUnavailable(
            f"The query store is at block {height}, and the page before was of block {cursor.height}"
        )
    if any(isinstance(part, Text) for part in conjuncts(question.filter)):
        require_text_search(state)
    direction = natural_direction(question.sort, question.collection)
    if direction is not None:
        return await _by_place(database, question, cursor, direction)
    return await _sorted(database, question, cursor)


def require_text_search(state: State) -> None:
    """Raises `InvalidSearch` if the store has no index for text."""
    if not state.text_search:
        raise InvalidSearch(NO_TEXT_SEARCH)


async def _by_place(database: Database, question: Find, cursor: Cursor, direction: int) -> Page:
    if cursor.offset is not None:
        raise _foreign()
    page = _Page(question, cursor.height)
    bounds = range_of(question.collection, question.filter, cursor.height, cursor.place, direction)
    if bounds is None:
        return page.end(None)
    await page.read(database, bounds, {"_id": direction}, skip=0, upto=question.limit)
    if page.count == question.limit:
        page.more = await _goes_on(database, question, cursor.height, page.last, direction)
    return page.end(Cursor(cursor.height, place=page.last) if page.more else None)


async def _goes_on(
    database: Database, question: Find, height: int, last: Place | None, direction: int
) -> bool:
    """Whether there is a document behind a full page; or there may be one, if it takes long to find."""
    bounds = range_of(question.collection, question.filter, height, last, direction)
    if bounds is None:
        return False
    try:
        found = await database[question.collection].find_one(
            both(bounds, to_mongo(question.filter, encode_key)),
            {"_id": 1},
            sort=[("_id", direction)],
            max_time_ms=LOOKAHEAD_MS,
        )
    except ExecutionTimeout:
        return True
    return found is not None


async def _sorted(database: Database, question: Find, cursor: Cursor) -> Page:
    if cursor.place is not None:
        raise _foreign()
    offset = cursor.offset or 0
    if offset >= SKIP_MAX:
        raise InvalidSearch(
            f"In an order of its own choice a question reaches {SKIP_MAX:,} documents deep: narrow the"
            " filter, or leave out the sort and page in the order of commitment"
        )
    page = _Page(question, cursor.height)
    bounds = range_of(question.collection, question.filter, cursor.height)
    if bounds is None:
        return page.end(None)
    sort = sort_to_mongo(question.sort, encode_key) | {"_id": 1}
    limit = min(question.limit, SKIP_MAX - offset)
    # It takes a whole sort to find the first one, and then the one behind the page costs nothing.
    await page.read(database, bounds, sort, skip=offset, upto=limit + 1, limit=limit)
    return page.end(Cursor(cursor.height, offset=offset + page.count) if page.more else None)


class _Page:
    """A page while it is being filled. `more`: there was at least one document behind it."""

    def __init__(self, question: Find, height: int) -> None:
        self._question = question
        self._height = height
        self._encoded: list[bytes] = []
        self.last: Place | None = None
        self.more = False

    @property
    def count(self) -> int:
        return len(self._encoded)

    async def read(
        self,
        database: Database,
        bounds: Mapping[str, Any],
        sort: Mapping[str, int],
        *,
        skip: int,
        upto: int,
        limit: int | None = None,
    ) -> None:
        """Fill it with at most `limit` of `upto` documents. Raises what the driver raises."""
        question, collection = self._question, self._question.collection
        limit = upto if limit is None else limit
        size_bytes = 0
        found = database[collection].find_raw_batches(
            both(bounds, to_mongo(question.filter, encode_key)),
            _top_level(question),
            sort=list(sort.items()),
            skip=skip,
            limit=upto,
            batch_size=min(upto, BATCH_DOCUMENTS),
            max_time_ms=SEARCH_MS_MAX,
            allow_disk_use=False,
        )
        async with aclosing(documents(found)) as stream:
            async for document in stream:
                if self.count >= limit or size_bytes >= PAGE_BYTES_MAX:
                    self.more = True
                    break
                place = place_of(collection, document.pop("_id"))
                encoded = to_json(apply(document, question.fields, question.exclude))
                self._encoded.append(encoded)
                size_bytes += len(encoded)
                self.last = place or self.last

    def end(self, cursor: Cursor | None) -> Page:
        text = None if cursor is None else cursors.encode(self._question, cursor)
        return Page(self._encoded, self._height, text)


async def aggregate(database: Database, collection: str, pipeline: Sequence[Mapping[str, Any]]) -> Aggregated:
    """What a pipeline that `query.pipelines.check` has let through makes of a collection.

    Raises `InvalidSearch`, `StoreUnavailable`, and what the driver raises.
    """
    state = await built(database)
    height = state.checkpoint.height
    rest = list(pipeline)
    first: filters.Filter = filters.EVERYTHING
    if rest and "$match" in rest[0]:
        first = filters.parse(rest.pop(0)["$match"], collection)
    if any(isinstance(part, Text) for part in conjuncts(first)):
        require_text_search(state)
    bounds = range_of(collection, first, height) or {"$in": []}
    stages: list[dict[str, Any]] = [
        {"$match": both(bounds, to_mongo(first, encode_key))},
        # The `_id` is this store's own business.
        {"$unset": "_id"},
        *pipelines.to_mongo(rest, encode_key),
        {"$limit": SEARCH_LIMIT_MAX + 1},
    ]
    found = await database[collection].aggregate_raw_batches(
        stages, batchSize=BATCH_DOCUMENTS, maxTimeMS=SEARCH_MS_MAX, allowDiskUse=False
    )
    encoded: list[bytes] = []
    size_bytes = 0
    async with aclosing(documents(found)) as stream:
        async for document in stream:
            encoded.append(to_json(document))
            size_bytes += len(encoded[-1])
            if len(encoded) > SEARCH_LIMIT_MAX or size_bytes > PAGE_BYTES_MAX:
                raise InvalidSearch(
                    f"The aggregation makes more than {SEARCH_LIMIT_MAX:,} documents or"
                    f" {PAGE_BYTES_MAX // 1024**2} MiB: group or match more, or end it with $limit"
                )
    return Aggregated(encoded, height)


def _top_level(question: Find) -> dict[str, int] | None:
    """The fields that MongoDB need not send; the rest is left out here, from documents as they were."""
    if not question.fields:
        return None
    if question.exclude:
        return {path[0]: 0 for path in question.fields if len(path) == 1} or None
    return {path[0]: 1 for path in question.fields}


def _foreign() -> InvalidCursor:
    return InvalidCursor("The cursor in `after` was not made by this server for this question.")
