"""Questions to the query store over HTTP: bodies, answers, pages, refusals, aggregations, the status."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bcdb.http.members import Member, Members, read_limit
from bcdb.http.params import MISSING
from bcdb.model import limits
from query.documents import COLLECTIONS, FIELDS
from tests.http.world import QUERY, Reply, World
from tests.support.transactions import Signed, alice, bob, create, transfer


async def lots(world: World, count: int = 7, *, start: int = 0) -> list[Signed]:
    """Committed assets, each in a block of its own: lot `start` and so on."""
    made = [
        create(asset={"lot": n, "kind": "rye" if n % 2 else "spelt"}, metadata={"celsius": n - 3.5})
        for n in range(start, start + count)
    ]
    await world.commit(*made)
    return made


async def all_pages(world: World, collection: str, question: dict[str, Any]) -> list[Any]:
    found: list[Any] = []
    height = None
    while True:
        reply = await world.ask(collection, question)
        assert reply.status == 200, reply
        page = reply.json()
        assert len(page["documents"]) <= question.get("limit", limits.PAGE_ITEMS_DEFAULT)
        assert page["height"] == (page["height"] if height is None else height)
        assert reply.headers["bcdb-height"] == str(page["height"])
        height = page["height"]
        found += page["documents"]
        if page["next"] is None:
            return found
        question = {**question, "after": page["next"]}


class TestFind:
    @pytest.fixture
    def world(self, either_world: World) -> World:
        return either_world

    async def test_documents_of_every_collection(self, world: World) -> None:
        made = create(asset={"kind": "rye"}, metadata={"celsius": 11.5})
        await world.commit(made)
        moved = transfer([(made, 0)], [([bob.public_key], 1)], metadata={"celsius": 19})
        await world.commit(moved)
        first, second = made.tx["id"], moved.tx["id"]
        for collection in COLLECTIONS:
            reply = await world.ask(collection, {})
            assert (reply.status, reply.headers["bcdb-height"]) == (200, "2")
            assert reply.headers["content-type"] == "application/json"
            page = reply.json()
            assert (list(page), page["height"], page["next"]) == (["height", "documents", "next"], 2, None)
            assert len(page["documents"]) == (1 if collection == "assets" else 2)
            for document in page["documents"]:
                assert tuple(document) == FIELDS[collection]
        (asset,) = (await world.ask("assets", {"filter": {"data.kind": "rye"}})).json()["documents"]
        assert asset == {"id": first, "height": 1, "position": 0, "data": {"kind": "rye"}}
        spent, unspent = (await world.ask("outputs", {})).json()["documents"]
        assert (spent["public_keys"], spent["spent_height"], spent["spent_by"]) == (
            [alice.public_key],
            2,
            second,
        )
        assert (unspent["public_keys"], unspent["spent_by"]) == ([bob.public_key], None)
        (told,) = (await world.ask("transactions", {"filter": {"operation": "TRANSFER"}})).json()["documents"]
        assert told["inputs"][0]["fulfills"] == {"transaction_id": first, "output_index": 0}
        (block,) = (await world.ask("blocks", {"filter": {"height": 2}})).json()["documents"]
        assert block["hash"] == (await world.get("/api/v1/blocks/2")).json()["hash"]

    async def test_filter_projection_and_sort(self, world: World) -> None:
        made = await lots(world)
        question = {
            "filter": {"$and": [{"data.lot": {"$gte": 1}}, {"data.kind": {"$ne": "spelt"}}]},
            "projection": {"data.lot": 1},
            "sort": {"data.lot": -1},
        }
        reply = await world.ask("assets", question)
        assert reply.json()["documents"] == [{"data": {"lot": lot}} for lot in (5, 3, 1)]
        reply = await world.ask("metadata", {"projection": {"metadata": 0, "position": 0}, "limit": 1})
        assert reply.json()["documents"] == [{"id": made[0].tx["id"], "height": 1}]

    async def test_pages(self, world: World) -> None:
        made = await lots(world)
        ids = [signed.tx["id"] for signed in made]
        for limit in (1, 3, 7, 100):
            for sort, expected in (
                (None, ids),
                ({"height": -1}, ids[::-1]),
                ({"data.kind": 1, "data.lot": -1}, [*ids[5::-2], *ids[6::-2]]),
            ):
                found = await all_pages(world, "assets", {"sort": sort, "limit": limit})
                assert [document["id"] for document in found] == expected

    async def test_a_later_page_has_nothing_newer_than_the_first(self, world: World) -> None:
        await lots(world, 3)
        question = {"sort": {"data.lot": -1}, "limit": 2}
        page = (await world.ask("assets", question)).json()
        await lots(world, 2, start=3)
        later = (await world.ask("assets", {**question, "after": page["next"]})).json()
        assert (later["height"], [item["data"]["lot"] for item in later["documents"]]) == (3, [0])
        reply = await world.ask("assets", {**question, "after": page["next"], "min_height": 5})
        assert reply.status == 400
        assert "height 3" in reply.json()["message"]

    async def test_a_cursor_of_another_question(self, world: World) -> None:
        await lots(world, 3)
        cursor = (await world.ask("assets", {"limit": 1})).json()["next"]
        assert (await world.ask("assets", {"limit": 2, "after": cursor})).status == 200
        for collection, question in (
            ("metadata", {}),
            ("assets", {"filter": {"data.lot": 1}}),
            ("assets", {"sort": {"data.lot": 1}}),
            ("assets", {"projection": {"id": 1}}),
        ):
            reply = await world.ask(collection, {**question, "after": cursor})
            text = "The cursor in `after` was not made by this server for this question."
            assert (reply.status, reply.json()) == (400, {"message": {"after": text}})
        for cursor in ("", "x", "\0", "ü", "=" * 5000):
            reply = await world.ask("assets", {"after": cursor})
            assert (reply.status, list(reply.json()["message"])) == (400, ["after"])

    async def test_an_address_with_a_slash_at_the_end(self, world: World) -> None:
        await lots(world, 1)
        for path in ("assets/", "assets"):
            assert len((await world.ask(path, {})).json()["documents"]) == 1


def refused(reply: Reply, *words: str) -> None:
    assert (reply.status, reply.json()["status"]) == (400, 400), reply
    for word in words:
        assert word in reply.json()["message"]


class TestRefusals:
    async def test_what_is_not_allowed_is_named(self, world: World) -> None:
        for filter, word in (
            ({"$where": "true"}, "$where"),
            ({"data.lot": {"$near": 1}}, "$near"),
            ({"colour": 1}, "colour"),
            ({"data.lot": {"$in": list(range(2_000))}}, "$in"),
        ):
            refused(await world.ask("assets", {"filter": filter}), word)
        refused(await world.ask("assets", {"sort": {"data.lot": 2}}), "data.lot")
        refused(await world.ask("assets", {"projection": {"data": 1, "height": 0}}))

    async def test_no_such_collection(self, world: World) -> None:
        for path in ("nothing", "nothing/aggregate", "Assets", "%00", "_id", "x" * 5_000):
            reply = await world.ask(path, {})
            assert (reply.status, reply.json()["status"]) == (404, 404)
            for collection in COLLECTIONS:
                assert collection in reply.json()["message"]
            assert len(reply.body) < 300

    @pytest.mark.parametrize("path", ["assets", "assets/aggregate"])
    async def test_bodies_that_can_not_be_read(self, world: World, path: str) -> None:
        for body in (
            *(b"", b"{", b"\xff", b"[]", b"1", b"null", b'"x"', b"{} {}", b'{"limit":1,"limit":1}'),
            *(b'{"filter":{"a":"\\ud800"}}', b'{"filter":{"id":NaN}}', b'{"filter":{"id":1e999}}'),
            b'{"filter":' + b'{"a":' * 100 + b"1" + b"}" * 101,
            b'{"filter":{"id":9223372036854775808}}',
        ):
            refused(await world.ask(path, body))

    async def test_members_that_are_wrong(self, world: World) -> None:
        wrong: dict[str, tuple[object, ...]] = {
            "filter": (1, "x", [], True),
            "projection": (1, "id", ["id"]),
            "sort": ("id", [["id", 1]], 1),
            "limit": (0, -1, 10_001, 1.0, "1", True, [], 2**63 - 1),
            "after": (1, {}, []),
            "min_height": (-1, 1.0, "1", False, 10**18),
        }
        for name, values in wrong.items():
            for value in values:
                reply = await world.ask("assets", {name: value})
                assert (reply.status, list(reply.json()["message"])) == (400, [name]), value
        for value in (1, "x", {}, True):
            reply = await world.ask("assets/aggregate", {"pipeline": value})
            assert (reply.status, list(reply.json()["message"])) == (400, ["pipeline"])
        reply = await world.ask("assets/aggregate", {})
        assert (reply.status, reply.json()) == (400, {"message": {"pipeline": MISSING}})

    async def test_members_that_are_unknown(self, world: World) -> None:
        reply = await world.ask("assets", {"filter": {}, "colour": 1, "x" * 5_000: 2})
        assert reply.status == 400
        assert reply.json()["message"].startswith("Unknown members: colour, x")
        assert "`projection`" in reply.json()["message"]
        assert len(reply.body) < 300
        reply = await world.ask("assets/aggregate", {"pipeline": [], "filter": {}})
        assert reply.json()["message"].startswith("Unknown members: filter. There are `pipeline` and")

    async def test_null_is_as_if_left_out(self, world: World) -> None:
        await lots(world, 1)
        question = dict.fromkeys(("filter", "projection", "sort", "limit", "after", "min_height"))
        assert len((await world.ask("assets", question)).json()["documents"]) == 1

    async def test_arguments_behind_the_question_mark(self, world: World) -> None:
        for path, body in (("assets", {}), ("assets/aggregate", {"pipeline": []})):
            reply = await world.ask(path, body, colour=1)
            assert (reply.status, reply.json()) == (400, {"message": "Unknown arguments: colour"})
            for value in ("x", "-1", "", "1.0"):
                reply = await world.ask(path, body, min_height=value)
                assert (reply.status, list(reply.json()["message"])) == (400, ["min_height"])

    @pytest.mark.parametrize("path", ["assets", "assets/aggregate"])
    async def test_bodies_that_are_too_long_or_encoded(self, world: World, path: str) -> None:
        longest = b'{"filter":{}' + b" " * (limits.QUESTION_BYTES_MAX - 13) + b"}"
        assert len(longest) == limits.QUESTION_BYTES_MAX
        assert (await world.ask("assets", longest)).status == 200
        reply = await world.ask(path, longest + b" ")
        assert (reply.status, reply.json()["status"]) == (413, 413)
        reply = await world.request("POST", f"{QUERY}/{path}", [longest, b" "])
        assert reply.status == 413
        reply = await world.request("POST", f"{QUERY}/{path}", b"{}", {"content-encoding": "gzip"})
        assert reply.status == 415

    async def test_the_media_type_has_no_meaning(self, world: World) -> None:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=x", "\0"):
            reply = await world.request("POST", f"{QUERY}/assets", b"{}", {"content-type": kind})
            assert reply.status == 200


async def test_an_aggregation(mongo_world: World) -> None:
    made = await lots(mongo_world)
    pipeline: list[object] = [
        {"$match": {"data.lot": {"$gt": 0}}},
        {"$group": {"_id": "$data.kind", "lots": {"$sum": 1}, "last": {"$max": "$data.lot"}}},
        {"$sort": {"_id": 1}},
    ]
    for reply in (
        await mongo_world.ask("assets/aggregate", {"pipeline": pipeline}),
        await mongo_world.ask("assets/aggregate/", {"pipeline": pipeline, "min_height": 7}, min_height=3),
    ):
        assert (reply.status, reply.headers["bcdb-height"]) == (200, "7")
        assert reply.json() == {
            "height": 7,
            "documents": [{"_id": "rye", "lots": 3, "last": 5}, {"_id": "spelt", "lots": 3, "last": 6}],
        }
    reply = await mongo_world.ask("assets/aggregate", {"pipeline": []})
    assert [item["id"] for item in reply.json()["documents"]] == [signed.tx["id"] for signed in made]
    for stage, word in (
        ({"$out": "x"}, "$out"),
        ({"$lookup": {"from": "x"}}, "$lookup"),
        ({"$match": {"$where": "1"}}, "$where"),
        ({"$project": {"x": {"$function": {}}}}, "$function"),
        (1, "Stage 1"),
    ):
        refused(await mongo_world.ask("assets/aggregate", {"pipeline": [stage]}), word)
    reply = await mongo_world.ask("assets", {"filter": {"data.kind": {"$regex": "^r"}}})
    assert len(reply.json()["documents"]) == 3


async def test_an_aggregation_is_refused_without_mongodb(world: World) -> None:
    await lots(world, 1)
    reply = await world.ask("assets/aggregate", {"pipeline": [{"$count": "lots"}]})
    refused(reply, "MongoDB", "--mongo")
    refused(await world.ask("assets/aggregate", {"pipeline": [{"$lookup": {}}]}), "$lookup")
    refused(await world.ask("assets", {"filter": {"data.kind": {"$regex": "^r"}}}), "$regex", "--mongo")


async def test_the_status_of_the_store(either_world: World) -> None:
    world = either_world
    reply = await world.get(QUERY)
    assert (reply.status, reply.headers["bcdb-height"]) == (200, "0")
    made = await lots(world, 3)
    await world.commit(transfer([(made[0], 0)], [([bob.public_key], 1)]))
    assert (await world.ask("assets", {})).status == 200
    reply = await world.get(QUERY)
    assert reply.headers["bcdb-height"] == "4"
    assert reply.json() == {
        "kind": world.settings.store_kind,
        "height": 4,
        "ledger_height": 4,
        "lag_blocks": 0,
        "building": None,
        "text_search": True,
        "counts": {"transactions": 4, "assets": 3, "metadata": 4, "outputs": 4, "blocks": 4},
    }
    await world.stop_projecting()
    await lots(world, 2, start=3)
    status = (await world.get(QUERY)).json()
    assert (status["height"], status["ledger_height"], status["lag_blocks"]) == (4, 6, 2)


async def test_a_browser_asks_before_it_posts(world: World) -> None:
    headers = {"origin": "https://app.example", "access-control-request-method": "POST"}
    for path, methods in (
        (f"{QUERY}/assets", ["OPTIONS", "POST"]),
        (f"{QUERY}/assets/aggregate", ["OPTIONS", "POST"]),
        (QUERY, ["GET", "HEAD", "OPTIONS"]),
    ):
        reply = await world.request("OPTIONS", path, headers=headers)
        assert (reply.status, reply.body) == (200, b"")
        assert reply.headers["access-control-allow-origin"] == "https://app.example"
        assert "POST" in reply.headers["access-control-allow-methods"]
        assert sorted(reply.headers["allow"].split(", ")) == methods
    headers = {"origin": "https://app.example"}
    reply = await world.request("POST", f"{QUERY}/assets", b"{}", headers)
    assert reply.headers["access-control-allow-origin"] == "https://app.example"
    assert "Bcdb-Height" in reply.headers["access-control-expose-headers"]


async def test_methods_that_these_addresses_lack(world: World) -> None:
    for path in (f"{QUERY}/assets", f"{QUERY}/assets/aggregate"):
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            reply = await world.request(method, path)
            assert reply.status == 405
            assert "POST" in reply.headers["allow"]
    assert (await world.request("POST", QUERY)).status == 405


async def test_bodies_are_described_as_they_are_read(world: World) -> None:
    document = (await world.get("/openapi.json")).json()
    find = document["paths"][f"{QUERY}/{{collection}}"]["post"]
    schema = find["requestBody"]["content"]["application/json"]["schema"]
    assert schema["additionalProperties"] is False
    assert "required" not in schema
    assert "Bcdb-Height" in find["responses"]["200"]["headers"]
    for name in schema["properties"]:
        assert (await world.ask("assets", {name: None})).status == 200
        assert (await world.ask("assets", {name: [0]})).status == 400
    aggregate = document["paths"][f"{QUERY}/{{collection}}/aggregate"]["post"]
    assert aggregate["requestBody"]["content"]["application/json"]["schema"]["required"] == ["pipeline"]
    status = document["paths"][QUERY]["get"]
    assert "Bcdb-Height" in status["responses"]["200"]["headers"]
    for path in ("assets", "metadata"):
        headers = document["paths"][f"/api/v1/{path}"]["get"]["responses"]["200"]["headers"]
        assert {"Link", "Bcdb-Height"} <= headers.keys()


def test_the_first_wrong_member_is_told() -> None:
    members = Members(dict, a=Member(read_limit, ""), b=Member(read_limit, "", required=True))
    assert members.parse(b'{"b":2,"a":1}') == {"a": 1, "b": 2}
    for body, name in ((b'{"b":0,"a":0}', "a"), (b'{"b":0}', "b"), (b'{"b":null}', "b"), (b'{"c":1}', "b")):
        with pytest.raises(Exception) as told:  # noqa: PT011
            members.parse(body)
        assert getattr(told.value, "argument", "") == name
    assert msgspec.json.encode(members.parse(b'{"b":1}')) == b'{"b":1}'
