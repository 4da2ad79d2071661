"""What all questions to MongoDB share: the range of documents they may see, and how documents come out.

Documents are read in small batches and decoded in small pieces, so that a worker never stands still for long.
No question takes longer than `SEARCH_S_MAX` in the database, or answers from a store that is being built.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from math import ceil, floor
from typing import Any

import bson

from query.documents import Document, Place
from query.errors import StoreUnavailable
from query.filters import Equal, Filter, Range, conjuncts
from query.mongo.connection import Database
from query.mongo.encoding import CODEC, decode, first_id, id_of
from query.mongo.layout import State, read_state
from query.store import SEARCH_S_MAX

SEARCH_MS_MAX = int(SEARCH_S_MAX * 1000)
BATCH_DOCUMENTS = 100
"""Documents of one message; they may be long."""
PIECE_BYTES = 128 * 1024
"""So much is decoded before others have a turn: about a millisecond."""


async def built(database: Database) -> State:
    """The state of a store that may be asked. Raises `StoreUnavailable`, and what the driver raises."""
    state = await read_state(database)
    if state is None:
        raise StoreUnavailable("There is no query store yet in the MongoDB database of this node")
    require_built(state)
    return state


def require_built(state: State) -> None:
    """Raises `StoreUnavailable` below the height up to which a store is being built."""
    height, target = state.checkpoint.height, state.checkpoint.target
    if height < target:
        raise StoreUnavailable(f"The query store is being built: it is at block {height} of {target}")


# --- ranges of places -------------------------------------------------------------------------------------


def range_of(
    collection: str, filter: Filter, height: int, after: Place | None = None, direction: int = 1
) -> dict[str, Any] | None:
    """What the `_id` of documents up to `height` that match the filter fulfils; None if there can't be any.

    With `after` only those behind it, in the order of commitment or against it.
    """
    low, high = 1, height
    for test in conjuncts(filter):
        if not isinstance(test, Equal | Range) or test.path != ("height",):
            continue
        value = test.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        operator = "$eq" if isinstance(test, Equal) else test.operator
        if operator in ("$eq", "$gte"):
            low = max(low, ceil(value))
        if operator in ("$eq", "$lte"):
            high = min(high, floor(value))
        if operator == "$gt":
            low = max(low, floor(value) + 1)
        if operator == "$lt":
            high = min(high, ceil(value) - 1)
    if low > high:
        return None
    bounds = {"$gte": first_id(collection, low), "$lt": first_id(collection, high + 1)}
    if after is not None:
        behind = id_of(collection, after)
        if direction > 0 and behind >= bounds["$gte"]:
            del bounds["$gte"]
            bounds["$gt"] = behind
        elif direction < 0:
            bounds["$lt"] = min(bounds["$lt"], behind)
    return bounds


# --- documents --------------------------------------------------------------------------------------------


async def documents(cursor: Any) -> AsyncGenerator[Document, None]:
    """The decoded documents of a raw batch cursor, which is closed in the end.

    Raises what the driver raises.
    """
    try:
        async for batch in cursor:
            for piece in _pieces(batch):
                # Nothing was escaped without a percent sign.
                escaped = b"%" in piece
                for document in bson.decode_all(piece, CODEC):
                    yield decode(document) if escaped else document
                await asyncio.sleep(0)
    finally:
        await cursor.close()


def _pieces(batch: bytes) -> list[bytes]:
    """The batch cut between documents into pieces that are not much longer than `PIECE_BYTES`."""
    if len(batch) <= PIECE_BYTES:
        return [batch]
    pieces, start, end = [], 0, 0
    while end < len(batch):
        end += int.from_bytes(batch[end : end + 4], "little")
        if end - start >= PIECE_BYTES or end >= len(batch):
            pieces.append(batch[start:end])
            start = end
    return pieces


def both(bounds: Mapping[str, Any], filter: Mapping[str, Any]) -> dict[str, Any]:
    """The filter as MongoDB takes it, together with a range of `_id`."""
    return {"_id": dict(bounds)} | ({"$and": [dict(filter)]} if filter else {})
