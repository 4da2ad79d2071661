"""`python -m benchmarks.cluster`: what four validators and the load on them do on one machine.

Signed CREATEs of about 950 bytes go to one, two or all nodes of a real network, once with no projectors and
once with one each; then the same machine orders the plain bytes of CometBFT's own example application, which
is the ceiling of the engine. Figures are printed beside their targets and written to build/cluster.json. The
generators' CPU is counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import cluster_kvstore, generator, machine
from benchmarks.cluster_nodes import ALL, Cluster, Followers
from benchmarks.figures import Figure, Table, spread, step
from benchmarks.generator import Report
from benchmarks.workload import POST_PATH, post_request, prepare, write_slices
from consensus.cometbft.binary import find
from tests.support.cometbft import program
from tests.support.http1 import Connection

ROOT = Path(__file__).resolve().parents[1]
PROJECTION = {"off": [False], "on": [True], "both": [False, True]}
STORE = {False: "none", True: "SQLite"}
RATE_MIN = {False: 1_000, True: 600}
"""Committed transactions a second with four validators and the load on two cores, without and with a
store."""
FINALITY_P95_MS = 2_000
FINALITY_SHARE = 0.7
"""Of the rate that was just measured: at this load finality is looked at."""
FINALITY_CONNECTIONS_MAX = 2_000
FINALITY_CONNECTIONS_S = 4.0
"""Enough connections for as many seconds of waiting."""
IDLE_POSTS = 25
IDLE_POSTS_QUICK = 3
IDLE_PAUSE_S = 0.4
GRACE_S = 20.0
LOAD_S_MAX = 3600.0
SIZES = {"transactions": (100_000, 300), "seconds": (20.0, 1.0), "kvstore_mb": (40, 1)}
"""How much of everything, and with `--quick`."""
KVSTORE_BYTES = (1_000, 50_000, 500_000)
KVSTORE_BYTES_QUICK = (50_000,)


class Bench:
    """One cluster that runs, and the phases of its measurement."""

    def __init__(
        self, cluster: Cluster, followers: Followers, table: Table, folder: Path, options: argparse.Namespace
    ) -> None:
        self._cluster, self._followers, self._table = cluster, followers, table
        self._folder, self._options = folder, options
        self._store = STORE[cluster.projection]
        self._part = f"projection {'on' if cluster.projection else 'off'}"
        self.cpu: dict[str, dict[str, float]] = {}
        """Seconds by role of each phase that has ended."""

    async def idle(self, bodies: Sequence[bytes]) -> None:
        """One client, one CREATE after the other, each waited for."""
        waits_ms = []
        server = self._cluster.nodes[0]
        async with Connection(server.host, server.port) as connection:
            for body in bodies:
                # An empty block that proves the state follows one with transactions; it may pass first.
                await asyncio.sleep(IDLE_PAUSE_S)
                began_s = time.perf_counter()
                answer = await connection.post(f"{POST_PATH}?mode=commit", body)
                waits_ms.append((time.perf_counter() - began_s) * 1000)
                assert answer.status == 202, answer
        self._table.add(spread(self._part, "finality, idle", self._store, waits_ms))
        await self._followers.idle()

    async def throughput(self, bodies: Sequence[bytes]) -> float:
        """Everything as fast as it is accepted. Returns the committed transactions a second."""
        options = self._options
        before, since = self._followers.log_size, self._cluster.cpu_seconds()
        reports = await self._post("load", bodies, options.connections, options.offered, options.batch)
        # The last request of a batch may have less than the others.
        accepted = min(sum(report.good for report in reports) * options.batch, len(bodies))
        ended_s = await self._followers.committed(before + accepted)
        began_s = min(report.began_s for report in reports)
        used = self._cluster.cpu_seconds().since(since, sum(report.cpu_s for report in reports))
        rate: float = accepted / (ended_s - began_s)
        behind_s = await self._followers.projected()
        figures = [
            Figure(
                self._part,
                "committed at all nodes",
                self._store,
                rate,
                "tx/s",
                RATE_MIN[self._cluster.projection],
            ),
            Figure(self._part, "transactions", self._store, accepted, "tx"),
            Figure(
                self._part, "refused", self._store, sum(each.refused for each in reports), "requests", below=1
            ),
            Figure(self._part, "accepted", self._store, _rate_of(reports, options.batch), "tx/s"),
            *self._blocks(began_s, ended_s, accepted),
        ]
        self._table.add(figures + self._lag("load", since.at_s, behind_s))
        self._cpu("load", used, accepted)
        await self._followers.idle()
        return rate

    async def finality(self, bodies: Sequence[bytes], rate: float) -> None:
        """So many CREATEs a second, each waited for, in open loop: from when it was due to its answer."""
        before, since = self._followers.log_size, self._cluster.cpu_seconds()
        connections = round(min(FINALITY_CONNECTIONS_MAX, max(64.0, rate * FINALITY_CONNECTIONS_S)))
        reports = await self._post("paced", bodies, connections, rate, 1, "?mode=commit")
        good = sum(report.good for report in reports)
        await self._followers.committed(before + good)
        used = self._cluster.cpu_seconds().since(since, sum(report.cpu_s for report in reports))
        behind_s = await self._followers.projected()
        offered = f"at {rate:,.0f}/s"
        waits = {
            # With several nodes the slowest of them is told.
            name: max(getattr(report, f"{name}_ms") for report in reports)
            for name in ("p50", "p95", "p99", "max")
        }
        below = {"p95": FINALITY_P95_MS}
        figures = [
            Figure(self._part, f"finality {offered}, {name}", self._store, value, "ms", below=below.get(name))
            for name, value in waits.items()
        ]
        refused = sum(report.refused for report in reports)
        figures.append(Figure(self._part, f"refused {offered}", self._store, refused, "requests", below=1))
        self._table.add(figures + self._lag(f"{offered}", since.at_s, behind_s))
        self._cpu("paced", used, good)
        await self._followers.idle()

    async def _post(
        self, name: str, bodies: Sequence[bytes], connections: int, rate: float, batch: int, mode: str = ""
    ) -> list[Report]:
        """Post these to the first nodes, in equal shares, each from a generator of its own."""
        targets = self._cluster.nodes[: self._options.post_to]
        share = -(-len(bodies) // len(targets))

        def post(number: int) -> Report:
            server, own = targets[number], bodies[number * share : (number + 1) * share]
            host = f"{server.host}:{server.port}"
            if batch > 1:
                kind, path = "application/x-ndjson", f"{POST_PATH}/batch{mode}"
                requests = [
                    post_request(host, b"\n".join(own[at : at + batch]), path, kind)
                    for at in range(0, len(own), batch)
                ]
            else:
                requests = [post_request(host, body, f"{POST_PATH}{mode}") for body in own]
            slices = write_slices(self._folder, f"{name}-{self._store}-{number}", requests, 1)
            return generator.run_built_in(
                server.host,
                server.port,
                slices,
                threads=1,
                connections=max(1, connections // len(targets)),
                seconds=len(own) / rate * len(targets) + GRACE_S if rate else LOAD_S_MAX,
                rate=rate / len(targets),
            )

        return list(await asyncio.gather(*(asyncio.to_thread(post, at) for at in range(len(targets)))))

    def _blocks(self, began_s: float, ended_s: float, accepted: int) -> list[Figure]:
        heads = [(at_s, head) for at_s, head in self._followers.each[0].heads if began_s <= at_s <= ended_s]
        blocks = heads[-1][1].height - heads[0][1].height + 1 if heads else 1
        return [
            Figure(self._part, "transactions of a block, mean", self._store, accepted / blocks, "tx"),
            Figure(
                self._part,
                "from block to block, mean",
                self._store,
                (ended_s - began_s) / blocks * 1000,
                "ms",
            ),
        ]

    def _lag(self, when: str, since_s: float, behind_s: float) -> list[Figure]:
        lags_ms = self._followers.lags_ms(since_s)
        if not lags_ms:
            return []
        return [
            *spread(self._part, f"lag of the stores, {when}", self._store, lags_ms),
            Figure(
                self._part, f"all stores at the last block after, {when}", self._store, behind_s * 1000, "ms"
            ),
        ]

    def _cpu(self, phase: str, used: dict[str, float], transactions: int) -> None:
        """Print where the CPU went, and keep it."""
        self.cpu[phase] = used
        print(f"  {'CPU, ' + phase + ', ' + self._part:32} {'s':>9} {'µs a tx':>9}")
        for role, seconds in used.items():
            print(f"  {role:32} {seconds:9.2f} {seconds / max(1, transactions) * 1e6:9.0f}", flush=True)
        each = used[ALL] / max(1, transactions) * 1e6
        self._table.add([Figure(self._part, f"CPU of all nodes, {phase}", self._store, each, "µs a tx")])


def _rate_of(reports: Sequence[Report], batch: int) -> float:
    return sum(report.good * batch / report.seconds for report in reports)


async def measure_cluster(
    table: Table, folder: Path, projection: bool, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """All phases on a new cluster. Returns the CPU seconds of each phase by role."""
    name, idle_posts = STORE[projection], IDLE_POSTS_QUICK if options.quick else IDLE_POSTS
    with step(f"preparing {options.transactions:,} CREATEs"):
        bodies = [item.create for item in prepare(name, options.transactions + idle_posts)]
    idle, load = bodies[:idle_posts], bodies[idle_posts:]
    with step(f"starting {options.nodes} validators, {options.workers} worker each"):
        cluster = Cluster(folder / name, options.nodes, workers=options.workers, projection=projection)
        await asyncio.to_thread(cluster.start)
    try:
        followers = await Followers.of(cluster)
        try:
            bench = Bench(cluster, followers, table, folder, options)
            await bench.idle(idle)
            rate = await bench.throughput(load) * FINALITY_SHARE
            count = max(1, int(rate * options.seconds))
            with step(f"preparing {count:,} CREATEs"):
                bodies = [item.create for item in await asyncio.to_thread(prepare, f"{name}-paced", count)]
            await bench.finality(bodies, rate)
        finally:
            await followers.close()
        await asyncio.to_thread(cluster.assert_agreement)
        await asyncio.to_thread(cluster.stop)
    finally:
        await asyncio.to_thread(cluster.kill)
    return bench.cpu


async def measure_ceiling(table: Table, folder: Path, options: argparse.Namespace) -> None:
    """CometBFT alone, with transactions of the size of ours and of our bundles."""
    for tx_bytes in KVSTORE_BYTES_QUICK if options.quick else KVSTORE_BYTES:
        total = max(options.kvstore_mb * 1_000_000 // (8 if tx_bytes < 10_000 else 1), tx_bytes)
        found = await cluster_kvstore.measure(folder / f"kv{tx_bytes}", options.nodes, tx_bytes, total, {})
        what = f"kvstore, {tx_bytes:,} bytes each"
        table.add(
            [
                Figure("ceiling", f"{what}, ordered", "kvstore", found.rate, "tx/s"),
                Figure("ceiling", f"{what}, ordered", "kvstore", found.bytes_per_s / 1e6, "MB/s"),
                Figure("ceiling", f"{what}, blocks", "kvstore", found.blocks, "blocks"),
                Figure(
                    "ceiling",
                    f"{what}, CPU of CometBFT",
                    "kvstore",
                    found.cometbft_cpu_s / (found.transactions * tx_bytes) * 1e9,
                    "µs a KB",
                ),
            ]
        )


async def run(table: Table, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    for projection in PROJECTION.get(options.projection, []):
        cpu[STORE[projection]] = await measure_cluster(table, folder, projection, options)
    if options.kvstore_mb:
        await measure_ceiling(table, folder, options)
    return cpu


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.cluster", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that it works")
    parser.add_argument("--transactions", type=int, help="CREATEs at full speed (100000)")
    parser.add_argument("--nodes", type=int, default=4, help="validators (4)")
    parser.add_argument("--workers", type=int, default=1, help="API workers of each node (1)")
    parser.add_argument("--post-to", type=int, default=1, help="how many of the nodes get the load (1)")
    parser.add_argument("--projection", choices=[*PROJECTION, "none"], default="both", help="(both)")
    parser.add_argument("--seconds", type=float, help="of the look at finality (20)")
    parser.add_argument("--connections", type=int, default=64, help="of the generators together (64)")
    parser.add_argument("--offered", type=float, default=0, help="CREATEs a second, 0 for full speed (0)")
    parser.add_argument("--batch", type=int, default=1, help="CREATEs in one request (1)")
    parser.add_argument("--kvstore-mb", type=int, help="bytes of the ceiling, 0 for none (40)")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "cluster.json", help="for the figures")
    options = parser.parse_args()
    for option, (full, quick) in SIZES.items():
        if getattr(options, option) is None:
            setattr(options, option, quick if options.quick else full)
    if not 1 <= options.post_to <= options.nodes:
        parser.error(f"--post-to is 1 to {options.nodes}")
    began = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    version = find(program()).version
    # That a peer does not listen yet, at the start of all of them, is no news here.
    logging.getLogger("consensus").setLevel(logging.CRITICAL)
    print(f"machine: {machine.description()}; CometBFT {version}", flush=True)
    table = Table()
    # Sockets have short paths: the folder of temporary files is seldom deep.
    with tempfile.TemporaryDirectory(prefix="bcdb-cluster-") as folder:
        cpu = uvloop.run(run(table, Path(folder), options))
    about = {
        "began": began,
        "machine": machine.description(),
        "cometbft": version,
        "go": {name: value for name, value in os.environ.items() if name.startswith("GO")},
        "options": {name: str(value) for name, value in vars(options).items() if name != "json"},
        "cpu_s": cpu,
    }
    table.write(options.json, about)
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
