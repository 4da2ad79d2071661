"""MongoDB hangs, dies and comes back beside a running node: questions say so, and nothing else feels it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from bcdb.model import limits
from tests.http.world import QUERY, TRANSACTIONS, World
from tests.support import mongod
from tests.support.transactions import alice, create

FAST_S = 1.0
"""Far above what a route needs that has no business with the store, far below any wait for it."""
BACK_S_MAX = 20.0
MARGIN_S = 3.0


async def others(world: World, number: int) -> None:
    """Writes and reads of the ledger go on, and fast."""
    made = create(asset={"number": number})
    started = time.monotonic()
    await world.commit(made)
    for path in (
        f"{TRANSACTIONS}/{made.tx['id']}",
        f"/api/v1/outputs?public_key={alice.public_key}",
        "/health/ready",
        "/metrics",
    ):
        assert (await world.get(path)).status == 200, path
    assert time.monotonic() - started < FAST_S


async def all_unavailable(world: World) -> None:
    started = time.monotonic()
    for reply in await asyncio.gather(
        world.ask("assets", {}),
        world.ask("assets/aggregate", {"pipeline": []}),
        world.get("/api/v1/assets", search="a"),
        world.get(QUERY),
    ):
        assert (reply.status, reply.headers["retry-after"]) == (503, "1"), reply
        assert "mongodb://" not in reply.json()["message"]
    assert time.monotonic() - started < limits.SEARCH_WAIT_S_MAX + limits.QUESTION_S_MAX + MARGIN_S
    assert (await world.get("/health/ready")).json()["projected_height"] is None


async def comes_back(world: World, count: int) -> None:
    """All that was committed meanwhile is found, by itself."""
    deadline = time.monotonic() + BACK_S_MAX
    while True:
        reply = await world.ask("assets", {"sort": {"height": 1}})
        if reply.status == 200 and reply.json()["height"] == count:
            break
        assert time.monotonic() < deadline, reply
        await asyncio.sleep(0.1)
    assert [item["data"]["number"] for item in reply.json()["documents"]] == list(range(count))


async def test_mongodb_hangs_dies_and_comes_back(tmp_path: Path) -> None:
    with mongod.own() as server, server.database() as name:
        async with World(tmp_path / "node", mongo_uri=server.uri, mongo_database=name) as world:
            await others(world, 0)
            await comes_back(world, 1)
            os.kill(server.pid, signal.SIGSTOP)
            try:
                asking = asyncio.create_task(all_unavailable(world))
                for number in (1, 2, 3):
                    await others(world, number)
                await asking
            finally:
                os.kill(server.pid, signal.SIGCONT)
            await comes_back(world, 4)
            server.kill()
            asking = asyncio.create_task(all_unavailable(world))
            await others(world, 4)
            await asking
            server.start()
            await comes_back(world, 5)
