"""CPU time of the node process for each transaction: `python -m benchmarks.node_process [--count N] [--window
N]`.

Prepared, verified transactions go through one link into a real node process, as an API worker would send
them; no HTTP and no signature is in the way. What is measured is the node's own CPU (getrusage of its
process, all threads, RocksDB's background work included) until everything is committed and published; one
JSON object is printed for each operation.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from bcdb.model.build import prepare_create, prepare_transfer, sign
from bcdb.model.canonical import encode_python
from bcdb.model.keys import KeyPair
from bcdb.model.transaction import Verified
from bcdb.model.validation import verify
from bcdb.node.link import NodeLink
from bcdb.node.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
ISSUER = KeyPair.from_seed(b"i" * 32)
RECIPIENT = KeyPair.from_seed(b"r" * 32)
FILLER = "x" * 230
"""Makes a CREATE some 950 bytes long, as the figures of the project assume."""


def prepare(count: int) -> tuple[list[Verified], list[Verified]]:
    """`count` CREATEs, and for each a TRANSFER of what it makes."""
    creates, transfers = [], []
    for number in range(count):
        create = sign(
            prepare_create(
                issuers=[ISSUER.public_key],
                recipients=None,
                asset={"number": number, "filler": FILLER},
                metadata={"purpose": "benchmark"},
            ),
            [ISSUER],
        )
        transfer = sign(
            prepare_transfer(
                inputs=[(create, 0)],
                recipients=[([RECIPIENT.public_key], 1)],
                asset_id=None,
                metadata={"number": number},
            ),
            [ISSUER],
        )
        creates.append(verify(encode_python(create)))
        transfers.append(verify(encode_python(transfer)))
    return creates, transfers


async def push(link: NodeLink, transactions: Sequence[Verified], window: int) -> None:
    """Keep `window` transactions under way until all are durable, then wait until all are committed."""
    room = asyncio.Semaphore(window)
    goal = link.head.log_size + len(transactions)
    failures: list[BaseException] = []

    def done(future: asyncio.Future[None]) -> None:
        room.release()
        if (error := future.exception()) is not None:
            failures.append(error)

    for transaction in transactions:
        await room.acquire()
        link.submit_nowait(transaction).add_done_callback(done)
    while link.head.log_size < goal and not failures:
        await link.wait_height(link.head.height + 1, 1.0)
    if failures:
        raise failures[0]


async def measure(
    socket_path: Path, batches: dict[str, Sequence[Verified]], window: int, warmup: int
) -> list[dict[str, object]]:
    link = await NodeLink.connect(socket_path, name="benchmark", timeout_s=30)
    rows: list[dict[str, object]] = []
    for name, transactions in batches.items():
        await push(link, transactions[:warmup], window)
        measured = transactions[warmup:]
        before, start = await link.info(), time.perf_counter()
        await push(link, measured, window)
        seconds, after = time.perf_counter() - start, await link.info()
        count = len(measured)
        rows.append(
            {
                "operation": name,
                "transactions": count,
                "bytes": sum(len(transaction.body) for transaction in measured) // count,
                "node_cpu_us": round((after.cpu_s - before.cpu_s) / count * 1e6, 1),
                "per_second": round(count / seconds),
                "blocks": after.height - before.height,
                "flushes": after.flushes - before.flushes,
            }
        )
    link.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="transactions of each operation")
    parser.add_argument("--window", type=int, default=256, help="transactions under way at a time")
    parser.add_argument("--home", type=Path, help="folder for the node; a temporary one by default")
    options = parser.parse_args()
    warmup = options.count // 10
    creates, transfers = prepare(options.count)
    with tempfile.TemporaryDirectory() as temporary:
        settings = Settings(home=options.home or Path(temporary), chain_id="benchmark", log_level="warning")
        settings.make_folders()
        settings_path = settings.home / "settings.json"
        settings.dump(settings_path)
        command = [sys.executable, "-m", "bcdb.node.process", str(settings_path)]
        node = subprocess.Popen(command, cwd=ROOT, env=dict(os.environ))
        try:
            batches = {"CREATE": creates, "TRANSFER": transfers}
            for row in uvloop.run(measure(settings.socket_path, batches, options.window, warmup)):
                print(json.dumps(row))
        finally:
            node.terminate()
            node.wait()


if __name__ == "__main__":
    main()
