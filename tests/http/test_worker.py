"""The process of a worker: it serves; it ends when told, with the supervisor or node, when it stalls."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from typing import Self

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from bcdb.http.worker import STALLED_EXIT
from tests.http.world import World
from tests.support.http1 import Connection
from tests.support.transactions import create

STALL = """
import asyncio, time
from bcdb.http import worker

worker.STALLED_S = 0.3

async def main():
    watching = asyncio.create_task(worker._watch_loop())
    await asyncio.sleep(1.0)
    print("a loop that turns is left alone", flush=True)
    time.sleep(30)

asyncio.run(main())
"""


def test_a_worker_whose_loop_stands_still_ends() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", STALL], capture_output=True, text=True, timeout=25, check=False
    )
    assert ended.returncode == STALLED_EXIT
    assert ended.stdout == "a loop that turns is left alone\n"
    assert "time.sleep" in ended.stderr or "in main" in ended.stderr


class Worker:
    """A worker process of its own, beside the node in the process of the test."""

    def __init__(self, world: World) -> None:
        self.sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.port = self.sockets[0].getsockname()[1]
        self.stream_port = self.sockets[1].getsockname()[1]
        self.lifeline, self.lifeline_end = os.pipe()
        self._settings_path = world.settings.home / "settings.json"
        world.settings.dump(self._settings_path)
        self.process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        fds = [listener.fileno() for listener in self.sockets]
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bcdb.http.worker", str(self._settings_path), "--index", "7"),
            *("--fd", str(fds[0]), "--stream-fd", str(fds[1]), "--lifeline", str(self.lifeline)),
            pass_fds=(*fds, self.lifeline),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        for listener in self.sockets:
            listener.close()
        os.close(self.lifeline)
        if self.lifeline_end >= 0:
            os.close(self.lifeline_end)

    def cut_lifeline(self) -> None:
        os.close(self.lifeline_end)
        self.lifeline_end = -1

    async def ended(self) -> int:
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), 20)


async def test_a_worker_serves_and_stops_when_told(world: World) -> None:
    signed = create()
    async with Worker(world) as worker, Connection("127.0.0.1", worker.port) as connection:
        answer = await connection.post("/api/v1/transactions?mode=commit", signed.raw)
        assert (answer.status, answer.body) == (202, signed.raw)
        assert (await connection.get(f"/api/v1/transactions/{signed.tx['id']}")).body == signed.raw
        address = f"ws://127.0.0.1:{worker.stream_port}/api/v1/streams/valid_blocks?from_height=1"
        async with connect(address) as stream:
            await asyncio.wait_for(stream.recv(), 10)
            assert worker.process is not None
            worker.process.send_signal(signal.SIGTERM)
            assert await worker.ended() == 0
            with pytest.raises(ConnectionClosed):
                await stream.recv()


async def test_a_worker_ends_with_the_supervisor(world: World) -> None:
    async with Worker(world) as worker, Connection("127.0.0.1", worker.port) as connection:
        assert (await connection.get("/health/ready")).status == 200
        worker.cut_lifeline()
        assert await worker.ended() == 0


async def test_a_worker_ends_with_the_node(world: World) -> None:
    async with Worker(world) as worker, Connection("127.0.0.1", worker.port) as connection:
        assert (await connection.get("/health/ready")).status == 200
        await world.server.stop()
        assert await worker.ended() == 1
