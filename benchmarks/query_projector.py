"""How fast committed blocks get into a query store: the real projector over a real ledger, nothing beside it.

The ledger is built before, so no node takes part. A round begins when the empty store is made and ends when
it is at the ledger's last block; its CPU is counted for this process and for mongod.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from pathlib import Path
from typing import NamedTuple, cast

from bcdb.ledger import Head, Ledger, open_reader
from bcdb.node.link import NodeLink
from bcdb.node.projection import GC_THRESHOLDS, LedgerSource
from bcdb.node.reading import LedgerReader
from bcdb.node.settings import Settings
from bcdb.node.stores import open_store
from benchmarks import ledgers, machine
from benchmarks.figures import Figure, Table, step
from benchmarks.query_stores import Own, fresh_settings
from benchmarks.workload import prepare
from query.projector import Progress, Projector

PART = "projector"
BLOCK = 200
ROUND_S_MAX = 600.0
TARGETS_PER_SECOND = {("MongoDB", True): 5_000, ("MongoDB", False): 12_000}


class Round(NamedTuple):
    """One way from an empty store to the end of the ledger. CPU in seconds; `mongod_s` is 0 with SQLite."""

    seconds: float
    own_s: float
    mongod_s: float


class Still:
    """Publications of a node that makes no more blocks, in the place of a `NodeLink`."""

    is_open = True

    def __init__(self, head: Head) -> None:
        self.head = head

    async def newest(self) -> Head:
        return self.head

    async def wait_height(self, height: int, timeout_s: float | None = None) -> Head:
        await asyncio.sleep(timeout_s or 1.0)
        return self.head


async def measure(table: Table, own: Own, folder: Path, transactions: int, rounds: int) -> None:
    """Both kinds of ledgers into both kinds of stores, with text indexes and without."""
    with step(f"building two ledgers of {transactions:,} transactions"):
        found = _build(folder, transactions)
    for name, (path, count) in found.items():
        taken: dict[tuple[str, bool], list[Round]] = {}
        # Round by round, so that a machine that grows slower does so for all.
        for number in range(rounds):
            for store in ("MongoDB", "SQLite"):
                for text in (True, False):
                    settings = fresh_settings(own, store, f"{name}_{number}_{text}", text_search=text)
                    taken.setdefault((store, text), []).append(
                        await _round(path, folder / "scratch", settings, own.pid, count)
                    )
                    await own.drop(settings)
        for (store, text), some in taken.items():
            table.add(_figures(name, store, text, some, count))


def _build(folder: Path, transactions: int) -> dict[str, tuple[Path, int]]:
    items = prepare("projector", transactions)
    found: dict[str, tuple[Path, int]] = {}
    for name, blocks in (
        ("CREATE", ledgers.creates(items, BLOCK)),
        ("2 CREATE : 1 TRANSFER", ledgers.mixed(items[: transactions * 2 // 3], BLOCK)),
    ):
        path = folder / f"ledger-{len(found)}"
        ledger = Ledger.open(path, chain_id="benchmark")
        found[name] = path, ledgers.fill(ledger, blocks)
        ledger.close()
    return found


async def _round(path: Path, scratch: Path, settings: Settings, mongod: int, count: int) -> Round:
    seen = open_reader(path, scratch)
    head = seen.head
    seen.close()
    link = Still(head)
    reader = LedgerReader.open(path, scratch, link)
    store = await open_store(settings)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    began: list[tuple[float, float, float]] = []
    ended: asyncio.Future[Round] = asyncio.get_running_loop().create_future()

    def now() -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), machine.cpu_seconds_of(mongod)

    def on_progress(progress: Progress) -> None:
        if progress.height == head.height:
            ended.set_result(Round(*(end - start for start, end in zip(began[-1], now(), strict=True))))

    projector = Projector(
        LedgerSource(reader, cast(NodeLink, link)),
        store,
        on_progress=on_progress,
        on_rebuild=lambda reason: began.append(now()),
    )
    running = asyncio.create_task(projector.run())
    try:
        await asyncio.wait((running, ended), timeout=ROUND_S_MAX, return_when=asyncio.FIRST_COMPLETED)
        assert ended.done(), f"the projector did not reach block {head.height}"
        counts = (await store.status()).counts
        assert counts["transactions"] == count, counts
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()
        reader.close()
        gc.unfreeze()
    return ended.result()


def _figures(name: str, store: str, text: bool, rounds: list[Round], count: int) -> list[Figure]:
    what = f"{name}, text {'on' if text else 'off'}"
    rate = statistics.median(count / each.seconds for each in rounds)
    own_us = statistics.median(each.own_s / count * 1e6 for each in rounds)
    mongod_us = statistics.median(each.mongod_s / count * 1e6 for each in rounds)
    target = TARGETS_PER_SECOND.get((store, text))
    found = [
        Figure(PART, what, store, rate, "tx/s", at_least=target),
        Figure(PART, f"{what}, CPU of the projector", store, own_us, "µs a tx"),
    ]
    if store == "MongoDB":
        found.append(Figure(PART, f"{what}, CPU of mongod", store, mongod_us, "µs a tx"))
    return found
