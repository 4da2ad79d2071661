"""Search over HTTP: the reference's arguments and texts, pages, and how it waits for the newest block."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bcdb.http import search
from bcdb.http.params import MISSING
from bcdb.http.questions import Questions
from bcdb.model import limits
from query.sqlite import SqliteStore
from tests.http.world import World
from tests.support.transactions import alice, create, transfer

KINDS = ("assets", "metadata")


async def test_what_is_committed_is_found_at_once(world: World) -> None:
    made = create(asset={"text": "a bicycle running uphill"}, metadata={"text": "first bicycle"})
    await world.commit(made)
    for path in ("/api/v1/assets", "/api/v1/assets/"):
        reply = await world.get(path, search="run")
        assert reply.status == 200
        assert reply.headers["bcdb-height"] == "1"
        assert reply.json() == [{"data": {"text": "a bicycle running uphill"}, "id": made.tx["id"]}]
        assert list(reply.json()[0]) == ["data", "id"]
    moved = transfer([(made, 0)], [([alice.public_key], 1)], metadata={"text": "second bicycle"})
    await world.commit(moved)
    reply = await world.get("/api/v1/metadata", search="bicycle -first", limit=0)
    assert reply.json() == [{"metadata": {"text": "second bicycle"}, "id": moved.tx["id"]}]
    assert (await world.get("/api/v1/assets", search="the")).body == b"[]"
    assert (await world.get("/api/v1/assets", search='"uphill running"')).body == b"[]"


async def test_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [create(asset={"word": "apple", "n": n}) for n in range(7)]
    await world.commit(*made)
    ids = {signed.tx["id"] for signed in made}
    for first_items in (2, 64):
        monkeypatch.setattr(search, "FIRST_ITEMS", first_items)
        for limit in (3, 7, 10, -3):
            reply = await world.get("/api/v1/assets", search="apple", limit=limit)
            seen = reply.json()
            while "link" in reply.headers:
                assert len(reply.json()) == abs(limit)
                reply = await world.get(reply.next)
                seen += reply.json()
            assert len(seen) == 7
            assert {item["id"] for item in seen} == ids
        assert len((await world.get("/api/v1/assets", search="apple")).json()) == 7
    monkeypatch.setattr(limits, "PAGE_BYTES_MAX", 1)
    monkeypatch.setattr(search, "FIRST_ITEMS", 4)
    reply = await world.get("/api/v1/assets", search="apple")
    assert len(reply.json()) == 4
    assert len((await world.get(reply.next)).json()) == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_arguments_are_checked(world: World, kind: str) -> None:
    await world.commit(create())
    path = f"/api/v1/{kind}"
    reply = await world.get(path)
    assert (reply.status, reply.json()) == (400, {"message": {"search": MISSING}})
    reply = await world.get(path, search="")
    assert (reply.status, reply.json()) == (400, {"message": "text_search cannot be empty", "status": 400})
    for limit in ("x", "", "1.5", "\0", "0x1"):
        reply = await world.get(path, search="a", limit=limit)
        assert reply.json() == {"message": {"limit": f"invalid literal for int() with base 10: {limit!r}"}}
    reply = await world.get(path, search="x" * 1025)
    assert (reply.status, reply.json()["status"]) == (400, 400)
    assert "1024" in reply.json()["message"]
    reply = await world.get(path, search="a", after="nonsense")
    text = "The cursor in `after` was not made by this server for this list."
    assert (reply.status, reply.json()) == (400, {"message": {"after": text}})
    assert (await world.get(path, search="a", limit="1000000", other="x")).status == 200


async def test_odd_texts_are_answered(world: World) -> None:
    await world.commit(create(asset={"text": "plain words"}))
    odd = ("\0", '"', "-", "--", '""', "-a", '"a', "*", "a*", "a AND", "NEAR(", "{", "\ud83d", "😀", "%", "^")
    for text in odd:
        escaped = "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))
        reply = await world.request("GET", f"/api/v1/assets?search={escaped}")
        assert (reply.status, reply.body) == (200, b"[]")


async def test_a_search_waits_for_the_newest_block_but_not_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SEARCH_WAIT_S_MAX", 0.2)
    await world.commit(create(asset={"text": "old"}))
    assert len((await world.get("/api/v1/assets", search="old")).json()) == 1
    await world.stop_projecting()
    await world.commit(create(asset={"text": "new"}))
    reply = await world.get("/api/v1/assets", search="old new")
    assert reply.headers["bcdb-height"] == "1"
    assert [item["data"]["text"] for item in reply.json()] == ["old"]


async def test_the_next_page_waits_for_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEARCH_WAIT_S_MAX", 30.0)
    await world.commit(*(create(asset={"word": "apple", "n": n}) for n in range(2)))
    first = await world.get("/api/v1/assets", search="apple", limit=1)
    await world.stop_projecting()
    await world.commit(create(asset={"word": "apple", "n": 2}))
    reply = await asyncio.wait_for(world.get(first.next), 10)
    assert (len(reply.json()), reply.headers["bcdb-height"]) == (1, "2")


async def test_min_height_is_checked_and_not_a_part_of_the_next_page(world: World) -> None:
    await world.commit(*(create(asset={"word": "apple", "n": n}) for n in range(3)))
    for kind in KINDS:
        for value in ("x", "-1", ""):
            reply = await world.get(f"/api/v1/{kind}", search="apple", min_height=value)
            assert (reply.status, list(reply.json()["message"])) == (400, ["min_height"])
    reply = await world.get("/api/v1/assets", search="apple", min_height=3, limit=2)
    assert (len(reply.json()), reply.headers["bcdb-height"]) == (2, "3")
    assert "min_height" not in reply.next
    assert len((await world.get(reply.next)).json()) == 1


async def test_text_search_can_be_switched_off(tmp_path: Path) -> None:
    async with World(tmp_path / "node", text_search=False) as world:
        await world.commit(create(asset={"word": "apple"}))
        for kind in KINDS:
            reply = await world.get(f"/api/v1/{kind}", search="apple")
            assert (reply.status, reply.json()["status"]) == (400, 400)
            assert "text_search" in reply.json()["message"]
        assert len((await world.ask("assets", {})).json()["documents"]) == 1
        assert (await world.get("/api/v1/query")).json()["text_search"] is False


async def test_without_a_store_it_is_503(world: World) -> None:
    await world.stop_projecting()
    await world.services.questions.close()
    away = world.settings.home / "none.sqlite"
    world.services.questions = Questions(world.services.link, lambda: SqliteStore.open_reader(away))
    reply = await world.get("/api/v1/assets", search="a")
    assert (reply.status, reply.json()["status"]) == (503, 503)
    assert (await world.get("/health/ready")).json()["projected_height"] is None


async def test_later_pages_tell_the_height_of_the_first_one(either_world: World) -> None:
    world = either_world
    await world.commit(*(create(asset={"word": "apple", "n": n}) for n in range(3)))
    first = await world.get("/api/v1/assets", search="apple", limit=1)
    await world.commit(create(asset={"word": "apple", "n": "late"}))
    second = await world.get(first.next)
    third = await world.get(second.next)
    assert [reply.headers["bcdb-height"] for reply in (first, second, third)] == ["3", "3", "3"]
    assert "link" not in third.headers
    fresh = await world.get("/api/v1/assets", search="apple", limit=10)
    assert (fresh.headers["bcdb-height"], len(fresh.json())) == ("4", 4)
