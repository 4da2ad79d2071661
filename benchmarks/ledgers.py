"""Ledgers for benchmarks, built by applying blocks directly: no node, no network, no waiting.

What is in them is signed and verified as on a real node, so whoever reads them finds what he would there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from bcdb.ledger import BlockHeader, Ledger
from bcdb.model import KeyPair, Verified, prepare_create, prepare_transfer, verify
from benchmarks.workload import Prepared
from tests.support.transactions import Signed, signed

TRANSFERS_A_BLOCK = 10
OUTPUTS_EACH = 1_000
SPENT_LATER_BLOCKS = 4
"""In a mix, an asset is transferred so many blocks after the one that made it."""
PAIRS = [KeyPair.from_seed(bytes([number]) * 32) for number in (1, 2)]
HOLDER = KeyPair.from_seed(bytes([7]) * 32)


class History(NamedTuple):
    """What `add_history` has put into a ledger. `assets` and `left`: assets of the holder, once and now."""

    asset_id: bytes
    holder: str
    assets: int
    left: int


def add_block(ledger: Ledger, transactions: Sequence[Verified]) -> None:
    """The next block, made of these."""
    height = ledger.head.height + 1
    header = BlockHeader(height, time.time_ns(), bytes(32), height.to_bytes(32, "big"))
    ledger.commit(ledger.apply(header, transactions))


def creates(items: Sequence[Prepared], block: int) -> Iterator[list[bytes]]:
    """Bodies by block: CREATEs only."""
    for start in range(0, len(items), block):
        yield [item.create for item in items[start : start + block]]


def mixed(items: Sequence[Prepared], block: int) -> Iterator[list[bytes]]:
    """Bodies by block: all CREATEs, two for each TRANSFER, and the TRANSFERs of the first half of them."""
    making = max(1, block * 2 // 3)
    moving = max(1, making // 2)
    transfers = iter(items[: len(items) // 2])
    for number, start in enumerate(range(0, len(items), making)):
        bodies = [item.create for item in items[start : start + making]]
        if number >= SPENT_LATER_BLOCKS:
            bodies += [item.transfer for item in islice(transfers, moving)]
        yield bodies
    rest = [item.transfer for item in transfers]
    for start in range(0, len(rest), block):
        yield rest[start : start + block]


def fill(ledger: Ledger, blocks: Iterator[list[bytes]]) -> int:
    """Add blocks of these bodies; how many transactions they have."""
    count = 0
    for bodies in blocks:
        add_block(ledger, [verify(body) for body in bodies])
        count += len(bodies)
    return count


def add_history(ledger: Ledger, transfers: int, outputs: int) -> History:
    """An asset that goes to and fro, one half at a time; and a key that holds `outputs` outputs, and had."""
    one = PAIRS[0]
    made = signed(prepare_create(issuers=[one.public_key], recipients=[([one.public_key], 2)]), [one])
    add_block(ledger, [made.verified])
    held, owner = made, one
    chain: list[Signed] = []
    for number in range(transfers):
        receiver = PAIRS[(number + 1) % 2]
        prepared = prepare_transfer(
            inputs=[(held.tx, 0)] if number == 0 else [(held.tx, 0), (held.tx, 1)],
            recipients=[([receiver.public_key], 1), ([receiver.public_key], 1)],
            asset_id=made.tx["id"],
        )
        held, owner = signed(prepared, [owner]), receiver
        chain.append(held)
        if len(chain) == TRANSFERS_A_BLOCK or number == transfers - 1:
            add_block(ledger, [item.verified for item in chain])
            chain = []
    each = min(OUTPUTS_EACH, outputs)
    shares = [([HOLDER.public_key], 5)] * each
    sources = []
    for serial in range(outputs // each):
        prepared = prepare_create(issuers=[HOLDER.public_key], recipients=shares, asset={"serial": serial})
        sources.append(signed(prepared, [HOLDER]))
        add_block(ledger, [sources[-1].verified])
    # One asset in ten is given away, so that the past is not the present.
    given = sources[::10]
    for source in given:
        inputs = [(source.tx, index) for index in range(each)]
        prepared = prepare_transfer(inputs=inputs, recipients=[([one.public_key], 5 * each)])
        add_block(ledger, [signed(prepared, [HOLDER]).verified])
    return History(made.verified.id, HOLDER.public_key, len(sources), len(sources) - len(given))
