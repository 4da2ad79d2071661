"""The WebSocket streams over a real port: what is told, from where on, and that slow readers harm nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bcdb.http import streams
from bcdb.model import limits
from tests.http.world import World
from tests.support.transactions import Signed, alice, create, transfer

TRANSACTIONS = "/api/v1/streams/valid_transactions"
BLOCKS = "/api/v1/streams/valid_blocks"


@contextlib.asynccontextmanager
async def listening(port: int, path: str) -> AsyncIterator[ClientConnection]:
    async with connect(f"ws://127.0.0.1:{port}{path}", compression=None) as connection:
        yield connection


async def heard(connection: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(connection.recv(), 10))


def event(signed: Signed, height: int, asset: Signed | None = None) -> dict[str, Any]:
    return {
        "height": height,
        "asset_id": (asset or signed).tx["id"],
        "transaction_id": signed.tx["id"],
    }


async def wait_readers(world: World, count: int) -> None:
    while world.services.feed.readers != count:
        await asyncio.sleep(0.005)


async def test_both_ports_tell_transactions_and_blocks(world: World) -> None:
    async with world.serving() as ports:
        for port in ports:
            async with listening(port, TRANSACTIONS) as one, listening(port, BLOCKS) as other:
                await wait_readers(world, 2)
                before = world.services.link.head.height
                made = create(asset={"port": port})
                moved = transfer([(made, 0)], [([alice.public_key], 1)])
                await world.commit(made, moved)
                assert await heard(one) == event(made, before + 1)
                assert await heard(one) == event(moved, before + 2, made)
                block = await heard(other)
                stored = (await world.get(f"/api/v1/blocks/{before + 1}")).json()
                assert block == {
                    "height": before + 1,
                    "hash": stored["hash"],
                    "time": stored["time"],
                    "transaction_ids": [made.tx["id"]],
                }
                await one.send("a message means nothing")
                await one.ping()
            await wait_readers(world, 0)


async def test_a_reader_resumes_at_a_height(world: World) -> None:
    made = [create(asset={"n": n}) for n in range(5)]
    await world.commit(*made)
    async with world.serving() as (port, _):
        for start, first in ((0, 1), (1, 1), (3, 3), (5, 5)):
            async with listening(port, f"{TRANSACTIONS}?from_height={start}") as connection:
                for height in range(first, 6):
                    assert await heard(connection) == event(made[height - 1], height)
        async with listening(port, f"{BLOCKS}?from_height=7") as connection:
            await world.commit(create(asset={"n": 5}), create(asset={"n": 6}))
            assert (await heard(connection))["height"] == 7


async def test_only_the_exact_paths_exist(world: World) -> None:
    async with world.serving() as ports:
        for port in ports:
            for path in (TRANSACTIONS + "/", "/api/v1/streams/", "/", "/api/v1/transactions"):
                with pytest.raises(InvalidStatus) as caught:
                    await connect(f"ws://127.0.0.1:{port}{path}")
                assert caught.value.response.status_code == 404
            for query in ("from_height=-1", "from_height=x", "from_height=", "from_height=1e9"):
                with pytest.raises(InvalidStatus) as caught:
                    await connect(f"ws://127.0.0.1:{port}{TRANSACTIONS}?{query}")
                assert caught.value.response.status_code == 400
                assert list(json.loads(caught.value.response.body or b"")["message"]) == ["from_height"]


async def test_an_ordinary_request_is_told_to_come_over_websocket(world: World) -> None:
    for path in (TRANSACTIONS, BLOCKS):
        reply = await world.get(path)
        assert reply.status == 400
        assert reply.headers["content-type"].startswith("text/plain")
        assert b"WebSocket" in reply.body
        assert (await world.request("POST", path)).status == 405
    world.services.stream_ports = frozenset({world.settings.port})
    assert (await world.get(TRANSACTIONS)).status == 400
    for path in ("/", "/api/v1", "/api/v1/validators", "/health/ready", "/openapi.json"):
        reply = await world.get(path)
        assert (reply.status, reply.headers["content-type"]) == (404, "text/html; charset=utf-8")
    made = create(asset={"n": "posted to the port of the streams"})
    assert (await world.request("POST", "/api/v1/transactions", made.raw)).status == 404
    assert (await world.get(f"/api/v1/transactions/{made.tx['id']}")).status == 404


async def test_readers_that_break_off_or_do_not_read_stop_nobody(world: World) -> None:
    async with world.serving() as (port, _):
        async with listening(port, TRANSACTIONS) as good:
            rude = [await connect(f"ws://127.0.0.1:{port}{TRANSACTIONS}") for _ in range(3)]
            mute = await connect(f"ws://127.0.0.1:{port}{TRANSACTIONS}")
            mute.transport.pause_reading()
            await wait_readers(world, 5)
            for connection in rude:
                raw = connection.transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                connection.transport.abort()
            made = [create(asset={"n": n}) for n in range(20)]
            await world.commit(*made)
            for height, signed in enumerate(made, 1):
                assert await heard(good) == event(signed, height)
            mute.transport.abort()
        await wait_readers(world, 0)


async def test_a_reader_that_falls_behind_is_cut_off_and_told_where_to_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.services.feed.backlog_blocks_max = 5
    release = asyncio.Event()
    original = streams.Feed.events

    async def slowly(self: Any, kind: Any, height: int) -> list[str]:
        if height > 2:
            await release.wait()
        return await original(self, kind, height)

    monkeypatch.setattr(streams.Feed, "events", slowly)
    async with world.serving() as (port, _), listening(port, TRANSACTIONS) as connection:
        await wait_readers(world, 1)
        await world.commit(*[create(asset={"n": n}) for n in range(12)])
        release.set()
        heights = []
        with contextlib.suppress(ConnectionClosed):
            while True:
                heights.append((await heard(connection))["height"])
        assert connection.close_code == 1013
        assert connection.close_reason == f"too slow: go on with ?from_height={heights[-1] + 1}"
        async with listening(port, f"{TRANSACTIONS}?from_height={heights[-1] + 1}") as again:
            for height in range(heights[-1] + 1, 13):
                assert (await heard(again))["height"] == height


async def test_a_reader_that_takes_nothing_is_dropped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_SEND_S_MAX", 0.2)
    flood = ["x" * 100_000] * 400

    async def events(*_: Any) -> list[str]:
        return flood

    monkeypatch.setattr(streams.Feed, "events", events)
    async with world.serving() as (port, _):
        mute = await connect(f"ws://127.0.0.1:{port}{TRANSACTIONS}")
        mute.transport.pause_reading()
        await wait_readers(world, 1)
        await world.commit(create())
        await wait_readers(world, 0)
        mute.transport.abort()


async def test_there_are_only_so_many_readers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAMS_PER_WORKER_MAX", 1)
    async with world.serving() as (port, _), listening(port, TRANSACTIONS):
        await wait_readers(world, 1)
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"ws://127.0.0.1:{port}{TRANSACTIONS}")
        assert caught.value.response.status_code == 503


async def test_readers_are_told_when_the_node_goes(world: World) -> None:
    async with world.serving() as (port, _), listening(port, BLOCKS) as connection:
        await wait_readers(world, 1)
        world.services.link.close()
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(connection.recv(), 10)
        assert connection.close_code == 1001
