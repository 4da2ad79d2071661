"""What the query store knows of a block: its collections, their fields, and the documents that a block makes.

The documents are the same whatever database keeps them, and are what a filter's paths name and what answers
show. Nothing here may fail on any committed transaction.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

ID_BYTES = 32

FIELDS = {
    "transactions": ("id", "operation", "asset_id", "height", "position", "time", "inputs"),
    "assets": ("id", "height", "position", "data"),
    "metadata": ("id", "height", "position", "metadata"),
    "outputs": (
        "transaction_id",
        "output_index",
        "asset_id",
        "amount",
        "public_keys",
        "condition",
        "height",
        "position",
        "spent_height",
        "spent_by",
    ),
    "blocks": ("height", "time", "hash", "app_hash", "proposer", "transactions"),
}
"""The collections, and the fields of their documents in the order in which they are answered.

Ids, hashes and keys are texts as in the HTTP interface. `amount` is a number here, so that it compares.
`spent_height` and `spent_by` are null while an output is unspent. `transactions` of a block is their number.
"""

COLLECTIONS = tuple(FIELDS)
TEXT_COLLECTIONS = {"assets": "data", "metadata": "metadata"}
"""The collections that are searched for text, and the field with the app's own JSON value."""


class Spend(msgspec.Struct, frozen=True, gc=False):
    """Names the output that an input spends; the id has 32 bytes."""

    transaction_id: bytes
    output_index: int


class Input(msgspec.Struct, frozen=True, gc=False):
    """An input: the base58 keys of the owners before, and what it spends (None in what makes an asset)."""

    owners_before: tuple[str, ...]
    fulfills: Spend | None


class Output(msgspec.Struct, frozen=True, gc=False):
    """An output: its amount, the base58 keys of its condition, and the condition's URI."""

    amount: int
    public_keys: tuple[str, ...]
    condition: str


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """A committed transaction. `id` and `asset_id` have 32 bytes.

    `metadata` is JSON text, `asset` that of the asset's data, None if the transaction makes no asset.
    """

    id: bytes
    operation: str
    asset_id: bytes
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    metadata: bytes
    asset: bytes | None


class Block(msgspec.Struct, frozen=True, gc=False):
    """A committed block with its transactions in order.

    `mark` (at most 64 bytes) tells it from any other that another ledger may have at the same height: its
    hash. `time`: RFC 3339 in UTC with nine decimals, so that the order of texts is the order of times.
    """

    height: int
    mark: bytes
    time: str
    app_hash: bytes
    proposer: bytes
    transactions: Sequence[Transaction] = ()

    @property
    def documents(self) -> int:
        """How many documents it makes, itself included."""
        return 1 + sum([2 + (found.asset is not None) + len(found.outputs) for found in self.transactions])


class Place(msgspec.Struct, frozen=True, gc=False, order=True):
    """Where a document stands, which is also what tells it from all others of its collection.

    `position` is the transaction's in its block, `index` the output's in its transaction; 0 where there is
    none.
    """

    height: int
    position: int = 0
    index: int = 0


class Spending(msgspec.Struct, frozen=True, gc=False):
    """Which transaction (32 bytes) spends an output, and in which block."""

    height: int
    by: bytes


Document = dict[str, Any]
"""A document by its fields, JSON values all."""

decode_json = msgspec.json.decode


def transaction_documents(block: Block) -> Iterator[tuple[Place, Document]]:
    """The documents of the collection `transactions`."""
    for position, found in enumerate(block.transactions):
        yield (
            Place(block.height, position),
            {
                "id": found.id.hex(),
                "operation": found.operation,
                "asset_id": found.asset_id.hex(),
                "height": block.height,
                "position": position,
                "time": block.time,
                "inputs": [
                    {
                        "fulfills": each.fulfills
                        and {
                            "output_index": each.fulfills.output_index,
                            "transaction_id": each.fulfills.transaction_id.hex(),
                        },
                        "owners_before": list(each.owners_before),
                    }
                    for each in found.inputs
                ],
            },
        )


def asset_documents(block: Block) -> Iterator[tuple[Place, Document]]:
    """The documents of the collection `assets`: one for each transaction that makes an asset."""
    for position, found in enumerate(block.transactions):
        if found.asset is not None:
            yield (
                Place(block.height, position),
                {
                    "id": found.id.hex(),
                    "height": block.height,
                    "position": position,
                    "data": decode_json(found.asset),
                },
            )


def metadata_documents(block: Block) -> Iterator[tuple[Place, Document]]:
    """The documents of the collection `metadata`: one for each transaction."""
    for position, found in enumerate(block.transactions):
        yield (
            Place(block.height, position),
            {
                "id": found.id.hex(),
                "height": block.height,
                "position": position,
                "metadata": decode_json(found.metadata),
            },
        )


def output_documents(
    block: Block, spending: Callable[[bytes, int], Spending | None] = lambda transaction_id, index: None
) -> Iterator[tuple[Place, Document]]:
    """The documents of the collection `outputs`. `spending` tells what has spent an output, if anything."""
    for position, found in enumerate(block.transactions):
        for index, output in enumerate(found.outputs):
            spent = spending(found.id, index)
            yield (
                Place(block.height, position, index),
                {
                    "transaction_id": found.id.hex(),
                    "output_index": index,
                    "asset_id": found.asset_id.hex(),
                    "amount": output.amount,
                    "public_keys": list(output.public_keys),
                    "condition": output.condition,
                    "height": block.height,
                    "position": position,
                    "spent_height": spent and spent.height,
                    "spent_by": spent and spent.by.hex(),
                },
            )


def block_document(block: Block) -> tuple[Place, Document]:
    """The document of the collection `blocks`."""
    return (
        Place(block.height),
        {
            "height": block.height,
            "time": block.time,
            "hash": block.mark.hex(),
            "app_hash": block.app_hash.hex(),
            "proposer": block.proposer.hex(),
            "transactions": len(block.transactions),
        },
    )


def documents(
    collection: str,
    block: Block,
    spending: Callable[[bytes, int], Spending | None] = lambda transaction_id, index: None,
) -> Iterator[tuple[Place, Document]]:
    """The documents of one collection that a block makes, in order of their places."""
    if collection == "outputs":
        return output_documents(block, spending)
    if collection == "blocks":
        return iter((block_document(block),))
    return {
        "transactions": transaction_documents,
        "assets": asset_documents,
        "metadata": metadata_documents,
    }[collection](block)
