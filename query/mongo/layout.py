"""The collections and indexes of the store in its MongoDB database, and the state that tells whose they are.

Collections that were made by somebody else are refused, never dropped. The state knows the collections by the
identity that MongoDB gives them, so that one which was dropped or put in place behind our back is noticed.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from pymongo import IndexModel
from pymongo.errors import OperationFailure

from query.documents import COLLECTIONS, TEXT_COLLECTIONS
from query.errors import StoreDamaged, StoreUnavailable
from query.mongo.connection import Database, code_of, together
from query.mongo.encoding import place_of
from query.store import Checkpoint

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of what is stored and how. A store of another version is rebuilt."""
STATE = "state"
STATE_ID = "checkpoint"
TEXT_INDEX = "text"

INDEXES: Mapping[str, Sequence[Sequence[tuple[str, Any]]]] = {
    "transactions": ([("id", "hashed")], [("asset_id", "hashed")]),
    "assets": ([("id", "hashed")],),
    "metadata": ([("id", "hashed")],),
    "outputs": (
        [("transaction_id", "hashed"), ("output_index", 1)],
        [("asset_id", "hashed")],
        [("public_keys", 1)],
    ),
    "blocks": (),
}
"""Ids are only looked up whole, and a hash of one is a fifth of it. Heights are in every `_id`."""

_NO_SUCH_INDEX = (26, 27)


class State(msgspec.Struct, frozen=True):
    """The store's one document about itself. `collections`: the identity of each, as hexadecimal digits."""

    checkpoint: Checkpoint
    text_search: bool
    collections: Mapping[str, str]

    def has(self, there: Mapping[str, str]) -> bool:
        """Whether these collections are its own, and all that it needs."""
        return dict(self.collections) == there and there.keys() == set(COLLECTIONS)


# --- state ------------------------------------------------------------------------------------------------


async def read_state(database: Database) -> State | None:
    """What the store says of itself, None if it says nothing.

    Raises `StoreDamaged` if it can't be understood, or is of another format, and what the driver raises.
    """
    found = await database[STATE].find_one({"_id": STATE_ID})
    return None if found is None else _state_of(found)


def _state_of(found: Mapping[str, Any]) -> State:
    if found.get("format") != FORMAT:
        raise StoreDamaged(f"The query store has the format {found.get('format')!r} instead of {FORMAT}")
    height, mark, target = found.get("height"), found.get("mark"), found.get("target")
    text_search, collections = found.get("text_search"), found.get("collections")
    if (
        not isinstance(height, int)
        or not isinstance(target, int)
        or type(mark) is not bytes
        or type(text_search) is not bool
        or not isinstance(collections, dict)
        or min(height, target) < 0
    ):
        raise StoreDamaged("The query store has a checkpoint that can't be read")
    return State(Checkpoint(int(height), mark, int(target)), text_search, collections)


async def write_state(database: Database, state: State) -> None:
    """Put the state in place of whatever state there is."""
    checkpoint = state.checkpoint
    document = {
        "format": FORMAT,
        "height": checkpoint.height,
        "mark": checkpoint.mark,
        "target": checkpoint.target,
        "text_search": state.text_search,
        "collections": dict(state.collections),
    }
    await database[STATE].replace_one({"_id": STATE_ID}, document, upsert=True)


async def identities(database: Database) -> dict[str, str]:
    """The identity of each of the store's collections that there are."""
    found = {}
    async for each in await database.list_collections(filter={"name": {"$in": list(COLLECTIONS)}}):
        found[each["name"]] = bytes(each["info"].get("uuid", b"")).hex()
    return found


# --- collections and indexes ------------------------------------------------------------------------------


