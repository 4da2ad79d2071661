"""Running the writer in a process of its own, and checking what it had promised when it ended."""

import os
import subprocess
import sys
from pathlib import Path

from tests.ledger.world import CHAIN_ID, faults, open_ledger

ROOT = Path(__file__).resolve().parents[2]


def writer(
    path: Path, answers: Path, *, rounds: int, padding: int = 0, **environment: str
) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "tests.ledger.writer",
        str(path),
        str(answers),
        str(rounds),
        str(padding),
    ]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def promised(answers: Path) -> tuple[list[bytes], int]:
    """The ids that were answered for, and the last height that was published."""
    ids, height = [], 0
    for line in answers.read_text().splitlines() if answers.exists() else []:
        word, _, value = line.partition(" ")
        if word == "accepted":
            ids.append(bytes.fromhex(value))
        else:
            height = int(value)
    return ids, height


def check_promises(path: Path, answers: Path) -> None:
    """Open again: everything promised is pending, committed or rejected, nothing published is gone, fsck is
    clean.

    Then the ledger goes on as if nothing had been.
    """
    ids, height = promised(answers)
    ledger = open_ledger(path)
    try:
        assert ledger.chain_id == CHAIN_ID
        assert ledger.head.height >= height
        for transaction_id in ids:
            committed = ledger.reader.has_transaction(transaction_id)
            known = (
                committed
                + (transaction_id in ledger.pending)
                + (ledger.rejection(transaction_id) is not None)
            )
            assert known == 1, f"{transaction_id.hex()} was answered for and is known in {known} places"
    finally:
        ledger.close()
    assert faults(path) == []
    with writer(path, answers, rounds=2) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert promised(answers)[1] >= height + 2
