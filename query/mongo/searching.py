"""Text search with MongoDB's own text index: ranked once, then handed out in pages from the ranking.

The language of a search text is MongoDB's `$text`. A ranking is of one height, so that all pages of a search
show the store as the first one saw it.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from contextlib import aclosing
from struct import Struct as Packing
from typing import Any, NamedTuple

from query.documents import TEXT_COLLECTIONS
from query.errors import InvalidCursor, InvalidSearch, StoreUnavailable
from query.mongo.asking import BATCH_DOCUMENTS, SEARCH_MS_MAX, built, documents
from query.mongo.connection import Database
from query.mongo.encoding import HEIGHT_MAX, first_id, to_json
from query.mongo.finding import require_text_search
from query.store import SEARCH_CHARS_MAX, SEARCH_LIMIT_MAX, SKIP_MAX, Found

RANKED_MIN = 1_024
"""Documents that are ranked at least, so that the next pages need no second ranking."""
RANKED_GROWTH = 8
RANKED_MAX = SKIP_MAX + SEARCH_LIMIT_MAX
RANKINGS_KEPT = 16
RANKED_KEPT_MAX = 200_000
"""Documents in all rankings that are kept, some 50 bytes each; the last ranking is always kept."""

_CURSOR = Packing(">QQ")


class Cursor(NamedTuple):
    """Where a page ends: the height of the first page, and the place in the ranking."""

    height: int
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
        if cursor is None or cursor.encode() != text or cursor.height > HEIGHT_MAX:
            raise InvalidCursor("The cursor in `after` was not made by this server for this list.")
        return cursor


class Ranking(NamedTuple):
    """The `_id` of the best matches of one search, best first; `complete` if there are no more."""

    ids: list[bytes]
    complete: bool


class Rankings:
    """The last rankings, so that the pages of one search are cut from one list."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, int, str], Ranking] = OrderedDict()

    def get(self, key: tuple[str, str, int, str], wanted: int) -> Ranking | None:
        kept = self._kept.get(key)
        return kept if kept is not None and (kept.complete or len(kept.ids) >= wanted) else None

    def put(self, key: tuple[str, str, int, str], ranking: Ranking) -> None:
        self._kept[key] = ranking
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and (
            len(self._kept) > RANKINGS_KEPT
            or sum([len(kept.ids) for kept in self._kept.values()]) > RANKED_KEPT_MAX
        ):
            self._kept.popitem(last=False)


def check(search_text: str, limit: int) -> None:
    """Raises `InvalidSearch` for a search that is too long or wants too much."""
    if len(search_text) > SEARCH_CHARS_MAX:
        raise InvalidSearch(
            f"A search has at most {SEARCH_CHARS_MAX} characters, this one {len(search_text)}"
        )
    if limit > SEARCH_LIMIT_MAX:
        raise InvalidSearch(f"A search gives at most {SEARCH_LIMIT_MAX} documents at once, not {limit}")


async def search(
    database: Database, rankings: Rankings, collection: str, search_text: str, limit: int, after: str | None
) -> list[Found]:
    """One page of answers.

    Raises `InvalidCursor`, `InvalidSearch`, `StoreUnavailable`, and what the driver raises.
    """
    cursor = None if after is None else Cursor.decode(after)
    state = await built(database)
    require_text_search(state)
    height = state.checkpoint.height
    if cursor is None:
        cursor = Cursor(height, 0)
    elif cursor.height > height:
        raise StoreUnavailable(
            f"The query store is at block {height}, and the page before was of block {cursor.height}"
        )
    if limit < 1:
        return []
    wanted = cursor.place + limit
    if wanted > RANKED_MAX:
        raise InvalidSearch(
            f"A search reaches {SKIP_MAX:,} documents deep: name rarer words to find what lies behind"
        )
    # A store that was rebuilt has other collections.
    key = (collection, search_text, cursor.height, state.collections.get(collection, ""))
    ranking = rankings.get(key, wanted)
    if ranking is None:
        ranking = await _rank(database, collection, search_text, cursor.height, wanted)
        rankings.put(key, ranking)
    ids = ranking.ids[cursor.place : wanted]
    bodies = await _bodies(database, collection, ids)
    return [
        Found(name, body, Cursor(cursor.height, place).encode(), cursor.height)
        for place, identifier in enumerate(ids, cursor.place + 1)
        if (found := bodies.get(identifier)) is not None
        for name, body in (found,)
    ]


async def _rank(database: Database, collection: str, search_text: str, height: int, wanted: int) -> Ranking:
    upto = RANKED_MIN
    while upto < wanted:
        upto *= RANKED_GROWTH
    upto = min(upto, RANKED_MAX)
    # Half of a surrogate pair is no character.
    asked = search_text.encode("utf-8", "replace").decode()
    stages: list[dict[str, Any]] = [
        {"$match": {"$text": {"$search": asked}, "_id": {"$lt": first_id(collection, height + 1)}}},
        # Only this is sorted: documents may be long.
        {"$project": {"_id": 1, "score": {"$meta": "textScore"}}},
        {"$sort": {"score": -1, "_id": 1}},
        {"$limit": upto},
        {"$project": {"_id": 1}},
    ]
    found = await database[collection].aggregate_raw_batches(
        stages, batchSize=RANKED_MIN, maxTimeMS=SEARCH_MS_MAX, allowDiskUse=False
    )
    async with aclosing(documents(found)) as stream:
        ids = [document["_id"] async for document in stream]
    return Ranking(ids, len(ids) < upto)


async def _bodies(database: Database, collection: str, ids: list[bytes]) -> dict[bytes, tuple[str, bytes]]:
    """The id and the answer of each document."""
    if not ids:
        return {}
    field = TEXT_COLLECTIONS[collection]
    found = database[collection].find_raw_batches(
        {"_id": {"$in": ids}},
        {"id": 1, field: 1},
        batch_size=BATCH_DOCUMENTS,
        max_time_ms=SEARCH_MS_MAX,
    )
    bodies = {}
    async with aclosing(documents(found)) as stream:
        async for document in stream:
            name = str(document.get("id"))
            bodies[document["_id"]] = name, to_json({field: document.get(field), "id": name})
    return bodies