async def remake(database: Database, checkpoint: Checkpoint, text_search: bool) -> State:
    """Drop the store's collections and make them anew, empty; the state then says `checkpoint`.

    Whatever happens in between, the state says from the beginning that its collections are not these. Raises
    `StoreUnavailable` if they are somebody else's, and what the driver raises.
    """
    if await database[STATE].find_one({"_id": STATE_ID}) is None:
        await _refuse_foreign(database)
    await write_state(database, State(checkpoint, text_search, {}))
    await together(*(database.drop_collection(name) for name in COLLECTIONS))
    await together(*(_make_collection(database, name, text_search) for name in COLLECTIONS))
    state = State(checkpoint, text_search, await identities(database))
    await write_state(database, state)
    return state


async def _make_collection(database: Database, name: str, text_search: bool) -> None:
    await database.create_collection(name, check_exists=False)
    await _make_indexes(database, name, text_search)


async def complete(database: Database, state: State, text_search: bool) -> State:
    """Make the indexes that are missing, and drop those for a text search that is no longer wanted.

    May take long on a large store, which can be read meanwhile. Gives the new state.
    """
    if state.text_search and not text_search:
        # Nobody may ask for an index that is going.
        state = State(state.checkpoint, False, state.collections)
        await write_state(database, state)
        for name in TEXT_COLLECTIONS:
            try:
                await database[name].drop_index(TEXT_INDEX)
            except OperationFailure as error:
                if code_of(error) not in _NO_SUCH_INDEX:
                    raise
    await together(*(_make_indexes(database, name, text_search) for name in COLLECTIONS))
    if text_search and not state.text_search:
        state = State(state.checkpoint, True, state.collections)
        await write_state(database, state)
    return state


async def _make_indexes(database: Database, name: str, text_search: bool) -> None:
    models = index_models(name, text_search)
    if models:
        await database[name].create_indexes(models)


async def missing_indexes(database: Database, text_search: bool) -> list[str]:
    """The indexes that somebody has dropped, each as `collection.index`."""
    missing = []
    for name in COLLECTIONS:
        wanted = [model.document["name"] for model in index_models(name, text_search)]
        there = await database[name].index_information() if wanted else {}
        missing += [f"{name}.{index}" for index in wanted if index not in there]
    return missing


def index_models(collection: str, text_search: bool) -> list[IndexModel]:
    """The indexes that a collection must have beside that of `_id`."""
    models = [IndexModel(list(keys), name=index_name(keys)) for keys in INDEXES[collection]]
    if text_search and collection in TEXT_COLLECTIONS:
        models.append(IndexModel([("$**", "text")], name=TEXT_INDEX, default_language="english"))
    return models


def index_name(keys: Sequence[tuple[str, Any]]) -> str:
    """As MongoDB itself would name it."""
    return "_".join(f"{path}_{way}" for path, way in keys)


# --- opening ----------------------------------------------------------------------------------------------


async def settle(database: Database, text_search: bool) -> State:
    """The state of a store that can be used: made anew, with a log line, if it is missing or unusable.

    Raises `StoreUnavailable` if the database has collections of somebody else under the store's names, and
    what the driver raises.
    """
    there = await identities(database)
    state: State | None = None
    try:
        state = await read_state(database)
    except StoreDamaged as damage:
        reason = damage.text
    else:
        if state is not None and state.has(there):
            return await complete(database, state, text_search)
        reason = "its collections are not those that it had" if state else "it has lost its state"
    if there:
        log.warning("The query store %s is rebuilt from height 0: %s", database.name, reason)
    # It goes on refusing questions if it was being built.
    target = 0 if state is None else state.checkpoint.target
    return await remake(database, Checkpoint(0, b"", target), text_search)


async def _refuse_foreign(database: Database) -> None:
    for name in COLLECTIONS:
        found = await database[name].find_one({}, {"_id": 1})
        if found is not None and place_of(name, found["_id"]) is None:
            raise StoreUnavailable(
                f"The MongoDB database {database.name} has a collection {name} that is not of a query store:"
                " choose another database (setting mongo_database), or drop it yourself"
            )
