"""Reading over HTTP: transactions, lists and their pages, outputs, blocks, statuses, the index pages."""

from __future__ import annotations

import re

import pytest

from bcdb.http.params import MISSING
from bcdb.model import encode_key, limits
from tests.http.world import TRANSACTIONS, World
from tests.support.transactions import Signed, alice, bob, carol, create, transfer

NOT_FOUND = {"message": "Not found", "status": 404}


async def history(world: World, transfers: int = 3) -> list[Signed]:
    """A committed CREATE and TRANSFERs of it, each from the one before."""
    chain = [create(asset={"kind": "history"})]
    for _ in range(transfers):
        chain.append(transfer([(chain[-1], 0)], [([alice.public_key], 1)], asset_id=chain[0].tx["id"]))
    await world.commit(*chain)
    return chain


class TestOneTransaction:
    async def test_it_comes_back_byte_for_byte(self, world: World) -> None:
        signed = create(asset={"z": [1.5, "ü", None], "a": {"b": False}}, metadata={"m": 1})
        await world.commit(signed)
        for slash in ("", "/"):
            reply = await world.get(f"{TRANSACTIONS}/{signed.tx['id']}{slash}")
            assert (reply.status, reply.body) == (200, signed.raw)
            assert reply.headers["content-type"] == "application/json"
        reply = await world.request("HEAD", f"{TRANSACTIONS}/{signed.tx['id']}")
        assert reply.status == 200

    async def test_any_other_text_is_not_found(self, world: World) -> None:
        odd = ("%00", "%F0%9F%98%80", " " * 64, "\u0663" * 64)
        for text in ("0" * 64, "0" * 63, "0" * 65, "x" * 64, "F" * 64, *odd):
            reply = await world.get(f"{TRANSACTIONS}/{text}")
            assert (reply.status, reply.json()) == (404, NOT_FOUND)

    async def test_ids_are_lower_case(self, world: World) -> None:
        signed = create()
        await world.commit(signed)
        assert (await world.get(f"{TRANSACTIONS}/{signed.tx['id'].upper()}")).status == 404


class TestStatus:
    async def test_committed(self, world: World) -> None:
        chain = await history(world, 1)
        reply = await world.get(f"{TRANSACTIONS}/{chain[1].tx['id']}/status")
        body = reply.json()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", body.pop("time"))
        assert body == {"id": chain[1].tx["id"], "status": "committed", "height": 2, "position": 0}

    async def test_unknown(self, world: World) -> None:
        for text in ("0" * 64, "nothing", "%00"):
            reply = await world.get(f"{TRANSACTIONS}/{text}/status")
            assert (reply.status, reply.json()) == (404, NOT_FOUND)


