"""The validators that `benchmarks.cluster` measures: a testnet, with or without projectors, seen from
outside.

Each node is watched through its own socket, as its projector does it: one small message for each block. CPU
seconds are read from /proc, by role, and those of everybody else on the machine beside them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

from bcdb.ledger import Head
from bcdb.node.link import NodeLink
from bcdb.node.settings import read_settings
from bcdb.node.stores import open_reader
from benchmarks import machine
from benchmarks.query_lag import Watch
from query.store import QueryStore, StoreUnavailable
from tests.support.cometbft import program
from tests.support.server import Server
from tests.support.testnet import Testnet

ROOT = Path(__file__).resolve().parents[1]
ALL = "all of the cluster"
OTHERS = "others on this machine"
STORE_THERE_S_MAX = 30.0
LOOK_S = 0.1
"""Heights of the stores are looked at so often; lag is known no finer."""
PAUSE_S = 0.02
STANDSTILL_S_MAX = 60.0
"""Without a block for so long, nothing more will be committed."""


class BareServer(Server):
    """A node without a projector: see `bare_node`."""

    def __init__(self, home: Path) -> None:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {"BCDB_COMETBFT": str(program()), "PYTHONPATH": path}
        super().__init__(home, as_configured=True, environment=environment)
        self._command = [sys.executable, "-m", "benchmarks.bare_node", str(home)]


class Cluster(Testnet):
    """A testnet of validators; with `projection` off, nobody follows the blocks into a store."""

    __test__ = False

    def __init__(self, folder: Path, validators: int, *, workers: int, projection: bool) -> None:
        super().__init__(folder, validators, workers=workers)
        self.projection = projection
        if not projection:
            self.nodes = [BareServer(server.home) for server in self.nodes]

    def cpu_seconds(self) -> Cpu:
        """What everybody has used until now."""
        roles: dict[str, float] = {}
        for server in self.nodes:
            for role, seconds in machine.cpu_seconds(server.pid).items():
                roles[role] = roles.get(role, 0.0) + seconds
        return Cpu(time.perf_counter(), roles, machine.busy_seconds(), machine.cpu_seconds_of(os.getpid()))


class Cpu(NamedTuple):
    """CPU seconds until a moment: by role of a node's processes, of the whole machine, of this process."""

    at_s: float
    roles: dict[str, float]
    machine_s: float
    own_s: float

    def since(self, before: Cpu, generator_s: float) -> dict[str, float]:
        """Seconds by role from `before` on, and of all others; the generator's are known when it ends."""
        used = machine.since(before.roles, self.roles)
        used[ALL] = round(sum(used.values()), 2)
        used["generator"] = round(generator_s, 2)
        used["benchmark"] = round(self.own_s - before.own_s, 2)
        # A generator has ended and its time counts; ticks of other clocks may differ by some hundredths.
        known = used[ALL] + used["generator"] + used["benchmark"]
        used[OTHERS] = round(max(0.0, self.machine_s - before.machine_s - known), 2)
        used["CPU there was"] = round((self.at_s - before.at_s) * machine.CORES, 2)
        return used


class Follower:
    """When blocks were published at one node, and when its store had them if it has a projector."""

    def __init__(self, link: NodeLink, reader: QueryStore | None) -> None:
        self.link = link
        self.heads: list[tuple[float, Head]] = []
        """In order, on the clock of `time.perf_counter`; two blocks that are told at once are one entry."""
        self._stop = link.subscribe(lambda head: self.heads.append((time.perf_counter(), head)))
        self._reader = reader
        self.watch = None if reader is None else Watch(link, reader, LOOK_S)
        self._watching = None if self.watch is None else asyncio.create_task(self.watch.run())

    @classmethod
    async def of(cls, server: Server, projection: bool) -> Follower:
        settings = read_settings(server.home, environ={})
        link = await NodeLink.connect(settings.socket_path, name="benchmark")
        if not projection:
            return cls(link, None)
        reader = open_reader(settings)
        async with asyncio.timeout(STORE_THERE_S_MAX):
            while True:
                try:
                    await reader.height()
                    return cls(link, reader)
                except StoreUnavailable:
                    await asyncio.sleep(PAUSE_S)

    async def close(self) -> None:
        self._stop()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._reader is not None:
            await self._reader.close()
        self.link.close()

    def reached_s(self, log_size: int) -> float | None:
        """When the log had that many transactions."""
        return next((at_s for at_s, head in self.heads if head.log_size >= log_size), None)


class Followers:
    """All nodes of a cluster, followed."""

    def __init__(self, each: list[Follower]) -> None:
        self.each = each

    @classmethod
    async def of(cls, cluster: Cluster) -> Followers:
        return cls(
            await asyncio.gather(*(Follower.of(server, cluster.projection) for server in cluster.nodes))
        )

    async def close(self) -> None:
        await asyncio.gather(*(follower.close() for follower in self.each))

    @property
    def log_size(self) -> int:
        """Transactions that all nodes have committed."""
        return min(follower.link.head.log_size for follower in self.each)

    async def committed(self, log_size: int) -> float:
        """Wait until all nodes have that many transactions. Returns when the last one had them.

        Raises `TimeoutError` when nothing happens any more.
        """
        seen, since_s = -1, time.perf_counter()
        while self.log_size < log_size:
            if self.log_size != seen:
                seen, since_s = self.log_size, time.perf_counter()
            if time.perf_counter() - since_s > STANDSTILL_S_MAX:
                raise TimeoutError(f"{log_size - seen} transactions are not committed everywhere")
            await asyncio.sleep(PAUSE_S)
        return max(follower.reached_s(log_size) or 0.0 for follower in self.each)

    async def idle(self) -> None:
        """Wait until no node has anything pending, and all have the same height."""
        async with asyncio.timeout(STANDSTILL_S_MAX):
            while True:
                infos = await asyncio.gather(*(follower.link.info() for follower in self.each))
                if not any(info.pending_count for info in infos) and len({i.height for i in infos}) == 1:
                    return
                await asyncio.sleep(PAUSE_S)

    async def projected(self) -> float:
        """Wait until all stores have the last block; the longest of these waits in seconds."""
        watches = [follower.watch for follower in self.each if follower.watch is not None]
        return max(await asyncio.gather(*(watch.caught_up() for watch in watches)), default=0.0)

    def lags_ms(self, since_s: float) -> list[float]:
        """How far behind the stores were, for every block that was published from then on."""
        return [
            lag_ms
            for follower in self.each
            if follower.watch is not None
            for lag_ms in follower.watch.lags_ms(since_s)
        ]
