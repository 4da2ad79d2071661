"""No answer before the flush that covers it: seen in the node's trace, from the client, and by a power cut.

The power cut is the harsher half: the write-ahead files are cut to what had surely reached the disk, which is
what they held when the last finished flush began.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import tracefile
from tests.support.fates import Fates
from tests.support.http1 import Connection
from tests.support.server import Server
from tests.support.traffic import Record, Traffic

LOAD_S = 2.0
LEDGER = "ledger"
LOAD_S_MAX = 60.0
CUTS = ("flush-before:60", "accept-after-write:50", "commit-after-write:40")
"""Crash points at which something is written and not yet synced, and how often each is passed before."""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace.ndjson"


@pytest.fixture
def traced(tmp_path: Path, trace: Path) -> Iterator[Server]:
    with Server(tmp_path / "node", environment={"BCDB_TRACE_FILE": str(trace)}) as server:
        yield server


class WatchedRecord(Record):
    """A record that also notes how long the trace was when each 202 was read."""

    def __init__(self, trace: Path) -> None:
        super().__init__()
        self._trace = trace
        self.trace_bytes: dict[str, int] = {}

    def heard(self, identity: str) -> None:
        self.trace_bytes[identity] = self._trace.stat().st_size


async def drive(server: Server, record: Record, seconds: float, *, seed: int = 1) -> None:
    await Traffic(server.host, server.port, record, seed=seed).run(seconds)
    assert not record.surprises, record.surprises[:3]


async def test_no_answer_precedes_its_flush(traced: Server, trace: Path) -> None:
    record = WatchedRecord(trace)
    await drive(traced, record, LOAD_S)
    events = tracefile.read(trace)
    durable = tracefile.durable_at(events)
    answered = [event for event in events if event.kind == "answered"]
    assert len(answered) > 50, "there was hardly any load"
    for event in answered:
        identity = event.fields["id"]
        assert identity in durable, f"{identity} was answered and never flushed"
        assert durable[identity] < event.end, f"{identity} was answered before its flush"
    assert len(record.trace_bytes) > 50
    for identity, trace_bytes in record.trace_bytes.items():
        assert durable.get(identity, trace_bytes + 1) <= trace_bytes, (
            f"the client read the 202 of {identity} while the node had not flushed it"
        )


def cut_power(server: Server, trace: Path) -> tuple[int, int]:
    """Kill all, then take from the write-ahead files what was not surely synced.

    Returns the bytes lost and the last height that was published before.
    """
    server.kill()
    events = tracefile.read(trace)
    _, sizes = tracefile.last_finished_flush(events)
    heights = [event.fields["height"] for event in events if event.kind == "published"]
    assert heights == sorted(heights)
    lost = 0
    for file in (server.home / LEDGER).glob("*.log"):
        kept = min(sizes.get(file.name, 0), file.stat().st_size)
        lost += file.stat().st_size - kept
        os.truncate(file, kept)
    trace.unlink()
    return lost, heights[-1]


async def test_a_power_cut_loses_nothing_that_was_answered(tmp_path: Path, trace: Path) -> None:
    """The node dies when something is written and not synced; then that much is taken from the disk."""
    record = Record()
    home = tmp_path / "node"
    for seed, point in enumerate(CUTS):
        environment = {"BCDB_TRACE_FILE": str(trace), "BCDB_CRASH_AT": point}
        checked = len(record.accepted), len(record.pairs)
        with Server(home, environment=environment) as dying:
            await drive(dying, record, LOAD_S_MAX, seed=seed)
            lost, published = await asyncio.to_thread(cut_power, dying, trace)
        assert lost > 0, f"the cut at {point} took nothing away, so it proved nothing"
        with Server(home) as server:
            async with Connection(server.host, server.port) as connection:
                fates = Fates(connection)
                await fates.check_accepted(record, list(record.accepted)[checked[0] :])
                for pair in record.pairs[checked[1] :]:
                    await fates.check_pair(pair)
                assert await fates.check_heights() >= published, "a height was published before its flush"
            assert await asyncio.to_thread(server.stop) == 0, server.tail()
            done = await asyncio.to_thread(server.fsck)
            assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert len(record.accepted) > 50, "there was hardly any load"
