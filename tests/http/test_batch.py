"""Many transactions in one request: a line of answer for each, in order, and none before it is durable."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bcdb.http import batch
from bcdb.model import limits
from tests.http.world import TRANSACTIONS, Reply, World, lines_of
from tests.support.transactions import Signed, alice, bob, carol, create, transfer

BATCH = TRANSACTIONS + "/batch"


async def post(world: World, *items: Signed | bytes, end: bytes = b"\n") -> Reply:
    body = b"\n".join(item if isinstance(item, bytes) else item.raw for item in items) + end
    return await world.request("POST", BATCH, body, {"content-type": "application/x-ndjson"})


async def test_each_item_has_its_line_in_order(world: World) -> None:
    spent = create(asset={"n": "spent"})
    await world.commit(spent, transfer([(spent, 0)], [([bob.public_key], 1)]))
    fresh = [create(asset={"n": n}) for n in range(5)]
    conflict = transfer([(spent, 0)], [([carol.public_key], 1)])
    reply = await post(world, *fresh[:3], b"{", spent, conflict, *fresh[3:], fresh[0])
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/x-ndjson"
    lines = lines_of(reply)
    accepted = [{"id": signed.tx["id"], "status": "pending"} for signed in fresh]
    assert lines[:3] == accepted[:3]
    assert lines[3]["status"] == "refused"
    assert lines[3]["error"]["name"] == "InvalidJson"
    assert "id" not in lines[3]
    assert lines[4].pop("time")
    assert lines[4] == {"id": spent.tx["id"], "status": "committed", "height": 1, "position": 0}
    assert lines[5]["id"] == conflict.tx["id"]
    assert lines[5]["error"]["name"] == "DoubleSpend"
    assert lines[6:8] == accepted[3:]
    assert lines[8]["id"] == fresh[0].tx["id"]
    assert lines[8]["status"] in ("pending", "committed")
    assert len(lines) == 9
    assert list(lines.pop(3)) == ["status", "error"]
    assert {tuple(line)[:2] for line in lines} == {("id", "status")}


async def test_what_is_sent_again_answers_its_status(world: World) -> None:
    items = [create(asset={"n": n}) for n in range(20)]
    await post(world, *items)
    for signed in items:
        await world.services.link.settled(signed.verified.id, 10)
    lines = lines_of(await post(world, *items, end=b""))
    assert [line["id"] for line in lines] == [signed.tx["id"] for signed in items]
    assert {line["status"] for line in lines} == {"committed"}


async def test_no_line_before_it_is_durable(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gates: list[asyncio.Future[None]] = []

    def submit_nowait(*_: Any) -> asyncio.Future[None]:
        gates.append(asyncio.get_running_loop().create_future())
        return gates[-1]

    monkeypatch.setattr(type(world.services.link), "submit_nowait", submit_nowait)
    answering = asyncio.create_task(post(world, create(asset={"n": 1}), create(asset={"n": 2})))
    while len(gates) < 2:
        await asyncio.sleep(0)
    gates[1].set_result(None)
    await asyncio.sleep(0.05)
    assert not answering.done()
    gates[0].set_result(None)
    assert len(lines_of(await answering)) == 2


async def test_lines_may_come_in_any_pieces(world: World) -> None:
    items = [create(asset={"n": n}) for n in range(4)]
    body = b"\r\n \n".join(signed.raw for signed in items)
    for size in (1, 7, 1000, len(body)):
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        reply = await world.request("POST", BATCH, pieces)
        assert [line["id"] for line in lines_of(reply)] == [signed.tx["id"] for signed in items]


async def test_a_batch_of_nothing_is_refused(world: World) -> None:
    for body in (b"", b"\n\n \r\n", b" "):
        reply = await world.request("POST", BATCH, [body])
        assert (reply.status, reply.json()["status"]) == (400, 400)


async def test_a_line_that_is_too_long_is_refused_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TRANSACTION_BYTES_MAX", 2000)
    good = [create(asset={"n": n}) for n in range(2)]
    for long in (b"x" * 2001, b"x" * 9000):
        body = good[0].raw + b"\n" + long + b"\n" + good[1].raw + b"\n" + long
        for size in (500, len(body)):
            pieces = [body[start : start + size] for start in range(0, len(body), size)]
            lines = lines_of(await world.request("POST", BATCH, pieces))
            assert [line["status"] for line in lines[::2]] != ["refused", "refused"]
            assert [line["error"]["name"] for line in lines[1::2]] == ["LimitExceeded"] * 2


async def test_bounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BATCH_ITEMS_MAX", 3)
    assert len(lines_of(await post(world, *[b"{}"] * 3))) == 3
    reply = await post(world, *[b"{}"] * 4)
    assert (reply.status, reply.json()["status"]) == (413, 413)
    monkeypatch.setattr(limits, "BATCH_BYTES_MAX", 100)
    assert (await post(world, b"x" * 101)).status == 413
    assert (await world.request("POST", BATCH, [b"x" * 60, b"x" * 60])).status == 413
    monkeypatch.setattr(limits, "BATCHES_PER_WORKER_MAX", 0)
    reply = await post(world, b"{}")
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")


async def test_many_wait_only_so_many_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BATCH_IN_FLIGHT_MAX", 5)
    items = [create(asset={"n": n}) for n in range(60)]
    lines = lines_of(await post(world, *items))
    assert [line["id"] for line in lines] == [signed.tx["id"] for signed in items]
    assert {line["status"] for line in lines} == {"pending"}
    assert world.services.batches == 0


async def test_other_work_goes_on_while_items_are_verified(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "SLICE_S", 0.0)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await post(world, *[create(asset={"n": n}) for n in range(30)])
    counting.cancel()
    assert turns >= 30


async def test_issuers_are_checked(world: World) -> None:
    from bcdb.http.policy import WritePolicy

    world.services.policy = WritePolicy([alice.public_key], world.services.ledger)
    lines = lines_of(await post(world, create(alice), create(bob)))
    assert lines[0]["status"] == "pending"
    alone = await world.post(create(bob))
    assert alone.status == 403
    assert lines[1] == {
        "id": create(bob).tx["id"],
        "status": "refused",
        "error": {"name": "NotAllowed", "text": alone.json()["message"]},
    }
