"""`min_height` on reads and writes of the ledger: what waits for a block, for how long, how many, and what it
costs those who wait and those who have hung up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bcdb.http import batch, reach, submit
from bcdb.model import limits
from tests.http.world import TRANSACTIONS, Reply, World, lines_of
from tests.support.transactions import Signed, alice, bob, create, transfer

BATCH = TRANSACTIONS + "/batch"
BLOCKS = "/api/v1/blocks"
READS = (
    f"{TRANSACTIONS}/{{id}}",
    f"{TRANSACTIONS}/{{id}}/",
    f"{TRANSACTIONS}/{{id}}/status",
    f"{TRANSACTIONS}?asset_id={{id}}",
    f"{BLOCKS}?transaction_id={{id}}",
    f"{BLOCKS}/latest",
    f"{BLOCKS}/{{block}}",
)
WRITES = (TRANSACTIONS, BATCH)


def with_height(path: str, height: object) -> str:
    return f"{path}{'&' if '?' in path else '?'}min_height={height}"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def write(world: World, path: str, signed: Signed, height: object) -> Reply:
    return await world.request("POST", with_height(path, height), signed.raw)


def was_taken(reply: Reply) -> bool:
    return reply.status == 202 or (reply.status == 200 and lines_of(reply)[0]["status"] == "pending")


class TestReads:
    async def test_a_height_to_come_is_waited_for(self, world: World) -> None:
        await world.commit(create(asset={"n": 0}))
        for number, template in enumerate(READS):
            coming = create(asset={"for": template, "n": number})
            height = world.ledger.head.height
            path = template.format(id=coming.tx["id"], block=height + 1)
            asking = asyncio.create_task(world.get(with_height(path, height + 1)))
            await asyncio.sleep(0.05)
            assert not asking.done(), path
            await world.commit(coming)
            reply = await asking
            assert (reply.status, reply.headers["bcdb-height"]) == (200, str(height + 1)), path
            assert coming.tx["id"] in reply.body.decode() or reply.json() == [height + 1]

    async def test_one_that_does_not_come_is_told(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "SEARCH_WAIT_S_MAX", 0.02)
        signed = create()
        await world.commit(signed)
        for template in READS:
            reply = await world.get(with_height(template.format(id=signed.tx["id"], block=1), 9))
            assert (reply.status, reply.headers["retry-after"]) == (503, "1"), template
            assert reply.headers["bcdb-height"] == "1"
            assert reply.json() == {
                "message": "The ledger of this node is at height 1; `min_height` asks for 9, "
                "which did not come within 0.02 s",
                "status": 503,
            }

    async def test_it_is_checked(self, world: World) -> None:
        signed = create()
        await world.commit(signed)
        for template in READS:
            for value in ("x", "-1", "1.0", "", "9" * 19):
                reply = await world.get(with_height(template.format(id=signed.tx["id"], block=1), value))
                assert (reply.status, list(reply.json()["message"])) == (400, ["min_height"]), template

    async def test_pages_go_on_without_it(self, world: World) -> None:
        first = create()
        await world.commit(first, transfer([(first, 0)], [([bob.public_key], 1)]))
        reply = await world.get(TRANSACTIONS, asset_id=first.tx["id"], limit=1, min_height=2)
        assert reply.headers["bcdb-height"] == "2"
        assert "min_height" not in reply.next

    async def test_other_arguments_are_ignored_as_before(self, world: World) -> None:
        signed = create()
        await world.commit(signed)
        for path in (f"{TRANSACTIONS}/{signed.tx['id']}", f"{BLOCKS}/latest", f"{BLOCKS}/1"):
            assert (await world.get(path, colour="red")).status == 200

    async def test_what_stands_in_no_block_tells_no_height(self, world: World) -> None:
        signed = create()
        accepting = world.services.link.submit_nowait(signed.verified)
        reply = await world.get(f"{TRANSACTIONS}/{signed.tx['id']}/status")
        assert ("bcdb-height" in reply.headers) == (reply.json().get("status") == "committed")
        await accepting
        assert "bcdb-height" not in (await world.get(f"{TRANSACTIONS}/{'0' * 64}")).headers


class TestWrites:
    async def test_what_is_yet_to_come_can_be_spent(self, world: World) -> None:
        for path in WRITES:
            made = create(asset={"for": path})
            spending = transfer([(made, 0)], [([bob.public_key], 1)])
            height = world.ledger.head.height + 1
            asking = asyncio.create_task(write(world, path, spending, height))
            await until(lambda: world.services.waiting_writes == 1)
            await world.commit(made)
            assert was_taken(await asking)
            assert world.services.waiting_writes == 0
            await world.services.link.settled(spending.verified.id, 10)

    async def test_a_block_that_is_there_is_enough(self, world: World) -> None:
        await world.commit(create(asset={"n": "first"}))
        for path in WRITES:
            for height in (0, 1):
                reply = await write(world, path, create(asset={"for": path, "n": height}), height)
                assert was_taken(reply)

    async def test_commit_tells_the_height(self, world: World) -> None:
        await world.commit(create(asset={"n": 0}))
        signed = create(asset={"n": 1})
        reply = await world.request("POST", f"{TRANSACTIONS}?mode=commit&min_height=1", signed.raw)
        assert (reply.status, reply.headers["bcdb-height"]) == (202, "2")
        assert "bcdb-height" not in (await world.post(create(asset={"n": 2}))).headers

    async def test_one_that_does_not_come_is_told_and_nothing_is_stored(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "WRITE_WAIT_S_MAX", 0.05)
        await world.commit(create(asset={"n": "first"}))
        signed = create()
        for path in WRITES:
            started = time.monotonic()
            reply = await write(world, path, signed, 7)
            assert time.monotonic() - started < 2
            assert (reply.status, reply.headers["retry-after"], reply.headers["bcdb-height"]) == (
                503,
                "1",
                "1",
            )
            assert reply.json()["message"] == (
                "The ledger of this node is at height 1; `min_height` asks for 7, "
                "which did not come within 0.05 s"
            )
            assert world.services.waiting_writes == 0
        assert (await world.get(f"{TRANSACTIONS}/{signed.tx['id']}/status")).status == 404

    async def test_arguments_are_checked_in_order(self, world: World) -> None:
        raw = create().raw
        for path in WRITES:
            for value in ("x", "-1", "1.0", "", "9" * 19, "1&min_height=x"):
                reply = await world.request("POST", with_height(path, value), raw)
                assert (reply.status, list(reply.json()["message"])) == (400, ["min_height"]), path
        reply = await world.request("POST", TRANSACTIONS + "?min_height=x&mode=never", raw)
        assert list(reply.json()["message"]) == ["mode"]
        assert (await world.get(BATCH.removesuffix("/batch"), asset_id="0" * 64)).body == b"[]"

    async def test_nothing_of_the_body_is_read_before(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[str] = []

        def noting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def noted(*given: Any) -> Any:
                read.append(name)
                return real(*given)

            return noted

        for module, name in ((submit, "read_body"), (batch, "pieces")):
            monkeypatch.setattr(module, name, noting(name, getattr(module, name)))
        height = world.ledger.head.height
        asking = [
            asyncio.create_task(write(world, path, create(asset={"for": path}), height + 1))
            for path in WRITES
        ]
        await until(lambda: world.services.waiting_writes == 2)
        assert not read
        assert world.services.batches == 0
        await world.services.link.submit(create(asset={"n": "comes"}).verified)
        assert all(was_taken(reply) for reply in await asyncio.gather(*asking))
        assert sorted(read) == ["pieces", "read_body"]

    async def test_what_is_announced_wrongly_does_not_wait(self, world: World) -> None:
        for path in WRITES:
            for headers, status in (
                ({"content-length": str(2 * limits.BATCH_BYTES_MAX)}, 413),
                ({"content-encoding": "gzip"}, 415),
            ):
                reply = await world.request("POST", with_height(path, 9), [], headers)
                assert reply.status == status

    async def test_so_many_wait_and_no_more(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "WAITING_WRITES_MAX", 2)
        height = world.ledger.head.height + 1
        waiting = [
            asyncio.create_task(write(world, path, create(asset={"for": path}), height)) for path in WRITES
        ]
        await until(lambda: world.services.waiting_writes == 2)
        for path in WRITES:
            reply = await write(world, path, create(asset={"n": "late"}), height)
            assert (reply.status, reply.headers["retry-after"]) == (429, "1")
            assert "2 writes" in reply.json()["message"]
        # Those that need no place are not held up; the first of them brings the block.
        assert was_taken(await write(world, TRANSACTIONS, create(asset={"n": "there"}), height - 1))
        assert all(was_taken(reply) for reply in await asyncio.gather(*waiting))
        assert world.services.waiting_writes == 0

    async def test_a_client_that_hangs_up_gives_its_place_back(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "WRITE_WAIT_S_MAX", 60.0)
        monkeypatch.setattr(reach, "GONE_LOOK_S", 0.02)
        signed = create()
        async with world.serving() as (port, _):
            for path in WRITES:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                head = f"POST {with_height(path, 1)} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(signed.raw)}"
                writer.write(head.encode() + b"\r\n\r\n" + signed.raw)
                await until(lambda: world.services.waiting_writes == 1)
                writer.close()
                await until(lambda: world.services.waiting_writes == 0)
            await world.commit(create(asset={"n": "comes"}))
        assert (await world.get(f"{TRANSACTIONS}/{signed.tx['id']}/status")).status == 404

    async def test_one_that_hangs_up_unseen_has_its_place_no_longer_than_the_bound(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "WRITE_WAIT_S_MAX", 0.2)
        monkeypatch.setattr(reach, "GONE_LOOK_S", 60.0)
        async with world.serving() as (port, _):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"POST {TRANSACTIONS}?min_height=1 HTTP/1.1\r\nhost: x\r\n".encode())
            writer.write(b"content-length: 1000000\r\n\r\n" + b" " * 500_000)
            await until(lambda: world.services.waiting_writes == 1)
            writer.transport.abort()
            await until(lambda: world.services.waiting_writes == 0)

    async def test_issuers_are_checked_after_the_wait(self, tmp_path: Path) -> None:
        async with World(tmp_path / "node", write_keys=(alice.public_key,)) as world:
            for path in WRITES:
                foreign = create(bob, asset={"for": path})
                moved = transfer([(foreign, 0)], [([bob.public_key], 1)])
                height = world.ledger.head.height + 1
                asking = asyncio.create_task(write(world, path, moved, height))
                await until(lambda: world.services.waiting_writes == 1)
                await world.services.link.submit(foreign.verified)
                reply = await asking
                assert reply.status == 403 or lines_of(reply)[0]["error"]["name"] == "NotAllowed"
