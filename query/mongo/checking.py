"""What the MongoDB store holds, for whoever compares it with the ledger, and whether its indexes are true.

Documents are told as they are stored, whoever has put them there. Nothing here repairs anything.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from pymongo.errors import OperationFailure

from query.documents import COLLECTIONS
from query.errors import StoreUnavailable
from query.mongo.asking import BATCH_DOCUMENTS, documents
from query.mongo.connection import UNAVAILABLE_CODES, Database, code_of, said
from query.mongo.encoding import first_id, place_of
from query.mongo.layout import identities, index_models, read_state
from query.store import Status, Stored

KIND = "mongodb"
COUNTED_MAX = 100_000
FAULTS_MAX = 20
"""Sentences of MongoDB's own check that are passed on, for each collection."""
_NOT_ALLOWED = 13


async def status(database: Database) -> Status:
    """See `QueryStore.status`. Raises `StoreUnavailable`, and what the driver raises."""
    state = await read_state(database)
    if state is None:
        raise StoreUnavailable("There is no query store yet in the MongoDB database of this node")
    counts = {}
    for name in COLLECTIONS:
        if state.checkpoint.height:
            counts[name] = await database[name].estimated_document_count()
        else:
            # After a crash the estimates may be wrong, and here it matters whether there is anything.
            counts[name] = await database[name].count_documents({}, limit=COUNTED_MAX)
    return Status(KIND, state.checkpoint.height, state.checkpoint.target, state.text_search, counts)


async def stored(database: Database, collection: str, first: int, last: int) -> AsyncIterator[Stored]:
    """See `QueryStore.stored`. Raises what the driver raises."""
    bounds = {"$gte": first_id(collection, first), "$lt": first_id(collection, last + 1)}
    async for found in _read(database, collection, {"_id": bounds}):
        yield found


async def strays(database: Database, collection: str, last: int) -> AsyncIterator[Stored]:
    """See `QueryStore.strays`. Raises what the driver raises."""
    there = {"$gte": first_id(collection, 1), "$lt": first_id(collection, max(last, 0) + 1)}
    # Said like this it is true of values of all other types as well.
    async for found in _read(database, collection, {"_id": {"$not": there}}):
        yield found


async def _read(database: Database, collection: str, filter: dict[str, Any]) -> AsyncIterator[Stored]:
    cursor = database[collection].find_raw_batches(
        filter, sort=[("_id", 1)], hint=[("_id", 1)], batch_size=BATCH_DOCUMENTS, allow_disk_use=False
    )
    async with aclosing(documents(cursor)) as stream:
        async for document in stream:
            yield Stored(place_of(collection, document.pop("_id", None)), document)


async def indexes(database: Database) -> list[str]:
    """See `QueryStore.indexes`. Raises what the driver raises."""
    state = await read_state(database)
    if state is None:
        return ["The query store has lost its state"]
    faults = []
    there = await identities(database)
    for name in COLLECTIONS:
        if name not in there:
            faults.append(f"The collection {name} is missing")
            continue
        if state.collections.get(name) != there[name]:
            faults.append(f"The collection {name} is not the one that the store had")
        faults += await _missing_indexes(database, name, state.text_search)
        faults += await _validate(database, name)
    return faults


async def _missing_indexes(database: Database, name: str, text_search: bool) -> list[str]:
    there = await database[name].index_information()
    faults = []
    for model in index_models(name, text_search):
        wanted = model.document
        if wanted["name"] not in there:
            faults.append(f"The collection {name} has no index {wanted['name']}")
    return faults


async def _validate(database: Database, name: str) -> list[str]:
    try:
        result = await database.command("validate", name, full=True)
    except OperationFailure as error:
        if code_of(error) in UNAVAILABLE_CODES and code_of(error) != _NOT_ALLOWED:
            raise
        return [f"The collection {name} can't be checked by MongoDB: {said(error)}"]
    if result.get("valid"):
        return []
    told = [*result.get("errors", ())]
    for index, details in result.get("indexDetails", {}).items():
        if not details.get("valid", True):
            told += [f"index {index}: {sentence}" for sentence in details.get("errors", ())]
    for kind in ("missingIndexEntries", "extraIndexEntries"):
        if result.get(kind):
            told.append(f"{len(result[kind])} {kind}")
    return [
        f"MongoDB finds damage in {name}: {' '.join(str(sentence).split())[:300]}"
        for sentence in told[:FAULTS_MAX] or ["it is not valid"]
    ]
