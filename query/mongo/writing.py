"""Writing the documents of blocks into MongoDB, then the checkpoint.

Everything is written so that to write it again changes nothing: inserts that pass over what is there, updates
that say what has spent an output. So a batch that was interrupted anywhere is written again as a whole. The
checkpoint moves last, and only from where this batch began.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import bson
from bson.errors import BSONError
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, OperationFailure

from query import documents as made
from query.documents import TEXT_COLLECTIONS, Block, Document, Spending
from query.errors import ProjectionGap, StoreDamaged, StoreUnavailable
from query.mongo.connection import TOO_LARGE_CODES, UNAVAILABLE_CODES, Database, code_of, together
from query.mongo.encoding import PACKINGS, boxed, encode, needs_care, place_of
from query.mongo.layout import STATE, STATE_ID, State
from query.store import Checkpoint

DOCUMENT_BYTES_MAX = 15 * 1024 * 1024
"""MongoDB takes 16 MiB."""
UPDATE_PARTS = 2
"""Updates go in so many messages at once: one message is worked on by one core."""
UPDATES_PER_PART_MIN = 100
PLACES_KEPT_MAX = 50_000
"""Some 200 bytes each."""

_DUPLICATE_CODE = 11000
_UNFIT = (BSONError, OverflowError, ValueError, RecursionError)
"""What the driver raises for a document that it can't encode."""


class Places:
    """The `_id` of outputs that were written lately: most are spent soon, and it halves the work of that."""

    def __init__(self) -> None:
        self._newer: dict[tuple[str, int], bytes] = {}
        self._older: dict[tuple[str, int], bytes] = {}

    def add(self, outputs: Sequence[Document]) -> None:
        if len(self._newer) > PLACES_KEPT_MAX // 2:
            self._newer, self._older = {}, self._newer
        self._newer.update({(each["transaction_id"], each["output_index"]): each["_id"] for each in outputs})

    def filter_of(self, transaction_id: str, index: int) -> dict[str, Any]:
        """What finds an output in the store."""
        key = (transaction_id, index)
        known = self._newer.get(key) or self._older.get(key)
        return {"transaction_id": transaction_id, "output_index": index} if known is None else {"_id": known}


async def project(database: Database, state: State, places: Places, blocks: Sequence[Block]) -> State:
    """Add consecutive blocks and give the new state.

    Raises `ProjectionGap`, `StoreDamaged`, `StoreUnavailable`, and what the driver raises.
    """
    height = state.checkpoint.height
    fresh = [block for block in blocks if block.height > height]
    for expected, block in enumerate(fresh, height + 1):
        if block.height != expected:
            raise ProjectionGap(f"The next block of the query store is {expected}, not {block.height}")
    if not fresh:
        return state
    batch = Batch(fresh)
    # What is spent of earlier outputs needs no waiting for the outputs of these blocks.
    repeated = await together(
        *(_insert(database, batch, name) for name in batch.documents),
        _update(database, places, batch.spent_before),
    )
    if any(repeated):
        # Some of it is there from an earlier attempt, which may have had fewer blocks and spent less.
        await _update(database, places, batch.spent_within)
    places.add(batch.documents["outputs"])
    return await _move(database, state, fresh[-1])


async def _move(database: Database, state: State, last: Block) -> State:
    """The checkpoint moves to the block `last`, if it is still where `state` says."""
    before = state.checkpoint
    # A store that has been built forgets how far that was.
    target = 0 if before.target <= last.height else before.target
    moved = await database[STATE].update_one(
        {"_id": STATE_ID, "height": before.height, "mark": before.mark},
        {"$set": {"height": last.height, "mark": last.mark, "target": target}},
    )
    if moved.matched_count != 1:
        if await database[STATE].find_one({"_id": STATE_ID}) is None:
            raise StoreDamaged("The query store has lost its state")
        raise ProjectionGap(f"The checkpoint of the query store has left block {before.height} by itself")
    return State(Checkpoint(last.height, last.mark, target), state.text_search, state.collections)


# --- documents --------------------------------------------------------------------------------------------


