"""Blocks of the ledger as the query store takes them: for the projector on a node that runs, and for the
check of a store on one that does not.

What is stored was verified when it was accepted, so only what documents need is read of it. What can't be
read is a fault of the ledger's files, told as `StoreError`; it must never be passed over.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bcdb.ledger import BlockRecord, Reader
from bcdb.ledger.store import check_identity, locked, open_read_only
from bcdb.ledger.times import rfc3339
from bcdb.model.errors import StoreError
from query.documents import Block, Input, Output, Spend, Spending, Transaction

SLICE_TRANSACTIONS = 100
"""Transactions read before others of the event loop get their turn: one or two milliseconds."""


class _Link(msgspec.Struct, gc=False):
    output_index: int
    transaction_id: str


class _Input(msgspec.Struct, gc=False):
    fulfills: _Link | None
    owners_before: tuple[str, ...]


class _Condition(msgspec.Struct, gc=False):
    uri: str


class _Output(msgspec.Struct, gc=False):
    amount: str
    condition: _Condition
    public_keys: tuple[str, ...]


class _Asset(msgspec.Struct, gc=False):
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    id: str = ""


class _Parts(msgspec.Struct, gc=False):
    asset: _Asset
    inputs: tuple[_Input, ...]
    metadata: msgspec.Raw
    operation: str
    outputs: tuple[_Output, ...]


_decode_parts = msgspec.json.Decoder(_Parts).decode
_from_hex = bytes.fromhex


def transaction_of(transaction_id: bytes, body: bytes) -> Transaction:
    """What the query store needs of a committed transaction, from its canonical bytes.

    Only an operation that makes an asset carries `asset.data`; all others name an asset by its id. Raises
    `msgspec.MsgspecError` or `ValueError` for bytes that no transaction has.
    """
    parts = _decode_parts(body)
    data = parts.asset.data
    made = data is not msgspec.UNSET
    return Transaction(
        transaction_id,
        parts.operation,
        transaction_id if made else _from_hex(parts.asset.id),
        tuple([_input_of(found) for found in parts.inputs]),
        tuple([_output_of(found) for found in parts.outputs]),
        bytes(parts.metadata),
        bytes(data) if isinstance(data, msgspec.Raw) else None,
    )


def _input_of(found: _Input) -> Input:
    link = found.fulfills
    spent = None if link is None else Spend(_from_hex(link.transaction_id), link.output_index)
    return Input(found.owners_before, spent)


def _output_of(found: _Output) -> Output:
    keys = found.public_keys
    if len(keys) > 1:
        # As the ledger keeps them: the body may have them in any order, and twice.
        keys = tuple(sorted(set(keys)))
    return Output(int(found.amount), keys, found.condition.uri)


def read_transactions(reader: Reader, height: int, ids: Sequence[bytes]) -> tuple[list[Transaction], int]:
    """The transactions with these ids, and the size of their bodies in bytes. Raises `StoreError`."""
    found: list[Transaction] = []
    size_bytes = 0
    for transaction_id in ids:
        stored = reader.transaction(transaction_id)
        if stored is None:
            raise StoreError(_lacks(f"the transaction {transaction_id.hex()} of block {height}"))
        size_bytes += len(stored.body)
        try:
            found.append(transaction_of(transaction_id, stored.body))
        except (msgspec.MsgspecError, ValueError) as error:
            raise StoreError(
                f"The transaction {transaction_id.hex()} in the ledger is damaged ({error}); run `bcdb fsck`."
            ) from None
    return found, size_bytes


async def read_blocks(
    reader: Reader, after: int, last: int, documents_max: int, bytes_max: int
) -> list[Block]:
    """The blocks from `after + 1` to at most `last`, as many as stay within the bounds, at least one.

    Others of the event loop get their turn every few milliseconds; `reader` must not change meanwhile but for
    blocks that it gains. Raises `StoreError`.
    """
    blocks: list[Block] = []
    documents = size_bytes = 0
    unpaused = 0
    for height in range(after + 1, last + 1):
        record = reader.block(height)
        if record is None:
            raise StoreError(_lacks(f"block {height}"))
        transactions: list[Transaction] = []
        for start in range(0, len(record.ids), SLICE_TRANSACTIONS):
            if unpaused >= SLICE_TRANSACTIONS:
                await asyncio.sleep(0)
                unpaused = 0
            some, some_bytes = read_transactions(
                reader, height, record.ids[start : start + SLICE_TRANSACTIONS]
            )
            transactions += some
            size_bytes += some_bytes
            unpaused += len(some)
        unpaused += 1
        block = _block_of(record, transactions)
        blocks.append(block)
        documents += block.documents
        if documents >= documents_max or size_bytes >= bytes_max:
            break
    return blocks


def _block_of(record: BlockRecord, transactions: list[Transaction]) -> Block:
    return Block(
        record.height,
        record.block_hash,
        rfc3339(record.time_ns),
        record.app_hash,
        record.proposer,
        transactions,
    )


def _lacks(what: str) -> str:
    return f"The ledger lacks {what}; run `bcdb fsck`."


class StillLedger:
    """A ledger that nobody writes, as a `query.checking.Truth`. Made by `open_still`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def head(self) -> int:
        """The height of the last block."""
        return self._reader.head.height

    async def mark(self, height: int) -> bytes | None:
        """The hash of the block at `height`, None if there is none."""
        record = self._reader.block(height)
        return None if record is None else record.block_hash

    async def blocks(self, after: int, documents_max: int, bytes_max: int) -> list[Block]:
        """See `query.projector.Source.blocks`. Raises `StoreError`."""
        return await read_blocks(self._reader, after, self._reader.head.height, documents_max, bytes_max)

    def spending(self, transaction_id: bytes, index: int) -> Spending | None:
        """What has spent an output, None if nothing has, or there is no such output."""
        output = self._reader.output(transaction_id, index)
        if output is None or output.spent_by is None:
            return None
        return Spending(output.spent_height, output.spent_by)


@contextmanager
def open_still(path: Path) -> Iterator[StillLedger]:
    """The ledger at `path` for reading, locked so that no node starts on it meanwhile.

    Raises `StoreError` when there is none, when a process has it open, or when it can't be read.
    """
    with locked(path):
        families = open_read_only(path)
        try:
            check_identity(families, path, None)
            yield StillLedger(Reader(families))
        finally:
            families.close()
