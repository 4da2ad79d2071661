"""Applying a block: (state view, header, transactions) → (results, writes, app hash), the same everywhere.

Pure: no clock, no randomness, no store. Whatever must be identical on all nodes of a chain is decided here
and in the rules of `operations`, in the order of the block; nothing here knows what this node has accepted.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct

from bcdb.ledger.apphash import app_hash
from bcdb.ledger.merkle import Frontier, append, leaf_hash, root
from bcdb.ledger.operations import OPERATIONS, check
from bcdb.ledger.records import (
    BlockHeader,
    BlockRecord,
    Head,
    Rejection,
    encode_block,
    encode_head,
    pack_height,
    pack_place,
)
from bcdb.ledger.slices import SLICE_BYTES, SLICE_TRANSACTIONS, Slices, whole
from bcdb.ledger.view import Overlay, StateView, Writes
from bcdb.model.errors import ValidationError
from bcdb.model.transaction import Verified

ResultStatus = Literal["committed", "duplicate", "rejected"]


class Invalid(Struct, frozen=True):
    """A transaction of a block that is no transaction by itself (statelessly invalid).

    `id` is what the result is reported under: only claimed, so nothing is ever looked up or settled by it.
    """

    id: bytes
    error: ValidationError


class TransactionResult(Struct, frozen=True, gc=False):
    """The fate of one transaction of a block.

    committed: at `position` among the committed ones. duplicate: the id was committed before; nothing
    changes. rejected: `name` and `text` of the rule that it breaks. The unused fields are -1 and "".
    """

    id: bytes
    status: ResultStatus
    position: int = -1
    name: str = ""
    text: str = ""


class Outcome(Struct):
    """What a block does. `results` has one entry for each transaction of the block, in order; `committed` are
    those that it commits, by position; `rejected` those that break a stateful rule, without the `Invalid`
    ones; `spent` is the id of the spender by the 36-byte key of each output that it spends, those that it
    makes itself too.

    `settled` is filled by `Ledger.commit` and is this node's own matter: for each accepted transaction that
    the block settles None (committed) or the Rejection.
    """

    header: BlockHeader
    results: list[TransactionResult]
    app_hash: bytes
    head: Head
    frontier: Frontier
    writes: Writes
    committed: list[Verified]
    rejected: list[TransactionResult]
    spent: dict[bytes, bytes]
    parent_app_hash: bytes
    settled: dict[bytes, Rejection | None]


def apply_block(view: StateView, header: BlockHeader, transactions: Sequence[Verified | Invalid]) -> Outcome:
    """Apply one block on the state of the block before it. Raises ValueError when heights do not follow."""
    return whole(apply_slices(view, header, transactions))


def apply_slices(
    view: StateView, header: BlockHeader, transactions: Sequence[Verified | Invalid]
) -> Slices[Outcome]:
    """The same in slices, with the same outcome however they are cut.

    What `view` answers must not change before the last one. Nothing is written, so it may be given up.
    """
    parent = view.head
    if header.height != parent.height + 1:
        raise ValueError(f"block {header.height} can't follow block {parent.height}")
    overlay = Overlay(view, header.height)
    frontier = view.frontier
    committed: list[Verified] = []
    rejected: list[TransactionResult] = []
    results: list[TransactionResult] = []
    for part in _parts(transactions):
        if results:
            yield
        first = len(committed)
        for transaction in part:
            if isinstance(transaction, Invalid):
                error = transaction.error
                results.append(TransactionResult(transaction.id, "rejected", -1, error.name, error.text))
            else:
                result = _apply_transaction(transaction, overlay, committed)
                results.append(result)
                if result.status == "rejected":
                    rejected.append(result)
        leaves = [
            leaf_hash(header.height, position, header.time_ns, transaction.id)
            for position, transaction in enumerate(committed[first:], first)
        ]
        frontier, nodes = append(parent.log_size + first, frontier, leaves)
        overlay.writes.log += nodes
    head = Head(
        header.height,
        header.time_ns,
        header.block_hash,
        app_hash(root(frontier)),
        parent.log_size + len(committed),
    )
    block = BlockRecord(
        header.height,
        header.time_ns,
        header.proposer,
        header.block_hash,
        parent.block_hash,
        head.app_hash,
        parent.log_size,
        tuple(transaction.id for transaction in committed),
    )
    overlay.writes.blocks.append((pack_height(header.height), encode_block(block)))
    return Outcome(
        header=header,
        results=results,
        app_hash=head.app_hash,
        head=head,
        frontier=frontier,
        writes=overlay.writes,
        committed=committed,
        rejected=rejected,
        spent=overlay.spent,
        parent_app_hash=parent.app_hash,
        settled={},
    )


def _parts(transactions: Sequence[Verified | Invalid]) -> Iterator[Sequence[Verified | Invalid]]:
    """The transactions of a block in order, as many at a time as one slice applies: one at least."""
    start = size_bytes = 0
    for at, transaction in enumerate(transactions):
        if at - start >= SLICE_TRANSACTIONS or size_bytes >= SLICE_BYTES:
            yield transactions[start:at]
            start, size_bytes = at, 0
        if not isinstance(transaction, Invalid):
            size_bytes += len(transaction.body)
    yield transactions[start:]


def _apply_transaction(
    transaction: Verified, overlay: Overlay, committed: list[Verified]
) -> TransactionResult:
    transaction_id = transaction.id
    if overlay.has_transaction(transaction_id):
        return TransactionResult(transaction_id, "duplicate")
    error = check(transaction, overlay)
    if error is not None:
        return TransactionResult(transaction_id, "rejected", -1, error.name, error.text)
    position = len(committed)
    operation = OPERATIONS[transaction.operation]
    operation.effects(transaction, position, overlay)
    place = pack_place(overlay.height, position)
    overlay.writes.transactions.append((transaction_id, place + transaction.body))
    overlay.writes.assets.append((transaction.asset_id + place, operation.CODE + transaction_id))
    overlay.committed.add(transaction_id)
    committed.append(transaction)
    return TransactionResult(transaction_id, "committed", position)


def head_write(outcome: Outcome) -> bytes:
    """The value of the head in `meta` after the block."""
    return encode_head(outcome.head, outcome.frontier)
