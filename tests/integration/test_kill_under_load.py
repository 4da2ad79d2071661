"""`kill -9` of a whole node while clients post, again and again on the same folder.

Whatever was answered 202 must end committed, planted conflicts end refused or rejected with their reason, and
the ledger must be sound each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

import pytest

from tests.support.fates import Fates
from tests.support.http1 import Connection
from tests.support.server import Server
from tests.support.traffic import Record, Traffic

KILLS, KILLS_LONG = 6, 200
FSCKS = 10
"""How many times in a run the killed folder is examined before it is started again."""
LOAD_S_MIN, LOAD_S_MAX = 0.3, 1.6


async def load_and_kill(server: Server, record: Record, *, seed: int, seconds: float) -> None:
    traffic = Traffic(server.host, server.port, record, seed=seed)
    running = asyncio.create_task(traffic.run(LOAD_S_MAX * 20))
    await asyncio.sleep(seconds)
    await asyncio.to_thread(server.kill)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def check(server: Server, record: Record, *, since: tuple[int, int, int]) -> int:
    """Check what was recorded after `since` (accepted, unanswered, pairs). Returns the height."""
    async with Connection(server.host, server.port) as connection:
        fates = Fates(connection)
        await fates.check_accepted(record, list(record.accepted)[since[0] :])
        await fates.check_unanswered(record, list(record.unanswered)[since[1] :])
        for pair in record.pairs[since[2] :]:
            await fates.check_pair(pair)
        return await fates.check_heights()


async def test_nothing_accepted_is_lost(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills = KILLS_LONG if request.config.getoption("--long") else KILLS
    moments = random.Random(20)
    record = Record()
    server = Server(tmp_path / "node")
    height = 0
    try:
        await asyncio.to_thread(server.start)
        for round_number in range(kills):
            since = (len(record.accepted), len(record.unanswered), len(record.pairs))
            seconds = moments.uniform(LOAD_S_MIN, LOAD_S_MAX)
            await load_and_kill(server, record, seed=round_number, seconds=seconds)
            assert not record.surprises, record.surprises[:3]
            if round_number % max(kills // FSCKS, 1) == 0:
                done = await asyncio.to_thread(server.fsck)
                assert done.returncode == 0, f"round {round_number}: {done.stdout}{done.stderr}"
            await asyncio.to_thread(server.start)
            seen = await check(server, record, since=since)
            assert seen >= height, "the chain became shorter"
            height = seen
        await check(server, record, since=(0, 0, 0))
        assert await asyncio.to_thread(server.stop) == 0, server.tail()
        done = await asyncio.to_thread(server.fsck)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    finally:
        await asyncio.to_thread(server.kill)
    told = [answer for pair in record.pairs for answer in pair.answers if answer is not None]
    assert len(record.accepted) > kills, "there was hardly any load"
    assert sum(answer.status == 400 for answer in told) > 0, "no planted conflict was met"