class Batch:
    """What consecutive blocks add to the store.

    `documents`: those to be inserted, with their `_id`, by collection. `spent_within`, `spent_before`: what
    is spent of the outputs of these blocks, and of those before, by transaction id and output index.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.documents: dict[str, list[Document]] = {name: [] for name in made.COLLECTIONS}
        self.spent_within: dict[tuple[bytes, int], Spending] = {}
        self.spent_before: dict[tuple[bytes, int], Spending] = {}
        self._blocks = {block.height: block for block in blocks}
        ids = {found.id for block in blocks for found in block.transactions}
        for block in blocks:
            for found in block.transactions:
                for each in found.inputs:
                    spent = each.fulfills
                    if spent is not None:
                        within = spent.transaction_id in ids
                        spendings = self.spent_within if within else self.spent_before
                        spendings[spent.transaction_id, spent.output_index] = Spending(block.height, found.id)
        for block in blocks:
            self._add(block)

    def _add(self, block: Block) -> None:
        spent = self.spent_within.get
        outputs = made.output_documents(block, lambda transaction_id, index: spent((transaction_id, index)))
        pack_output, pack = PACKINGS["outputs"].pack, PACKINGS["transactions"].pack
        self.documents["outputs"] += [
            {"_id": pack_output(place.height, place.position, place.index), **document}
            for place, document in outputs
        ]
        for collection, source in (
            ("transactions", made.transaction_documents),
            ("assets", made.asset_documents),
            ("metadata", made.metadata_documents),
        ):
            added = [
                {"_id": pack(place.height, place.position), **document} for place, document in source(block)
            ]
            if collection in TEXT_COLLECTIONS:
                field = TEXT_COLLECTIONS[collection]
                for document, body in zip(added, _bodies(block, collection), strict=True):
                    if needs_care(body):
                        document[field] = encode(document[field], body)
            self.documents[collection] += added
        place, document = made.block_document(block)
        self.documents["blocks"].append({"_id": PACKINGS["blocks"].pack(place.height), **document})

    def box(self, collection: str, document: Document) -> None:
        """Keep the app's value in a document as text, as MongoDB doesn't take it as it is."""
        place = place_of(collection, document["_id"])
        assert place is not None, "documents are made with their place"
        found = self._blocks[place.height].transactions[place.position]
        body = found.asset if collection == "assets" else found.metadata
        assert body is not None, "only a transaction with an asset makes such a document"
        document[TEXT_COLLECTIONS[collection]] = boxed(body)


def _bodies(block: Block, collection: str) -> list[bytes]:
    if collection == "metadata":
        return [found.metadata for found in block.transactions]
    return [found.asset for found in block.transactions if found.asset is not None]


# --- messages ---------------------------------------------------------------------------------------------


async def _insert(database: Database, batch: Batch, collection: str) -> bool:
    """Insert what is not there yet; whether something was.

    What MongoDB does not take as it is gets boxed.
    """
    documents = batch.documents[collection]
    if not documents:
        return False
    repeated, unfit = await _insert_many(database, collection, documents)
    boxed_ids: set[bytes] = set()
    while unfit:
        # The driver tells only of those that it can't encode; what the server does not take comes out next.
        ids = {document["_id"] for document in unfit}
        if collection not in TEXT_COLLECTIONS or ids & boxed_ids:
            raise StoreUnavailable(f"MongoDB does not take {len(unfit)} documents of {collection}")
        for document in unfit:
            batch.box(collection, document)
        boxed_ids |= ids
        _, unfit = await _insert_many(database, collection, documents)
    return repeated


async def _insert_many(
    database: Database, collection: str, documents: Sequence[Document]
) -> tuple[bool, list[Document]]:
    """Whether some were there, and those that MongoDB or its driver does not take."""
    try:
        await database[collection].insert_many(documents, ordered=False)
    except BulkWriteError as error:
        return _told(error, documents)
    except (OperationFailure, *_UNFIT) as error:
        unfit = []
        if not isinstance(error, OperationFailure) or code_of(error) in TOO_LARGE_CODES:
            unfit = [document for document in documents if not _fits(document)]
        if not unfit:
            raise
        return False, unfit
    return False, []


def _told(error: BulkWriteError, documents: Sequence[Document]) -> tuple[bool, list[Document]]:
    details: Mapping[str, Any] = error.details or {}
    repeated, unfit = False, []
    for each in details.get("writeErrors", ()):
        if each["code"] == _DUPLICATE_CODE:
            if each.get("keyPattern") != {"_id": 1}:
                raise error
            repeated = True
        elif each["code"] in UNAVAILABLE_CODES:
            raise error
        else:
            unfit.append(documents[each["index"]])
    if details.get("writeConcernErrors"):
        raise error
    return repeated, unfit


def _fits(document: Document) -> bool:
    try:
        return len(bson.encode(document)) <= DOCUMENT_BYTES_MAX
    except _UNFIT:
        return False


async def _update(
    database: Database, places: Places, spendings: Mapping[tuple[bytes, int], Spending]
) -> None:
    """Say what has spent outputs. Those that are not in the store are passed over: the check finds that."""
    updates = [
        UpdateOne(
            places.filter_of(transaction_id.hex(), index),
            {"$set": {"spent_height": spending.height, "spent_by": spending.by.hex()}},
        )
        for (transaction_id, index), spending in spendings.items()
    ]
    size = max(UPDATES_PER_PART_MIN, -(-len(updates) // UPDATE_PARTS))
    outputs = database["outputs"]
    await together(
        *(outputs.bulk_write(updates[at : at + size], ordered=False) for at in range(0, len(updates), size))
    )
