"""`kill -9` of mongod, projector and node in turn while clients post, and a mongod that only hangs.

Writes and reads of the ledger must not notice, questions to the store must come back by themselves, and what
the store then holds must be what the ledger says, document by document.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bcdb.model import limits
from tests.support import transactions as make
from tests.support.fates import Fates
from tests.support.http1 import Connection
from tests.support.server import Server
from tests.support.traffic import Record, Traffic

TURNS = ("mongod", "projector", "mongod", "projector", "both")
ROUNDS = 2
QUIET_S = 0.7
"""Between two kills: the time in which something new is under way in the store."""
LOAD_S_MAX = 120.0
BACK_S_MAX = 60.0
SLOW_S = 2.0
"""An answer of the ledger that takes so long has waited for the store."""


@contextlib.asynccontextmanager
async def load(server: Server, record: Record, *, seed: int) -> AsyncIterator[None]:
    """Clients that post all the time."""
    running = asyncio.create_task(Traffic(server.host, server.port, record, seed=seed).run(LOAD_S_MAX))
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def kill(server: Server, *names: str) -> None:
    processes = await asyncio.to_thread(server.processes)
    for name in names:
        with contextlib.suppress(ProcessLookupError):
            os.kill(processes[name], signal.SIGKILL)


async def more_is_accepted(record: Record) -> None:
    """Return once clients were told of something new that it is accepted."""
    before = len(record.accepted)
    async with asyncio.timeout(BACK_S_MAX):
        while len(record.accepted) == before:
            await asyncio.sleep(0.02)


async def caught_up(server: Server) -> dict[str, Any]:
    """The status of the store once it answers and lacks nothing."""
    last: Any = None
    deadline = time.monotonic() + BACK_S_MAX
    while time.monotonic() < deadline:
        status, body = await asyncio.to_thread(server.request, "GET", "/api/v1/query")
        last = body
        if status == 200:
            last = found = json.loads(body)
            if not found["lag_blocks"] and found["building"] is None:
                return dict(found)
        await asyncio.sleep(0.1)
    raise AssertionError(f"the store did not come back within {BACK_S_MAX} s: {last!r}\n{server.tail()}")


async def check_store(server: Server) -> None:
    done = await asyncio.to_thread(server.fsck, "--store")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert "is what its ledger says" in done.stdout


def ask(server: Server, collection: str, **question: Any) -> dict[str, Any]:
    status, body = server.request("POST", f"/api/v1/query/{collection}", json.dumps(question).encode())
    assert status == 200, (status, body)
    found: dict[str, Any] = json.loads(body)
    return found


async def test_kills_under_load_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    record = Record()
    server = Server(tmp_path / "node", environment={"BCDB_MONGO": "true"})
    try:
        for round_number in range(ROUNDS):
            await asyncio.to_thread(server.start)
            async with load(server, record, seed=round_number):
                for victim in TURNS:
                    await asyncio.sleep(QUIET_S)
                    names = ("projector", "mongod") if victim == "both" else (victim,)
                    await kill(server, *names)
                    await more_is_accepted(record)
                await asyncio.sleep(QUIET_S)
                # And everything at once; the clients end with the node.
                await asyncio.to_thread(server.kill)
            assert not record.surprises, record.surprises[:3]
            await check_store(server)
        await asyncio.to_thread(server.start)
        async with load(server, record, seed=ROUNDS):
            await asyncio.sleep(QUIET_S)
            await kill(server, "node")
            assert await asyncio.to_thread(server.wait_end) == 1
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        found = await caught_up(server)
        async with Connection(server.host, server.port) as connection:
            await Fates(connection).check_accepted(record, record.accepted)
        last = list(record.accepted)[-1]
        assert [each["id"] for each in ask(server, "transactions", filter={"id": last})["documents"]] == [
            last
        ]
        assert found["counts"]["transactions"] == found["counts"]["metadata"] >= len(record.accepted)
        assert await asyncio.to_thread(server.stop) == 0, server.tail()
        await check_store(server)
        done = await asyncio.to_thread(server.fsck)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    finally:
        await asyncio.to_thread(server.kill)
    assert "Traceback" not in server.log.read_text()
    assert len(record.accepted) > 100, "there was hardly any load"


async def test_a_mongod_that_hangs_holds_up_nothing_else(tmp_path: Path) -> None:
    def timed(server: Server, method: str, path: str, body: bytes | None = None) -> tuple[int, float]:
        start = time.monotonic()
        status, _ = server.request(method, path, body)
        return status, time.monotonic() - start

    def run() -> None:
        with Server(tmp_path / "node", workers=1, flags=["--mongo"]) as server:
            first = make.create(asset={"written": "early"})
            assert server.post(first.raw)[0] == 202
            assert server.get("/api/v1/assets?search=early")[0]["id"] == first.tx["id"]
            mongod = server.processes()["mongod"]
            os.kill(mongod, signal.SIGSTOP)
            try:
                second = make.create(asset={"written": "late"})
                for method, path, body in (
                    ("POST", "/api/v1/transactions?mode=commit", second.raw),
                    ("GET", f"/api/v1/transactions/{first.tx['id']}", None),
                    ("GET", f"/api/v1/assets/{first.tx['id']}", None),
                    ("GET", "/health/ready", None),
                    ("GET", "/metrics", None),
                ):
                    status, seconds = timed(server, method, path, body)
                    assert status in (200, 202), (path, status)
                    assert seconds < SLOW_S, (path, seconds)
                status, seconds = timed(server, "POST", "/api/v1/query/assets", b"{}")
                assert status == 503
                assert seconds < limits.SEARCH_WAIT_S_MAX + limits.QUESTION_S_MAX + SLOW_S
                assert timed(server, "GET", f"/api/v1/transactions/{first.tx['id']}")[1] < SLOW_S
            finally:
                os.kill(mongod, signal.SIGCONT)
            found = asyncio.run(caught_up(server))
            assert found["counts"]["assets"] == 2
            assert server.get("/api/v1/assets?search=late")[0]["id"] == second.tx["id"]
            assert server.stop() == 0
            done = server.fsck("--mongo", "--store")
            assert done.returncode == 0, f"{done.stdout}{done.stderr}"

    await asyncio.to_thread(run)
