"""A ledger in a test: blocks made by hand, and the images that a kill or a power cut leaves behind.

The helpers here go through the public names of `bcdb.ledger` only; what a test must break it breaks itself.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from bcdb.ledger import BlockHeader, Invalid, Ledger, Outcome
from bcdb.ledger.fsck import Fault, check
from bcdb.model.transaction import Verified
from tests.support.transactions import Signed

FIRST_TIME_NS = 1_700_000_000_000_000_000
BLOCK_TIME_NS = 1_000_000_000
PROPOSER = bytes(range(20))
CHAIN_ID = "test-chain"


def header(height: int) -> BlockHeader:
    """The header of a block of the tests: everything in it follows from the height."""
    return BlockHeader(height, FIRST_TIME_NS + height * BLOCK_TIME_NS, PROPOSER, height.to_bytes(32, "big"))


def open_ledger(path: Path) -> Ledger:
    return Ledger.open(path, chain_id=CHAIN_ID)


def plain(transactions: Sequence[Signed | Verified | Invalid]) -> list[Verified | Invalid]:
    return [item.verified if isinstance(item, Signed) else item for item in transactions]


def apply(ledger: Ledger, *transactions: Signed | Verified | Invalid) -> Outcome:
    return ledger.apply(header(ledger.head.height + 1), plain(transactions))


def commit(ledger: Ledger, *transactions: Signed | Verified | Invalid) -> Outcome:
    """Apply and commit one block of these transactions."""
    outcome = apply(ledger, *transactions)
    ledger.commit(outcome)
    return outcome


def accept(ledger: Ledger, *transactions: Signed | Verified) -> list[str | None]:
    """The names of the refusals, None for what was accepted."""
    refusals = ledger.accept([item.verified if isinstance(item, Signed) else item for item in transactions])
    return [None if refusal is None else refusal.name for refusal in refusals]


def image(ledger: Ledger, target: Path) -> Path:
    """What a `kill -9` at this moment leaves: everything that was handed to the system, flushed or not."""
    shutil.copytree(ledger.path, target)
    (target / "LOCK").unlink()
    return target


def log_sizes(path: Path) -> dict[str, int]:
    """The sizes of RocksDB's own log files: at the begin of a flush, what the flush makes durable."""
    return {log.name: log.stat().st_size for log in path.glob("*.log")}


def cut(path: Path, synced: dict[str, int]) -> None:
    """Cut the logs to their synced bytes, as a power cut may; a log that was never synced is left empty."""
    for log in path.glob("*.log"):
        with log.open("r+b") as file:
            file.truncate(min(synced.get(log.name, 0), log.stat().st_size))


def faults(path: Path) -> list[Fault]:
    return list(check(path))