class TestTransactionsOfAnAsset:
    async def test_they_come_in_order_with_filters(self, world: World) -> None:
        chain = await history(world)
        asset_id = chain[0].tx["id"]
        everything = [signed.tx for signed in chain]
        assert (await world.get(TRANSACTIONS, asset_id=asset_id)).json() == everything
        assert (await world.get(TRANSACTIONS + "/", asset_id=asset_id.upper())).json() == everything
        assert (await world.get(TRANSACTIONS, asset_id=asset_id, other="x")).json() == everything
        for operation, expected in (("CREATE", everything[:1]), ("transfer", everything[1:])):
            reply = await world.get(TRANSACTIONS, asset_id=asset_id, operation=operation)
            assert reply.json() == expected
        newest = await world.get(TRANSACTIONS, asset_id=asset_id, last_tx="TRUE")
        assert newest.json() == everything[-1:]
        assert "link" not in newest.headers
        newest = await world.get(TRANSACTIONS, asset_id=asset_id, last_tx="true", operation="CREATE")
        assert newest.json() == everything[:1]
        assert (await world.get(TRANSACTIONS, asset_id="0" * 64)).body == b"[]"

    async def test_pages_follow_each_other(self, world: World) -> None:
        chain = await history(world, 6)
        for filters in ({}, {"operation": "TRANSFER"}):
            first = await world.get(TRANSACTIONS, asset_id=chain[0].tx["id"], limit=2, **filters)
            seen = first.json()
            reply = first
            while "link" in reply.headers:
                reply = await world.get(reply.next)
                assert len(reply.json()) <= 2
                seen += reply.json()
            expected = chain[1:] if filters else chain
            assert [tx["id"] for tx in seen] == [signed.tx["id"] for signed in expected]

    async def test_a_page_ends_early_when_it_is_long(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chain = await history(world, 20)
        monkeypatch.setattr(limits, "PAGE_BYTES_MAX", 1)
        reply = await world.get(TRANSACTIONS, asset_id=chain[0].tx["id"])
        assert len(reply.json()) == 16
        assert len((await world.get(reply.next)).json()) == 5

    async def test_arguments_are_checked(self, world: World) -> None:
        for query, argument, text in (
            ("", "asset_id", MISSING),
            ("?operation=CREATE", "asset_id", MISSING),
            ("?asset_id=", "asset_id", "Invalid hash"),
            (f"?asset_id={'0' * 63}", "asset_id", "Invalid hash"),
            (f"?asset_id={'0' * 64}%0A", "asset_id", "Invalid hash"),
            (f"?asset_id={'0' * 64}&asset_id=x", "asset_id", "Invalid hash"),
            (f"?asset_id={'0' * 64}&operation=VOTE", "operation", 'Operation must be "CREATE" or "TRANSFER"'),
            (f"?asset_id={'0' * 64}&operation=", "operation", 'Operation must be "CREATE" or "TRANSFER"'),
            (
                f"?asset_id={'0' * 64}&last_tx=1",
                "last_tx",
                'Boolean value must be "true" or "false" (lowercase)',
            ),
            (f"?asset_id={'0' * 64}&limit=0", "limit", "A page has from 1 to 10000 items, not '0'"),
            (f"?asset_id={'0' * 64}&limit=10001", "limit", "A page has from 1 to 10000 items, not '10001'"),
            (f"?asset_id={'0' * 64}&limit=x", "limit", "A page has from 1 to 10000 items, not 'x'"),
        ):
            reply = await world.get(TRANSACTIONS + query)
            assert (reply.status, reply.json()) == (400, {"message": {argument: text}}), query
        for cursor in ("", "x", "%00", "é", "A" * 500):
            reply = await world.get(f"{TRANSACTIONS}?asset_id={'0' * 64}&after={cursor}")
            assert (reply.status, list(reply.json()["message"])) == (400, ["after"])


class TestOutputs:
    async def test_spent_and_unspent(self, world: World) -> None:
        first = create(recipients=[([alice.public_key], 3), ([alice.public_key, bob.public_key], 4)])
        moved = transfer([(first, 0)], [([bob.public_key], 3)])
        await world.commit(first, moved)

        def place(signed: Signed, index: int) -> dict[str, object]:
            return {"transaction_id": signed.tx["id"], "output_index": index}

        for key, spent, expected in (
            (alice, None, [place(first, 0), place(first, 1)]),
            (alice, "True", [place(first, 0)]),
            (alice, "false", [place(first, 1)]),
            (bob, None, [place(first, 1), place(moved, 0)]),
            (carol, None, []),
        ):
            arguments = {"public_key": key.public_key} | ({} if spent is None else {"spent": spent})
            for path in ("/api/v1/outputs", "/api/v1/outputs/"):
                reply = await world.get(path, **arguments)
                assert reply.json() == expected

    async def test_pages(self, world: World) -> None:
        first = create(recipients=[([alice.public_key], 1)] * 7)
        await world.commit(first)
        reply = await world.get("/api/v1/outputs", public_key=alice.public_key, spent="false", limit=3)
        seen = reply.json()
        while "link" in reply.headers:
            reply = await world.get(reply.next)
            seen += reply.json()
        assert [item["output_index"] for item in seen] == list(range(7))

    async def test_arguments_are_checked(self, world: World) -> None:
        key = alice.public_key
        for query, message in (
            ("", {"public_key": MISSING}),
            ("?public_key=", {"public_key": "Invalid base58 ed25519 key"}),
            (f"?public_key={key[:-1]}l", {"public_key": "Invalid base58 ed25519 key"}),
            (f"?public_key={'1' * 45}", {"public_key": "Invalid base58 ed25519 key"}),
            (
                f"?public_key={key}&spent=yes",
                {"spent": 'Boolean value must be "true" or "false" (lowercase)'},
            ),
            (f"?public_key={key}&foo=1&bar=2&foo=3", "Unknown arguments: foo, bar"),
            (f"?foo=1&public_key={key}&%00=", "Unknown arguments: foo, \0"),
        ):
            reply = await world.get("/api/v1/outputs" + query)
            assert (reply.status, reply.json()) == (400, {"message": message}), query

    async def test_a_text_that_only_looks_like_a_key_has_no_outputs(self, world: World) -> None:
        reply = await world.get("/api/v1/outputs", public_key="z" * 44)
        assert (reply.status, reply.body) == (200, b"[]")
        assert (await world.get("/api/v1/outputs", public_key=encode_key(b"\xff" * 32))).body == b"[]"


class TestBlocks:
    async def test_by_height_and_the_newest(self, world: World) -> None:
        assert (await world.get("/api/v1/blocks/latest")).status == 404
        chain = await history(world, 1)
        for path, height in (("1", 1), ("2/", 2), ("latest", 2), ("latest/", 2), ("0001", 1)):
            body = (await world.get(f"/api/v1/blocks/{path}")).json()
            assert body["height"] == height
            assert body["transactions"] == [chain[height - 1].tx]
            assert list(body)[:2] == ["height", "transactions"]
            assert re.fullmatch(r"[0-9a-f]{64}", body["hash"])
            assert re.fullmatch(r"[0-9a-f]{64}", body["app_hash"])
            assert body["time"].endswith("Z")

    async def test_heights_that_are_none(self, world: World) -> None:
        await history(world, 0)
        assert (await world.get("/api/v1/blocks/0")).body == b"[]"
        for text in ("2", "9" * 19, "9" * 500):
            reply = await world.get(f"/api/v1/blocks/{text}")
            assert (reply.status, reply.json()) == (404, NOT_FOUND)
        for text in ("abc", "-1", "+1", "1.0", "1e3", "%00", "%31%20", "٣"):
            reply = await world.get(f"/api/v1/blocks/{text}")
            assert reply.status == 404
            assert reply.headers["content-type"].startswith("text/html")

    async def test_of_a_transaction(self, world: World) -> None:
        chain = await history(world, 1)
        for text, expected in ((chain[1].tx["id"], [2]), ("0" * 64, []), ("", []), ("nonsense\0", [])):
            reply = await world.get("/api/v1/blocks", transaction_id=text)
            assert reply.json() == expected
        reply = await world.get("/api/v1/blocks")
        assert (reply.status, reply.json()) == (400, {"message": {"transaction_id": MISSING}})
        reply = await world.get("/api/v1/blocks/?transaction_id=1&x=2")
        assert (reply.status, reply.json()) == (400, {"message": "Unknown arguments: x"})


class TestNode:
    async def test_the_index_pages(self, world: World) -> None:
        streams = "ws://node.example:9984/api/v1/streams/valid_transactions"
        docs = "https://docs.bigchaindb.com/projects/server/en/v2.2.2/"
        headers = {"host": "node.example:9984"}
        expected = {
            "assets": "/assets/",
            "blocks": "/blocks/",
            "docs": docs + "http-client-server-api.html",
            "metadata": "/metadata/",
            "outputs": "/outputs/",
            "streams": streams,
            "transactions": "/transactions/",
            "validators": "/validators",
        }
        for path in ("/api/v1", "/api/v1/"):
            assert (await world.request("GET", path, headers=headers)).json() == expected
        unprefixed = {"docs", "streams"}
        assert (await world.request("GET", "/", headers=headers)).json() == {
            "api": {
                "v1": {
                    name: value if name in unprefixed else "/api/v1" + value
                    for name, value in expected.items()
                }
            },
            "docs": docs,
            "software": "BigchainDB",
            "version": "2.2.2",
        }

    async def test_the_stream_is_named_as_the_client_sees_the_server(self, world: World) -> None:
        headers = {"host": "a.b", "x-forwarded-proto": "https"}
        reply = await world.request("GET", "/api/v1", headers=headers)
        assert reply.json()["streams"] == "wss://a.b/api/v1/streams/valid_transactions"
        reply = await world.request("GET", "/api/v1", headers=headers, client="10.0.0.1")
        assert reply.json()["streams"] == "ws://a.b/api/v1/streams/valid_transactions"
        reply = await world.get("/api/v1")
        assert reply.json()["streams"] == "ws://localhost:9984/api/v1/streams/valid_transactions"

    async def test_validators(self, world: World) -> None:
        for path in ("/api/v1/validators", "/api/v1/validators/"):
            (validator,) = (await world.get(path)).json()
            assert list(validator) == ["public_key", "voting_power"]
            assert list(validator["public_key"]) == ["type", "value"]
            assert validator["public_key"]["type"] == "ed25519-base64"
            assert len(validator["public_key"]["value"]) == 44
            assert validator["voting_power"] > 0

    async def test_health(self, world: World) -> None:
        assert (await world.get("/health/live")).json()["status"] == "live"
        await history(world, 1)
        body = (await world.get("/health/ready/")).json()
        assert body["status"] == "ready"
        assert body["height"] == 2
        assert body["chain_id"] == "test-chain"
        await world.node.drain()
        world.services.link.close()
        await world.services.link.wait_closed()
        reply = await world.get("/health/ready")
        assert (reply.status, reply.json()["status"]) == (503, 503)
        assert (await world.get("/health/live")).status == 200

    async def test_figures(self, world: World) -> None:
        chain = await history(world, 1)
        await world.get(f"{TRANSACTIONS}/{chain[0].tx['id']}")
        reply = await world.get("/metrics")
        assert reply.status == 200
        assert reply.headers["content-type"].startswith("text/plain")
        text = reply.body.decode()
        assert "\nbcdb_height 2.0\n" in text
        assert "\nbcdb_transactions_committed_total 2.0\n" in text
        assert re.search(r'bcdb_http_requests_total\{route="fetch",status="200"\} [1-9]', text)
        assert re.search(r'bcdb_http_request_seconds_bucket\{le="0.005",route="submit"\} ', text)
