"""`python -m benchmarks.load`: how many transactions a node takes, what they wait, and what that costs whom.

It starts a node of its own on an empty folder, prepares signed transactions, and goes through its phases:
CREATE and TRANSFER one by one, batches, reads, commit mode idle and beside half the load, with the projector
running. Results are printed and written to build/load.json; the generator's CPU is counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import generator, machine
from benchmarks.generator import Report
from benchmarks.workload import POST_PATH, Prepared, get_request, post_request, prepare, sent_of, write_slices
from tests.support.http1 import Connection
from tests.support.server import Server

ROOT = Path(__file__).resolve().parents[1]
RATE_EXPECTED_MAX = 10_000
"""Transactions a second for which enough are prepared; a faster node shows as `used_up` in the report."""
BATCH_ITEMS = 500
BATCH_CONNECTIONS = 4
COMMITS_IDLE = 200
COMMIT_CONNECTIONS = 4
TRIAL_S = 2.0
SETTLE_S_MAX = 120.0


class Bench:
    """One node, its transactions, and the results of the phases so far."""

    def __init__(self, server: Server, folder: Path, options: argparse.Namespace) -> None:
        self._server, self._folder, self._options = server, folder, options
        self._host = f"{server.host}:{server.port}"
        self.results: dict[str, dict[str, Any]] = {}

    def ready(self) -> dict[str, Any]:
        found = self._server.get("/health/ready")
        assert isinstance(found, dict)
        return found

    def settle(self) -> float:
        """Wait until nothing is pending, and for the projector. Returns the seconds until the first."""
        began = time.perf_counter()
        committed_s = 0.0
        while time.perf_counter() - began < SETTLE_S_MAX:
            state = self.ready()
            if not committed_s and state["pending"] == 0:
                committed_s = time.perf_counter() - began
            if state["pending"] == 0 and state["projected_height"] == state["height"]:
                return committed_s
            time.sleep(0.01)
        raise RuntimeError(f"not settled: {self.ready()}")

    def committed(self) -> int:
        """Transactions the node has committed since its start, as its own metrics count them."""
        text = self._server.request("GET", "/metrics")[1].decode()
        line = next(
            line for line in text.splitlines() if line.startswith("bcdb_transactions_committed_total ")
        )
        return round(float(line.split()[1]))

    def measure(self, name: str, load: Callable[[], tuple[Report, int]]) -> Report:
        """Run one phase. `load` returns the report of its generator and what was accepted."""
        committed_before = self.committed()
        before = machine.cpu_seconds(self._server.pid)
        report, transactions = load()
        in_time = machine.cpu_seconds(self._server.pid)
        settled_s = self.settle()
        used = machine.since(before, machine.cpu_seconds(self._server.pid))
        result: dict[str, Any] = {
            "per_second": round(transactions / report.seconds),
            "per_second_until_committed": round(transactions / (report.seconds + settled_s)),
            "transactions": transactions,
            "committed": self.committed() - committed_before,
            "seconds": round(report.seconds, 2),
            "settled_after_s": round(settled_s, 3),
            "p50_ms": report.p50_ms,
            "p95_ms": report.p95_ms,
            "p99_ms": report.p99_ms,
            "refused": report.refused,
            "broken": report.broken,
            "generator": report.generator,
            "generator_cpu_s": round(report.cpu_s, 2),
            "cpu_s_during_load": machine.since(before, in_time),
            "cpu_s": used,
            "us_each": {role: round(s / max(1, transactions) * 1e6, 1) for role, s in used.items()},
        }
        if report.used_up and report.generator == "wrk":
            result["note"] = "all prepared requests were sent before the time was over"
        self.results[name] = result
        print(f"{name:18} {_line(result)}", flush=True)
        return report

    def posts(self, name: str, bodies: Sequence[bytes], seconds: float, delay_ms: int = 0) -> Report:
        options = self._options
        requests = [post_request(self._host, body) for body in bodies]
        slices = write_slices(self._folder, name, requests, options.threads)
        return generator.run(
            self._server.host,
            self._server.port,
            slices,
            threads=options.threads,
            connections=options.connections,
            seconds=seconds,
            delay_ms=delay_ms,
        )

    def one_by_one(self, items: list[Prepared]) -> None:
        """CREATE, then TRANSFER of what was created."""
        seconds, threads, connections = (
            self._options.seconds,
            self._options.threads,
            self._options.connections,
        )
        bodies = [item.create for item in items]
        created = self.measure("CREATE", lambda: _counted(self.posts("create", bodies, seconds)))
        known = sent_of(items, created.sent, threads, -(-connections // threads))
        fitting = max(1.0, min(seconds, len(known) / max(1.0, created.rate) * 0.8 - 0.5))
        bodies = [item.transfer for item in known]
        self.measure("TRANSFER", lambda: _counted(self.posts("transfer", bodies, fitting)))

    def batches(self, items: Sequence[Prepared]) -> None:
        path = f"{POST_PATH}/batch"
        lines = [items[at : at + BATCH_ITEMS] for at in range(0, len(items), BATCH_ITEMS)]
        requests = [
            post_request(self._host, b"\n".join(item.create for item in some), path, "application/x-ndjson")
            for some in lines
        ]
        slices = write_slices(self._folder, "batch", requests, 1)

        def load() -> tuple[Report, int]:
            report = generator.run_built_in(
                self._server.host,
                self._server.port,
                slices,
                threads=1,
                connections=BATCH_CONNECTIONS,
                seconds=self._options.seconds,
            )
            return report, sum(len(some) for some in lines[: report.good])

        self.measure("batch", load)

    def reads(self, identities: Sequence[str]) -> None:
        requests = [get_request(self._host, f"{POST_PATH}/{identity}") for identity in identities]
        slices = write_slices(self._folder, "get", requests, self._options.threads)

        def load() -> tuple[Report, int]:
            return _counted(
                generator.run(
                    self._server.host,
                    self._server.port,
                    slices,
                    threads=self._options.threads,
                    connections=self._options.connections,
                    seconds=self._options.seconds,
                    cycle=True,
                )
            )

        self.measure("GET", load)

    def commits_idle(self, items: Sequence[Prepared]) -> None:
        """One client, one CREATE after the other, each waited for."""
        self._commits("commit, idle", [item.create for item in items], 1)

    def commits_beside_load(self, idle: Sequence[Prepared], load: Sequence[Prepared], rate: float) -> None:
        """A few clients in commit mode while the generator posts about `rate` CREATEs a second."""
        period_ms = self._options.connections / rate * 1000
        delay_ms = max(1, round(period_ms / 2))
        trial, load = load[: len(load) // 4], load[len(load) // 4 :]
        tried = self.posts("trial", [item.create for item in trial], TRIAL_S, delay_ms)
        # What a connection needs besides the delay, at about this load, tells the delay that gives the rate.
        besides_ms = self._options.connections / tried.rate * 1000 - delay_ms
        delay_ms = max(1, round(period_ms - besides_ms))
        seconds = min(self._options.seconds, len(load) / rate * 0.8)

        async def both() -> Report:
            posting = asyncio.create_task(
                asyncio.to_thread(self.posts, "half", [item.create for item in load], seconds, delay_ms)
            )
            await asyncio.sleep(0.5)
            bodies = [item.create for item in idle]
            stop_at = time.perf_counter() + seconds - 1.0
            await self._commit_clients("commit, half load", bodies, COMMIT_CONNECTIONS, stop_at)
            return await posting

        report = asyncio.run(both())
        self.settle()
        self.results["commit, half load"]["beside_per_second"] = round(report.rate)
        print(f"{'':18} beside {report.rate:.0f} CREATE/s, {report.refused} refused")

    def _commits(self, name: str, bodies: Sequence[bytes], connections: int) -> None:
        asyncio.run(self._commit_clients(name, bodies, connections, float("inf")))
        self.settle()

    async def _commit_clients(
        self, name: str, bodies: Sequence[bytes], connections: int, stop_at: float
    ) -> None:
        waiting = list(reversed(bodies))
        waits_ms: list[float] = []

        async def client() -> None:
            async with Connection(self._server.host, self._server.port) as connection:
                while waiting and time.perf_counter() < stop_at:
                    body = waiting.pop()
                    began = time.perf_counter()
                    answer = await connection.post(f"{POST_PATH}?mode=commit", body)
                    waits_ms.append((time.perf_counter() - began) * 1000)
                    assert answer.status == 202, answer

        await asyncio.gather(*(client() for _ in range(connections)))
        ordered = sorted(waits_ms)
        result = {f"p{part}_ms": round(ordered[len(ordered) * part // 100], 2) for part in (50, 95, 99)}
        self.results[name] = {"transactions": len(ordered), **result}
        print(f"{name:18} {_line(self.results[name])}", flush=True)


def _counted(report: Report) -> tuple[Report, int]:
    return report, report.good


def _line(result: dict[str, Any]) -> str:
    parts = [f"p50 {result['p50_ms']:.1f} p95 {result['p95_ms']:.1f} p99 {result['p99_ms']:.1f} ms"]
    if "per_second" in result:
        parts.insert(
            0, f"{result['per_second']}/s ({result['per_second_until_committed']}/s until committed)"
        )
        parts += [f"refused {result['refused']}", f"generator {result['generator_cpu_s']} CPU-s"]
        parts += [f"µs each: {', '.join(f'{role} {us}' for role, us in result['us_each'].items())}"]
    return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each phase (8)")
    parser.add_argument("--connections", type=int, default=64, help="connections of the generator (64)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the generator (1)")
    parser.add_argument("--workers", type=int, default=2, help="API workers of the node (2)")
    parser.add_argument(
        "--home", type=Path, help="an empty folder for the node's data; by default a temporary one"
    )
    parser.add_argument(
        "--json", type=Path, default=ROOT / "build" / "load.json", help="where the results go"
    )
    options = parser.parse_args()
    began = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    print(f"machine: {machine.description()}; generator: {generator.name()}")
    with tempfile.TemporaryDirectory(prefix="bcdb-load-") as scratch:
        count = int(RATE_EXPECTED_MAX * options.seconds)
        print(f"preparing {2 * count} signed transactions with all cores", flush=True)
        one = prepare("one", count)
        many = prepare("many", count)
        yardstick = machine.yardstick([item.create for item in one[:500]])
        print("yardstick:", ", ".join(f"{name} {rate}/s" for name, rate in yardstick.items()), flush=True)
        with Server(options.home or Path(scratch) / "node", workers=options.workers) as server:
            bench = Bench(server, Path(scratch), options)
            bench.one_by_one(one)
            committed = [item.id for item in one[:5000]]
            bench.batches(many[count // 4 :])
            bench.reads(committed)
            rest = many[: count // 4]
            bench.commits_idle(rest[:COMMITS_IDLE])
            half = bench.results["CREATE"]["per_second"] / 2
            split = COMMITS_IDLE + len(rest) // 5
            bench.commits_beside_load(rest[COMMITS_IDLE:split], rest[split:], half)
            assert server.stop() == 0, server.tail()
    document = {
        "began": began,
        "machine": machine.description(),
        "options": {name: str(value) for name, value in vars(options).items() if name != "json"},
        "yardstick_per_second": yardstick,
        "phases": bench.results,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
