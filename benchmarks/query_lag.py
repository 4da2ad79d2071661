"""How far behind the query store of a whole node is while clients post at a steady rate.

A real node, its projector and its mongod; the generator posts in open loop, so a node that is slow is not
spared. Lag is the time from when a block is published to when the store's checkpoint has reached it, seen
from outside of all of them.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bcdb.ledger import Head
from bcdb.node.link import NodeLink
from bcdb.node.settings import Settings
from bcdb.node.stores import open_reader
from benchmarks import generator, machine
from benchmarks.figures import Figure, Table, spread, step
from benchmarks.generator import Report
from benchmarks.workload import POST_PATH, post_request, prepare, write_slices
from query.store import QueryStore, StoreUnavailable
from tests.support.server import Server

PART = "lag"
LOOK_S = 0.01
"""The store's height is looked at this often; what is told as lag may be too much by as much."""
CONNECTIONS = 128
GRACE_S = 10.0
CAUGHT_UP_S_MAX = 60.0
LAG_MS_MAX = 500
KEPT_UP_SHARE = 0.99


class Watch:
    """When heights were published and when the store had them, both in seconds of one clock."""

    def __init__(self, link: NodeLink, reader: QueryStore, look_s: float = LOOK_S) -> None:
        self._link, self._reader, self._look_s = link, reader, look_s
        self._published_s: dict[int, float] = {}
        self._looks: list[tuple[float, int]] = []
        self._last = 0

    def _published(self, head: Head) -> None:
        # Told of two blocks at once, we know when the newer was published.
        self._published_s[head.height] = time.perf_counter()

    async def run(self) -> None:
        """Look until cancelled."""
        stop = self._link.subscribe(self._published)
        try:
            while True:
                await self._look()
                await asyncio.sleep(self._look_s)
        finally:
            stop()

    async def _look(self) -> None:
        height = await self._reader.height()
        if height != self._last:
            self._looks.append((time.perf_counter(), height))
            self._last = height

    async def caught_up(self) -> float:
        """Wait until the store has what is published; the seconds that took. Raises `TimeoutError`."""
        began = time.perf_counter()
        async with asyncio.timeout(CAUGHT_UP_S_MAX):
            while self._last < self._link.head.height:
                await asyncio.sleep(LOOK_S)
        return time.perf_counter() - began

    def lags_ms(self, since_s: float = 0.0) -> list[float]:
        """The lag of every height that we were told of from `since_s` on, in order."""
        found, looks = [], iter(self._looks)
        seen_s, height = next(looks)
        told = {height: at_s for height, at_s in self._published_s.items() if at_s >= since_s}
        for wanted, published_s in sorted(told.items()):
            while height < wanted:
                seen_s, height = next(looks)
            # The store may have it before we are told that it is published.
            found.append(max(0.0, seen_s - published_s) * 1000)
        return found


async def measure(table: Table, folder: Path, store: str, rate: int, seconds: float) -> None:
    count = int(rate * seconds)
    with step(f"preparing {count:,} CREATEs for a node with {store}"):
        bodies = [item.create for item in prepare(f"lag-{store}", count)]
    home = folder / f"node-{store}"
    flags = ["--mongo"] if store == "MongoDB" else []
    with Server(home, flags=flags) as server:
        requests = [post_request(f"{server.host}:{server.port}", body, POST_PATH) for body in bodies]
        slices = write_slices(folder, f"lag-{store}", requests, 1)
        del bodies, requests
        settings = Settings(home=home, mongo=store == "MongoDB")
        await _load(table, server, settings, store, slices, rate, seconds)
        assert await asyncio.to_thread(server.stop) == 0, server.tail()


async def _load(
    table: Table, server: Server, settings: Settings, store: str, slices: Path, rate: int, seconds: float
) -> None:
    link = await NodeLink.connect(settings.socket_path, name="benchmark")
    reader = open_reader(settings)
    await _there(reader)
    watch = Watch(link, reader)
    watching = asyncio.create_task(watch.run())
    size_before, cpu_before = link.head.log_size, machine.cpu_seconds(server.pid)
    try:
        report = await asyncio.to_thread(_post, server, slices, rate, seconds)
        behind_s = await watch.caught_up()
        committed = link.head.log_size - size_before
        used = machine.since(cpu_before, machine.cpu_seconds(server.pid))
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await reader.close()
        link.close()
    assert report.broken == 0, report
    _tell(table, store, rate, report, committed, watch.lags_ms(), behind_s, used)


async def _there(reader: QueryStore) -> None:
    """Wait for a store that is just being made."""
    async with asyncio.timeout(CAUGHT_UP_S_MAX):
        while True:
            try:
                await reader.height()
                return
            except StoreUnavailable:
                await asyncio.sleep(LOOK_S)


def _post(server: Server, slices: Path, rate: int, seconds: float) -> Report:
    return generator.run_built_in(
        server.host,
        server.port,
        slices,
        threads=1,
        connections=CONNECTIONS,
        seconds=seconds + GRACE_S,
        rate=rate,
    )


def _tell(
    table: Table,
    store: str,
    rate: int,
    report: Report,
    committed: int,
    lags_ms: list[float],
    behind_s: float,
    used: dict[str, float],
) -> None:
    offered = f"{rate:,} CREATE/s offered"
    table.add(
        [
            *spread(PART, f"lag, {offered}", store, lags_ms, {"p95": LAG_MS_MAX}),
            Figure(PART, "blocks looked at", store, len(lags_ms), "blocks"),
            Figure(
                PART,
                f"committed, {offered}",
                store,
                committed / report.seconds,
                "tx/s",
                at_least=rate * KEPT_UP_SHARE,
            ),
            Figure(PART, "refused", store, report.refused, "requests", below=1),
            Figure(PART, "answer of a CREATE, p95, from when it was due", store, report.p95_ms, "ms"),
            Figure(PART, "store at the last block after", store, behind_s * 1000, "ms"),
            *(
                Figure(PART, f"CPU of {role}", store, cpu_s / max(1, committed) * 1e6, "µs a tx")
                for role, cpu_s in used.items()
            ),
        ]
    )
