"""The load generators: wrk when it is on PATH, otherwise a small one of our own in a process of its own.

Both send what `workload.write_slices` wrote, one request at a time on each connection, and report alike. A
generator never shares a process with anything whose CPU is measured: its CPU seconds are counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple, cast

import uvloop

from benchmarks.workload import read_slice

SCRIPT = Path(__file__).with_name("slices.lua")
GRACE_S = 60


class Report(NamedTuple):
    """What a generator saw. `sent`: requests sent of each slice; `refused`: answers that were no 2xx.

    `began_s`: when the first request left, on the clock of `time.perf_counter`; wrk does not tell.
    """

    requests: int
    seconds: float
    refused: int
    broken: int
    used_up: int
    sent: list[int]
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    cpu_s: float
    generator: str
    began_s: float = 0.0

    @property
    def good(self) -> int:
        return self.requests - self.refused

    @property
    def rate(self) -> float:
        return self.good / self.seconds


def name() -> str:
    return "wrk" if shutil.which("wrk") else "built-in"


def run(
    host: str,
    port: int,
    slices: Path,
    *,
    threads: int,
    connections: int,
    seconds: float,
    cycle: bool = False,
    delay_ms: int = 0,
) -> Report:
    """Send for whole `seconds`, `connections` in all; `delay_ms` is waited by a connection after each answer.

    wrk can't end early: when `used_up` is not 0 its rate is too low.
    """
    if name() != "wrk":
        options = {"threads": threads, "connections": connections, "delay_ms": delay_ms}
        return run_built_in(host, port, slices, seconds=seconds, cycle=cycle, **options)
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s"]
    command += ["-s", str(SCRIPT), f"http://{host}:{port}/", "--"]
    return _run("wrk", [*command, str(slices), "cycle" if cycle else "once", str(delay_ms)])


def run_built_in(
    host: str,
    port: int,
    slices: Path,
    *,
    threads: int,
    connections: int,
    seconds: float,
    cycle: bool = False,
    delay_ms: int = 0,
    rate: float = 0,
) -> Report:
    """The same with our own generator, which ends early when everything is sent.

    `rate`: requests fall due so many a second, whether those before are answered or not (open loop). One that
    finds no free connection leaves late, and its wait counts from when it was due.
    """
    command = [sys.executable, "-m", "benchmarks.generator", "--host", host, "--port", str(port)]
    command += ["--slices", str(slices), "--threads", str(threads), "--connections", str(connections)]
    command += ["--seconds", str(seconds), "--delay-ms", str(delay_ms), *(["--cycle"] if cycle else [])]
    command += ["--rate", str(rate)]
    return _run("built-in", command)


def _run(generator: str, command: list[str]) -> Report:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    lines = [line for line in said.splitlines() if line.startswith("REPORT ")]
    if process.returncode != 0 or not lines:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}:\n{said}")
    report = json.loads(lines[-1].removeprefix("REPORT "))
    return Report(**report, cpu_s=usage.ru_utime + usage.ru_stime, generator=generator)


class _Slice:
    def __init__(self, path: Path, cycle: bool) -> None:
        self._requests = list(read_slice(path))
        self._cycle = cycle
        self.sent = 0

    @property
    def used_up(self) -> bool:
        return not self._cycle and self.sent >= len(self._requests)

    def next(self) -> bytes | None:
        if self.used_up:
            return None
        self.sent += 1
        return self._requests[(self.sent - 1) % len(self._requests)]


class _Totals:
    def __init__(self, rate: float) -> None:
        self._pause_s = 1 / rate if rate else 0.0
        self._due_s = time.perf_counter()
        self.latencies_s: deque[float] = deque()
        self.refused = 0
        self.broken = 0
        self.stopping = False

    def due(self) -> float:
        """When the next request is to leave, on the clock of `time.perf_counter`."""
        if not self._pause_s:
            return time.perf_counter()
        self._due_s += self._pause_s
        return self._due_s


class _Client(asyncio.Protocol):
    """One connection: the next request leaves when the answer to the one before is read whole."""

    def __init__(self, source: _Slice, totals: _Totals, delay_s: float) -> None:
        self._source, self._totals, self._delay_s = source, totals, delay_s
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._began = 0.0
        self._transport: asyncio.Transport | None = None
        self.finished: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self._next()

    def _next(self) -> None:
        request = None if self._totals.stopping else self._source.next()
        if request is None:
            self._end()
            return
        self._began = self._totals.due()
        wait_s = self._began - time.perf_counter()
        if wait_s > 0:
            self._loop.call_later(wait_s, self._send, request)
        else:
            self._send(request)

    def _send(self, request: bytes) -> None:
        assert self._transport is not None
        if self._totals.stopping:
            self._end()
        else:
            self._transport.write(request)

    def _end(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) < head_end + 4 + length:
            return
        self._totals.latencies_s.append(time.perf_counter() - self._began)
        self._totals.refused += head[9:10] != b"2"
        self._buffer = b""
        if self._delay_s:
            self._loop.call_later(self._delay_s, self._next)
        else:
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._totals.broken += exc is not None
        if not self.finished.done():
            self.finished.set_result(None)


async def _generate(options: argparse.Namespace) -> None:
    sources = [_Slice(Path(f"{options.slices}.{number}"), options.cycle) for number in range(options.threads)]
    totals = _Totals(options.rate)
    loop = asyncio.get_running_loop()
    loop.call_later(options.seconds, setattr, totals, "stopping", True)
    began = time.perf_counter()
    clients = []
    for number in range(options.connections):
        source = sources[number % len(sources)]
        _, client = await loop.create_connection(
            lambda source=source: _Client(source, totals, options.delay_ms / 1000),  # type: ignore[misc]
            options.host,
            options.port,
        )
        clients.append(client)
    await asyncio.wait([client.finished for client in clients], timeout=options.seconds + GRACE_S)
    seconds = time.perf_counter() - began
    ordered = sorted(totals.latencies_s) or [0.0]

    def at(part: float) -> float:
        return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)] * 1000

    report = {
        "requests": len(totals.latencies_s),
        "seconds": seconds,
        "refused": totals.refused,
        "broken": totals.broken,
        "used_up": sum(source.used_up for source in sources),
        "sent": [source.sent for source in sources],
        "p50_ms": at(0.50),
        "p95_ms": at(0.95),
        "p99_ms": at(0.99),
        "max_ms": at(1.0),
        "began_s": began,
    }
    print("REPORT", json.dumps(report))


def main() -> None:
    parser = argparse.ArgumentParser(description="The built-in load generator; benchmarks.load starts it.")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slices", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--delay-ms", type=int, default=0)
    parser.add_argument(
        "--rate", type=float, default=0, help="requests a second, 0 for as many as are answered"
    )
    parser.add_argument("--cycle", action="store_true")
    uvloop.run(_generate(parser.parse_args()))


if __name__ == "__main__":
    main()
