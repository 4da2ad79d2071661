"""What was when, over HTTP: an asset, its provenance in three shapes, outputs and holdings of a key."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from typing import Any

import pytest

from bcdb.http import provenance
from bcdb.http.provenance import COLUMNS, quoted, shown
from bcdb.ledger.history import Movement
from bcdb.ledger.slices import Slices, whole
from bcdb.model import limits
from tests.http.world import Reply, World
from tests.support.transactions import Signed, alice, bob, carol, create, transfer

ASSETS = "/api/v1/assets"
NOT_FOUND = {"message": "Not found", "status": 404}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")
KEYS = [pair.public_key for pair in (alice, bob, carol)]


async def sale(world: World) -> list[Signed]:
    """Ten of alice; six to bob and four back; bob's to carol: three blocks."""
    made = create(
        recipients=[([alice.public_key], 10)], asset={"z": 1e-06, "a": ["ü", 2.0]}, metadata={"x": "=1+1"}
    )
    sold = transfer([(made, 0)], [([bob.public_key], 6), ([alice.public_key], 4)])
    resold = transfer([(sold, 0)], [([carol.public_key], 6)], asset_id=made.tx["id"])
    await world.commit(made, sold, resold)
    return [made, sold, resold]


async def pages(world: World, path: str, **arguments: object) -> list[Reply]:
    replies = [await world.get(path, **arguments)]
    while "link" in replies[-1].headers:
        replies.append(await world.get(replies[-1].next))
    return replies


def holdings_path(key: str) -> str:
    return f"/api/v1/keys/{key}/holdings"


class TestAsset:
    async def test_what_it_is(self, world: World) -> None:
        made, sold, resold = await sale(world)
        for path in (f"{ASSETS}/{made.tx['id']}", f"{ASSETS}/{made.tx['id']}/"):
            reply = await world.get(path)
            assert reply.status == 200
            assert reply.headers["bcdb-height"] == "3"
            # The data is told as it stands in the transaction, to the letter.
            assert b'"data":{"a":["\xc3\xbc",2.0],"z":1e-06}' in reply.body
            body = reply.json()
            assert TIME.fullmatch(body["created"].pop("time"))
            assert TIME.fullmatch(body["latest"].pop("time"))
            assert body == {
                "id": made.tx["id"],
                "data": made.tx["asset"]["data"],
                "issuers": [alice.public_key],
                "amount": "10",
                "created": {"height": 1, "position": 0},
                "latest": {
                    "transaction_id": resold.tx["id"],
                    "operation": "TRANSFER",
                    "height": 3,
                    "position": 0,
                },
                "height": 3,
            }
        past = (await world.get(f"{ASSETS}/{made.tx['id']}", at_height=2)).json()
        assert (past["height"], past["latest"]["transaction_id"]) == (2, sold.tx["id"])
        first = (await world.get(f"{ASSETS}/{made.tx['id']}", at_height=1)).json()
        assert (first["latest"]["operation"], first["latest"]["time"]) == ("CREATE", first["created"]["time"])

    async def test_without_data(self, world: World) -> None:
        made = create([alice, bob], recipients=[([carol.public_key], 1), ([bob.public_key], 2)])
        await world.commit(made)
        body = (await world.get(f"{ASSETS}/{made.tx['id']}")).json()
        assert body["data"] is None
        assert (body["issuers"], body["amount"]) == (sorted([alice.public_key, bob.public_key]), "3")

    async def test_what_is_not_there(self, world: World) -> None:
        made, sold, _ = await sale(world)
        for tail in ("", "/provenance"):
            for text in (sold.tx["id"], "0" * 64, "x", made.tx["id"].upper(), "%00"):
                reply = await world.get(f"{ASSETS}/{text}{tail}")
                assert (reply.status, reply.json()) == (404, NOT_FOUND), text
            reply = await world.get(f"{ASSETS}/{made.tx['id']}{tail}", at_height=0)
            assert (reply.status, reply.json()) == (404, NOT_FOUND)


