"""Posting a transaction: modes, echoes, refusals, the shapes and texts of errors, limits on the body."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from bcdb.model import limits
from bcdb.model.errors import InvalidJson, Overloaded, Unavailable
from bcdb.node.protocol import Settled
from tests.http.world import TRANSACTIONS, World
from tests.support.transactions import Signed, alice, bob, carol, create, transfer

UNREADABLE = "The browser (or proxy) sent a request that this server could not understand."


async def wait_settled(world: World, *transactions: Signed) -> None:
    for transaction in transactions:
        await world.services.link.settled(transaction.verified.id, 10)


async def test_a_valid_transaction_is_echoed(world: World) -> None:
    for number, query in enumerate(("", "?mode=async", "?mode=sync", "?mode=commit")):
        for slash in ("", "/"):
            signed = create(asset={"name": "Zürich", "n": number, "slash": slash})
            reply = await world.request("POST", f"{TRANSACTIONS}{slash}{query}", signed.raw)
            assert reply.status == 202
            assert reply.json() == signed.tx
            assert reply.headers["content-type"] == "application/json"
            assert reply.headers["access-control-allow-origin"] == "*"


async def test_any_spelling_of_the_body_is_taken_and_the_canonical_one_is_kept(world: World) -> None:
    signed = create(asset={"b": 1, "a": ["é", 2.5]})
    spelling = json.dumps(dict(reversed(signed.tx.items())), indent=2, ensure_ascii=True).encode()
    reply = await world.request(
        "POST", TRANSACTIONS + "?mode=commit", spelling, {"content-type": "application/x-www-form-urlencoded"}
    )
    assert reply.status == 202
    found = await world.get(f"{TRANSACTIONS}/{signed.tx['id']}")
    assert found.status == 200
    assert found.body == signed.raw


async def test_after_commit_every_read_sees_it(world: World) -> None:
    signed = create()
    await world.commit(signed)
    assert (await world.get(f"{TRANSACTIONS}/{signed.tx['id']}")).body == signed.raw
    assert (await world.get("/api/v1/outputs", public_key=alice.public_key)).json() == [
        {"transaction_id": signed.tx["id"], "output_index": 0}
    ]
    assert (await world.get("/api/v1/blocks", transaction_id=signed.tx["id"])).json() == [1]


async def test_a_transaction_that_is_there_is_a_duplicate_in_every_mode(world: World) -> None:
    first = create()
    await world.commit(first)
    moved = transfer([(first, 0)], [([bob.public_key], 1)])
    assert (await world.post(moved)).status == 202
    await wait_settled(world, moved)
    for again in (first, moved):
        for mode in ("", "sync", "commit"):
            reply = await world.post(again, mode)
            assert reply.status == 400
            assert reply.json() == {
                "message": "Invalid transaction (DuplicateTransaction): "
                f"transaction `{again.tx['id']}` already exists",
                "status": 400,
            }


async def test_a_double_spend_is_refused(world: World) -> None:
    first = create()
    await world.commit(first, transfer([(first, 0)], [([bob.public_key], 1)]))
    reply = await world.post(transfer([(first, 0)], [([carol.public_key], 1)]))
    assert reply.status == 400
    assert reply.json()["message"].startswith("Invalid transaction (DoubleSpend): ")


async def test_what_is_only_pending_can_not_be_spent(world: World) -> None:
    first = create()
    accepting = world.services.link.submit_nowait(first.verified)
    reply = await world.post(transfer([(first, 0)], [([bob.public_key], 1)]))
    await accepting
    assert reply.status in (202, 400)
    if reply.status == 400:
        assert reply.json()["message"].startswith("Invalid transaction (InputDoesNotExist): ")


def changed(signed: Signed, **fields: Any) -> bytes:
    return json.dumps({**signed.tx, **fields}).encode()


async def test_rules_are_told_as_the_reference_tells_them(world: World) -> None:
    signed = create()
    without_id = {name: value for name, value in signed.tx.items() if name != "id"}
    for body, message in (
        (json.dumps(without_id).encode(), "Invalid transaction (InvalidHash): No transaction id found!"),
        (
            changed(signed, id="a" * 64),
            f"Invalid transaction (InvalidHash): The transaction's id '{'a' * 64}' isn't equal to the hash "
            "of its body, i.e. it's not valid.",
        ),
    ):
        reply = await world.post(body)
        assert reply.status == 400
        assert reply.body == f'{{"message":{json.dumps(message)},"status":400}}'.encode()


async def test_what_is_no_json_gets_the_text_for_that(world: World) -> None:
    for body in (b"", b"{", b"nonsense", b"\xff\xfe", b"[1,", b'{"a":1}}', b"\0", b"'a'"):
        reply = await world.post(body)
        assert (reply.status, reply.json()) == (400, {"message": UNREADABLE})


async def test_what_the_reference_fails_over_is_refused_with_a_sentence(world: World) -> None:
    for body in (
        *(b"[]", b'"text"', b"null", b"1", b"true", b"{}", b'{"id":7}', b'{"id":"abc"}', b'{"id":null}'),
        *(b'{"a":NaN}', b'{"a":Infinity}', b'{"a":"\\ud800"}', b'{"a":1,"a":2}', b'{"a":1e999}'),
        *(b'{"\\ud800":1}', b'{"a":' + b"9" * 400 + b"}", b'{"id":"' + b"0" * 63 + b'"}'),
        *(b"[" * 5000 + b"]" * 5000, b'{"a":' * 1000 + b"1" + b"}" * 1000),
    ):
        reply = await world.post(body)
        assert reply.status == 400
        assert reply.json()["status"] == 400
        assert list(reply.json()) == ["message", "status"]
        assert len(reply.json()["message"]) > 10


async def test_the_mode_is_looked_at_first(world: World) -> None:
    text = {"message": {"mode": 'Mode must be "async", "sync" or "commit"'}}
    for query in ("mode=Commit", "mode=", "mode=commit&mode=x", "mode=x&mode=commit", "mode=commit%20"):
        reply = await world.request("POST", f"{TRANSACTIONS}?{query}", b"{")
        assert (reply.status, reply.json()) == (400, text), query
    signed = create()
    reply = await world.request("POST", TRANSACTIONS + "?mode=commit&mode=async&other=1", signed.raw)
    assert reply.status == 202
    assert (await world.get(f"{TRANSACTIONS}/{signed.tx['id']}")).status == 200


async def test_the_mode_of_a_form_is_looked_at(world: World) -> None:
    form = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    reply = await world.request("POST", TRANSACTIONS, b"mode=never", form)
    assert (reply.status, list(reply.json()["message"])) == (400, ["mode"])
    reply = await world.request("POST", TRANSACTIONS, b"mode=commit", form)
    assert (reply.status, reply.json()) == (400, {"message": UNREADABLE})


async def test_a_body_that_is_announced_too_long_is_not_read(world: World) -> None:
    size = limits.TRANSACTION_BYTES_MAX + 1
    reply = await world.request("POST", TRANSACTIONS, [], {"content-length": str(size)})
    assert reply.status == 413
    assert reply.json()["status"] == 413
    assert str(limits.TRANSACTION_BYTES_MAX) in reply.json()["message"]
    assert str(size) in reply.json()["message"]


async def test_a_body_that_comes_in_pieces_is_bounded(world: World) -> None:
    signed = create()
    half = len(signed.raw) // 2
    reply = await world.request("POST", TRANSACTIONS, [signed.raw[:half], b"", signed.raw[half:]])
    assert reply.status == 202
    piece = b" " * 100_000
    reply = await world.request("POST", TRANSACTIONS, [piece] * 20)
    assert reply.status == 413


async def test_a_senseless_length_is_refused(world: World) -> None:
    for length in ("-1", "abc", "9" * 40, "1.5", "\u0661"):
        headers = [(b"content-length", length.encode())]
        assert (await world.request("POST", TRANSACTIONS, [b"{}"], headers)).status == 400


async def test_an_encoded_body_is_refused(world: World) -> None:
    reply = await world.request("POST", TRANSACTIONS, b"x", {"content-encoding": "gzip"})
    assert reply.status == 415
    signed = create()
    reply = await world.request("POST", TRANSACTIONS, signed.raw, {"content-encoding": "identity"})
    assert reply.status == 202


async def test_commit_that_takes_too_long_says_where_to_ask(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "COMMIT_WAIT_S_MAX", 0.3)
    release = asyncio.Event()
    monkeypatch.setattr(world.node._bundler, "add", lambda _: release.set())
    signed = create()
    reply = await world.post(signed, "commit")
    assert release.is_set()
    assert reply.status == 504
    assert reply.json()["status"] == 504
    assert f"{TRANSACTIONS}/{signed.tx['id']}/status" in reply.json()["message"]
    status = await world.get(f"{TRANSACTIONS}/{signed.tx['id']}/status")
    assert status.json() == {"id": signed.tx["id"], "status": "pending"}
    assert "(DuplicateTransaction)" in (await world.post(signed)).json()["message"]


async def test_a_transaction_that_is_rejected_later_tells_the_rule(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rejected(*_: Any) -> Settled:
        return Settled("rejected", 3, 0, "DoubleSpend", "input was already spent")

    monkeypatch.setattr(type(world.services.link), "submit_and_wait", rejected)
    reply = await world.post(create(), "commit")
    assert reply.json() == {
        "message": "Invalid transaction (DoubleSpend): input was already spent",
        "status": 400,
    }


@pytest.mark.parametrize(
    ("error", "status"),
    [(Overloaded("full"), 429), (Unavailable("gone"), 503), (InvalidJson("odd"), 400)],
)
async def test_errors_of_the_node_have_their_status(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def refuse(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(type(world.services.link), "submit_nowait", refuse)
    reply = await world.post(create())
    assert reply.status == status
    assert reply.json() == {"message": str(error), "status": status}
    assert ("retry-after" in reply.headers) == (status in (429, 503))


class TestWriteKeys:
    """A node that takes only what certain keys issued."""

    async def test_only_their_assets_are_taken(self, tmp_path: Path) -> None:
        async with World(tmp_path / "node", write_keys=(alice.public_key,)) as world:
            own, foreign = create(alice), create(bob)
            await world.commit(own)
            reply = await world.post(foreign)
            assert reply.status == 403
            assert reply.json()["status"] == 403
            assert (await world.post(create([alice, bob]))).status == 403
            await world.services.link.submit(foreign.verified)
            await wait_settled(world, foreign)
            moved = transfer([(own, 0)], [([bob.public_key], 1)])
            await world.commit(moved)
            await world.commit(transfer([(moved, 0)], [([carol.public_key], 1)], asset_id=own.tx["id"]))
            for _ in range(2):
                reply = await world.post(transfer([(foreign, 0)], [([alice.public_key], 1)]))
                assert reply.status == 403

    async def test_a_transfer_of_what_is_not_there_is_left_to_the_node(self, tmp_path: Path) -> None:
        async with World(tmp_path / "node", write_keys=(alice.public_key,)) as world:
            reply = await world.post(transfer([(create(bob), 0)], [([alice.public_key], 1)]))
            assert reply.status == 400
            assert "InputDoesNotExist" in reply.json()["message"]