class TestProvenance:
    async def test_the_whole_graph(self, world: World) -> None:
        made, sold, resold = await sale(world)
        reply = await world.get(f"{ASSETS}/{made.tx['id']}/provenance")
        assert (reply.status, reply.headers["bcdb-height"]) == (200, "3")
        assert "link" not in reply.headers
        body = reply.json()
        times = [item.pop("time") for item in body["transactions"]]
        assert all(TIME.fullmatch(time) for time in times)
        assert times == sorted(times)

        def moved(signed: Signed, height: int, inputs: list[Any], outputs: list[Any]) -> dict[str, Any]:
            names = ("output_index", "public_keys", "amount", "spent_height", "spent_by")
            return {
                "id": signed.tx["id"],
                "operation": signed.tx["operation"],
                "height": height,
                "position": 0,
                "inputs": inputs,
                "outputs": [dict(zip(names, output, strict=True)) for output in outputs],
            }

        def given(key: str, source: Signed | None, amount: str | None) -> dict[str, Any]:
            fulfills = source and {"transaction_id": source.tx["id"], "output_index": 0}
            return {"owners_before": [key], "fulfills": fulfills, "amount": amount}

        assert body == {
            "asset_id": made.tx["id"],
            "height": 3,
            "transactions": [
                moved(made, 1, [given(KEYS[0], None, None)], [[0, [KEYS[0]], "10", 2, sold.tx["id"]]]),
                moved(
                    sold,
                    2,
                    [given(KEYS[0], made, "10")],
                    [[0, [KEYS[1]], "6", 3, resold.tx["id"]], [1, [KEYS[0]], "4", None, None]],
                ),
                moved(resold, 3, [given(KEYS[1], sold, "6")], [[0, [KEYS[2]], "6", None, None]]),
            ],
        }

    async def test_the_past(self, world: World) -> None:
        made, *_ = await sale(world)
        body = (await world.get(f"{ASSETS}/{made.tx['id']}/provenance", at_height=2)).json()
        assert body["height"] == 2
        spent = [[output["spent_height"] for output in item["outputs"]] for item in body["transactions"]]
        assert spent == [[2], [None, None]]

    @pytest.mark.parametrize("form", ["json", "dot", "csv"])
    async def test_pages_together_are_the_whole(
        self, world: World, monkeypatch: pytest.MonkeyPatch, form: str
    ) -> None:
        chain = [create(recipients=[([alice.public_key], 3)])]
        for _ in range(6):
            chain.append(transfer([(chain[-1], 0)], [([alice.public_key], 3)], asset_id=chain[0].tx["id"]))
        await world.commit(*chain)
        path = f"{ASSETS}/{chain[0].tx['id']}/provenance"
        whole = (await world.get(path, format=form)).body
        first = await world.get(path, format=form, limit=2)
        # What is committed between two pages belongs to none of them.
        await world.commit(transfer([(chain[-1], 0)], [([bob.public_key], 3)], asset_id=chain[0].tx["id"]))
        replies = [first]
        while "link" in replies[-1].headers:
            replies.append(await world.get(replies[-1].next))
        assert len(replies) == 4
        assert {reply.headers["bcdb-height"] for reply in replies} == {"7"}
        assert parts(form, [reply.body for reply in replies]) == parts(form, [whole])
        # A page that has become long ends early, and so does one that is read in many slices.
        monkeypatch.setattr(limits, "PAGE_BYTES_MAX", 1)
        monkeypatch.setattr(provenance, "SLICE_RECORDS", 1)
        replies = await pages(world, path, format=form, at_height=7)
        assert len(replies) == 7
        assert parts(form, [reply.body for reply in replies]) == parts(form, [whole])
        monkeypatch.setattr(limits, "PAGE_BYTES_MAX", 2**30)
        assert (await world.get(path, format=form, at_height=7)).body == whole

    async def test_a_wide_transaction_is_read_in_one_turn_and_written_in_another(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(provenance, "SLICE_RECORDS", 20)
        made = create(recipients=[([alice.public_key], 1)] * 20)
        await world.commit(made)
        written = []

        class Noting(provenance.AsJson):
            def movement(self, movement: Movement, time_ns: int) -> bytes:
                written.append(len(movement.outputs))
                return super().movement(movement, time_ns)

        reader = await world.services.ledger.ready()
        shape = Noting(made.verified.id, 1)
        reading = provenance.read_page(reader, made.verified.id, shape, None, 10)
        next(reading)
        assert not written
        next(reading)
        assert written == [20]
        body, after = whole(reading)
        assert (len(json.loads(body)["transactions"]), after) == (1, None)

    async def test_a_picture(self, world: World) -> None:
        made, sold, resold = await sale(world)
        reply = await world.get(f"{ASSETS}/{made.tx['id']}/provenance", format="dot")
        assert reply.headers["content-type"] == "text/vnd.graphviz; charset=utf-8"
        assert reply.headers["bcdb-height"] == "3"
        nodes, edges = graph(reply.body.decode())
        ids = [signed.tx["id"] for signed in (made, sold, resold)]
        kept, end = f"{ids[1]}:1", f"{ids[2]}:0"
        assert set(nodes) == {*ids, kept, end}
        assert nodes[ids[0]].startswith(f"CREATE {ids[0][:8]}\\nblock 1, position 0\\n")
        assert (nodes[kept], nodes[end]) == (KEYS[0], KEYS[2])
        assert edges == [
            (ids[0], ids[1], f"10\\n{KEYS[0]}"),
            (ids[1], ids[2], f"6\\n{KEYS[1]}"),
            (ids[1], kept, "4"),
            (ids[2], end, "6"),
        ]

    async def test_a_sheet(self, world: World) -> None:
        made, sold, resold = await sale(world)
        reply = await world.get(f"{ASSETS}/{made.tx['id']}/provenance", format="csv")
        assert reply.headers["content-type"] == "text/csv; charset=utf-8; header=present"
        text = reply.body.decode()
        assert text.count("\r\n") == text.count("\n") == 5
        table = list(csv.DictReader(io.StringIO(text, newline="")))
        assert list(table[0]) == list(COLUMNS)
        ids = [signed.tx["id"] for signed in (made, sold, resold)]
        assert [(row["from"], row["to"], row["amount"], row["spent_by"]) for row in table] == [
            (KEYS[0], KEYS[0], "10", ids[1]),
            (KEYS[0], KEYS[1], "6", ids[2]),
            (KEYS[0], KEYS[0], "4", ""),
            (KEYS[1], KEYS[2], "6", ""),
        ]
        assert [row["transaction_id"] for row in table] == [ids[0], ids[1], ids[1], ids[2]]
        assert [row["spent_height"] for row in table] == ["2", "3", "", ""]
        # Nothing in it is text of an app, so nothing can begin as a formula does.
        assert all(re.fullmatch(r"[0-9A-Za-z][ -~]*|", cell) for row in table for cell in row.values())

    async def test_many_owners_are_told_in_short(self, world: World) -> None:
        owners = [[pair.public_key for pair in (alice, bob, carol)]]
        made = create([alice, bob, carol], recipients=[(owners[0], 1)])
        await world.commit(made)
        path = f"{ASSETS}/{made.tx['id']}/provenance"
        (row,) = csv.DictReader(io.StringIO((await world.get(path, format="csv")).body.decode()))
        assert row["to"].split() == sorted(KEYS)
        assert sorted(row["from"].split()) == sorted(KEYS)
        assert shown(["k"] * 21) == ["k"] * 20 + ["and 1 more"]
        assert shown(["k"] * 20) == ["k"] * 20

    def test_texts_are_quoted(self) -> None:
        assert quoted('a"b', "c\\d") == '"a\\"b\\nc\\\\d"'
        for text in ('"', "\\", '\\"', 'x\\" -> "y', "a\\"):
            assert re.fullmatch(QUOTED, quoted(text))


QUOTED = r'"(?:[^"\\\n]|\\[^\n])*"'
ATTRIBUTE = rf"\w+=(?:\w+|{QUOTED})"
STATEMENT = re.compile(
    rf"  (?P<subject>\w+|{QUOTED})(?: -> (?P<to>{QUOTED}))? "
    rf"\[(?P<attributes>{ATTRIBUTE}(?:, {ATTRIBUTE})*)\];"
)


def graph(text: str) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """The nodes with their labels, and the edges. Every line must be a statement of Graphviz's language."""
    first, *lines, last = text.splitlines()
    assert (first, last, text[-1]) == ("digraph provenance {", "}", "\n")
    nodes, edges = {}, []
    for line in lines:
        found = STATEMENT.fullmatch(line)
        assert found, line
        label = re.search(rf"label=({QUOTED})", found["attributes"])
        if found["subject"] in ("graph", "node", "edge"):
            continue
        assert label, line
        subject = found["subject"].strip('"')
        if found["to"]:
            edges.append((subject, found["to"].strip('"'), label[1].strip('"')))
        else:
            nodes[subject] = label[1].strip('"')
    return nodes, edges


def parts(form: str, bodies: list[bytes]) -> list[Any]:
    """What stands in some pages of a provenance, without what each page begins with."""
    texts = [body.decode() for body in bodies]
    if form == "json":
        return [item for text in texts for item in Reply(200, {}, text.encode()).json()["transactions"]]
    if form == "csv":
        heads = {text.splitlines()[0] for text in texts}
        assert heads == {",".join(COLUMNS)}
        return [line for text in texts for line in text.splitlines()[1:]]
    graphs = [graph(text) for text in texts]
    return [
        {name: label for nodes, _ in graphs for name, label in nodes.items()},
        [edge for _, edges in graphs for edge in edges],
    ]


class TestHoldings:
    async def test_now_and_then(self, world: World) -> None:
        made, *_ = await sale(world)
        asset = made.tx["id"]

        async def held(key: str, **arguments: object) -> list[tuple[str, int]]:
            for slash in ("", "/"):
                reply = await world.get(holdings_path(key) + slash, **arguments)
            body = reply.json()
            assert body["public_key"] == key
            assert reply.headers["bcdb-height"] == str(body["height"])
            assert body["height"] == arguments.get("at_height", 3)
            assert all(item["asset_id"] == asset for item in body["holdings"])
            return [(item["amount"], item["outputs"]) for item in body["holdings"]]

        assert [await held(key) for key in KEYS] == [[("4", 1)], [], [("6", 1)]]
        story = [[[], [], []], [[("10", 1)], [], []], [[("4", 1)], [("6", 1)], []]]
        for height, expected in enumerate(story):
            assert [await held(key, at_height=height) for key in KEYS] == expected
        assert [await held(key, at_height=3) for key in KEYS] == [[("4", 1)], [], [("6", 1)]]

    async def test_large_amounts_are_exact(self, world: World) -> None:
        made = create(
            recipients=[([alice.public_key], limits.AMOUNT_MAX - 1), ([alice.public_key, bob.public_key], 1)]
        )
        await world.commit(made)
        (held,) = (await world.get(holdings_path(KEYS[0]))).json()["holdings"]
        assert held == {"asset_id": made.tx["id"], "amount": "9000000000000000000", "outputs": 2}
        assert (await world.get(f"{ASSETS}/{made.tx['id']}")).json()["amount"] == held["amount"]

    async def test_pages_tell_one_state(self, world: World) -> None:
        made = [create(asset={"n": number}) for number in range(5)]
        await world.commit(*made)
        replies = [await world.get(holdings_path(KEYS[0]), limit=2)]
        for signed in made:
            await world.commit(transfer([(signed, 0)], [([bob.public_key], 1)]))
        while "link" in replies[-1].headers:
            replies.append(await world.get(replies[-1].next))
        bodies = [reply.json() for reply in replies]
        assert [len(body["holdings"]) for body in bodies] == [2, 2, 1]
        assert {body["height"] for body in bodies} == {5}
        found = [item["asset_id"] for body in bodies for item in body["holdings"]]
        assert found == sorted(signed.tx["id"] for signed in made)

    async def test_a_client_that_has_gone_is_not_read_for(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun, ended = asyncio.Event(), asyncio.Event()
        slices = 0

        def endless(*_: object, **__: object) -> Slices[None]:
            nonlocal slices
            try:
                while slices < 100_000:
                    slices += 1
                    begun.set()
                    yield
            finally:
                ended.set()

        monkeypatch.setattr(await world.services.ledger.ready(), "read_holdings", endless)
        async with world.serving() as (port, _):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {holdings_path(KEYS[0])} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            await asyncio.wait_for(begun.wait(), 10)
            writer.close()
            await asyncio.wait_for(ended.wait(), 10)
            assert slices < 100_000

    async def test_what_is_no_key(self, world: World) -> None:
        for text in ("x", "z" * 44, KEYS[0] + "1", "%00"):
            reply = await world.get(holdings_path(text))
            expected = {"message": {"public_key": "Invalid base58 ed25519 key"}}
            assert (reply.status, reply.json()) == (400, expected), text


class TestOutputs:
    async def test_at_a_height(self, world: World) -> None:
        made, sold, _ = await sale(world)

        async def found(**arguments: object) -> list[tuple[str, int]]:
            replies = await pages(world, "/api/v1/outputs", public_key=KEYS[0], limit=1, **arguments)
            height = str(arguments.get("at_height", 3))
            assert {reply.headers["bcdb-height"] for reply in replies} == {height}
            return [
                (item["transaction_id"], item["output_index"]) for reply in replies for item in reply.json()
            ]

        first, kept = (made.tx["id"], 0), (sold.tx["id"], 1)
        for height, everything, spent in ((0, [], []), (1, [first], []), (2, [first, kept], [first])):
            assert await found(at_height=height) == everything
            assert await found(at_height=height, spent="true") == spent
            assert await found(at_height=height, spent="false") == [
                item for item in everything if item not in spent
            ]
        assert await found(spent="true") == [first]
        reply = await world.get("/api/v1/outputs", public_key="z" * 44)
        assert reply.headers["bcdb-height"] == "3"


class TestHeights:
    PATHS = (
        f"{ASSETS}/{{asset}}",
        f"{ASSETS}/{{asset}}/provenance",
        holdings_path(KEYS[0]),
        f"/api/v1/outputs?public_key={KEYS[0]}",
    )

    async def test_arguments_are_checked(self, world: World) -> None:
        made, *_ = await sale(world)
        newest = "The newest block is 3: there is no state of the height 4 yet"
        for template in self.PATHS:
            path = template.format(asset=made.tx["id"])
            path += "&" if "?" in path else "?"
            for query, message in (
                ("at_height=4", {"at_height": newest}),
                ("at_height=x", {"at_height": "A height is a whole number from 0, not 'x'"}),
                ("min_height=-1", {"min_height": "A height is a whole number from 0, not '-1'"}),
                ("colour=red", "Unknown arguments: colour"),
            ):
                reply = await world.get(path + query)
                assert (reply.status, reply.json()) == (400, {"message": message}), path + query
        path = f"{ASSETS}/{made.tx['id']}/provenance"
        for query, message in (
            ("format=pdf", {"format": 'Format must be "json", "dot" or "csv"'}),
            ("limit=0", {"limit": "A page has from 1 to 10000 items, not '0'"}),
            ("after=x", {"after": "The cursor in `after` was not made by this server for this list."}),
        ):
            reply = await world.get(f"{path}?{query}")
            assert (reply.status, reply.json()) == (400, {"message": message})

    async def test_a_height_to_come_is_waited_for(self, world: World) -> None:
        made, *_ = await sale(world)
        for template in self.PATHS:
            height = world.ledger.head.height
            path = template.format(asset=made.tx["id"])
            path += ("&" if "?" in path else "?") + f"min_height={height + 1}"
            asking = asyncio.create_task(world.get(path))
            await asyncio.sleep(0.05)
            assert not asking.done()
            await world.commit(create(asset={"for": template}))
            reply = await asking
            assert (reply.status, reply.headers["bcdb-height"]) == (200, str(height + 1))

    async def test_one_that_does_not_come_is_told(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made, *_ = await sale(world)
        monkeypatch.setattr(limits, "SEARCH_WAIT_S_MAX", 0.02)
        for template in self.PATHS:
            path = template.format(asset=made.tx["id"])
            reply = await world.get(path + ("&" if "?" in path else "?") + "min_height=9")
            assert reply.status == 503
            assert reply.headers["retry-after"] == "1"
            assert reply.json()["message"] == (
                "The ledger of this node is at height 3; `min_height` asks for 9, "
                "which did not come within 0.02 s"
            )
