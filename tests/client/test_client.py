"""Both clients against odd answers: what is tried again, what counts as success, which error comes out."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest

from bcdb.client import (
    AsyncClient,
    BadRequest,
    Client,
    NotAllowed,
    NotFound,
    NotSettled,
    Overloaded,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
)
from bcdb.model import errors
from bcdb.model.validation import verify
from tests.client.answers import Caller, Script, refuse, say
from tests.support.transactions import alice, bob, create

TX = create(asset={"bicycle": "red"})
ID = TX.tx["id"]
TIME = "2025-01-31T12:00:00.000000001Z"
COMMITTED = say(200, {"id": ID, "status": "committed", "height": 3, "position": 0, "time": TIME})
Make = Callable[..., Caller]


def test_send(client: Make) -> None:
    script = Script(say(202, TX.tx))
    assert client(script).send(TX.tx) == TX.tx
    (request,) = script.requests
    assert str(request.url) == "http://node:1/api/v1/transactions?mode=commit"
    assert request.headers["content-type"] == "application/json"
    assert verify(request.content).id.hex() == ID


def test_addresses_are_taken_with_and_without_the_path_of_the_api(client: Make) -> None:
    for url in ("http://node:1/", "http://node:1/api/v1", "http://node:1/api/v1/"):
        script = Script(say(200, TX.tx))
        client(script, url).transaction(ID)
        assert str(script.requests[0].url) == f"http://node:1/api/v1/transactions/{ID}"


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut off"),
        say(429, {"message": "full", "status": 429}, retry_after="0"),
        say(503, {"message": "stopping", "status": 503}),
        say(503, b"<html>", retry_after="soon"),
    ],
    ids=lambda trouble: str(getattr(trouble, "status_code", type(trouble).__name__)),
)
def test_trouble_is_tried_again(client: Make, trouble: Any) -> None:
    script = Script(trouble, trouble, say(202, TX.tx))
    assert client(script).send(TX.tx, mode="sync") == TX.tx
    assert len(script.requests) == 3


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (httpx.ConnectError("refused"), Unreachable),
        (say(429, {"message": "full", "status": 429}, retry_after="1"), Overloaded),
        (say(503, {"message": "stopping", "status": 503}), Unavailable),
        (say(429, {"message": "full", "status": 429}, retry_after="86400"), Overloaded),
    ],
    ids=["refused", "full", "stopping", "tomorrow"],
)
def test_trouble_that_stays_is_an_error_in_time(client: Make, trouble: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        client(Script(trouble), timeout_s=0.5).transaction(ID)


def test_a_duplicate_of_its_own_retry_is_success(client: Make) -> None:
    duplicate = refuse("DuplicateTransaction", f"transaction `{ID}` already exists")
    script = Script(httpx.ReadTimeout("slow"), duplicate)
    assert client(script).send(TX.tx, mode="async")["id"] == ID
    script = Script(say(503, b""), duplicate, say(200, {"id": ID, "status": "pending"}), COMMITTED)
    assert client(script).send(TX.tx, mode="commit")["id"] == ID
    assert len(script.requests) == 4


def test_a_duplicate_that_was_there_before_is_an_error(client: Make) -> None:
    duplicate = refuse("DuplicateTransaction", f"transaction `{ID}` already exists")
    for before in ([], [httpx.ConnectError("refused")], [say(429, b"", retry_after="0")]):
        with pytest.raises(errors.DuplicateTransaction, match="already exists"):
            client(Script(*before, duplicate)).send(TX.tx)


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (refuse("DoubleSpend", "input was spent"), errors.DoubleSpend, "input was spent"),
        (refuse("InvalidSignature", "two\nlines"), errors.InvalidSignature, "two\nlines"),
        (refuse("RuleOfTomorrow", "odd"), BadRequest, "RuleOfTomorrow: odd"),
        (
            say(400, {"message": "Invalid transaction schema: 'version' is missing", "status": 400}),
            errors.SchemaValidationError,
            "'version' is missing",
        ),
        (say(400, {"message": {"mode": "Mode must be"}}), BadRequest, "mode: Mode must be"),
        (say(404, {"message": "Not found", "status": 404}), NotFound, "Not found"),
        (say(413, b"<html>too large</html>"), BadRequest, "too large"),
        (say(403, {"message": "not for you", "status": 403}), NotAllowed, "not for you"),
        (say(500, b""), UnexpectedAnswer, "500"),
        (say(502, b"\xff\xfe bad gateway"), UnexpectedAnswer, "bad gateway"),
        (say(301, b"", location="/elsewhere"), UnexpectedAnswer, "301"),
        (say(400, b"[" * 100_000), BadRequest, r"\[\[\["),
        (say(400, {"message": "x" * 100_000}), BadRequest, r"xxx\.\.\.$"),
    ],
)
def test_refusals_by_name(client: Make, answer: Any, error: type[Exception], text: str) -> None:
    script = Script(answer)
    with pytest.raises(error, match=text):
        client(script).send(TX.tx)
    assert len(script.requests) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'{"status": "lost"}', b"\xff", b"[" * 100_000])
def test_answers_that_are_not_a_nodes(client: Make, body: bytes) -> None:
    with pytest.raises(UnexpectedAnswer):
        client(Script(say(200, body))).status(ID)


def test_what_is_no_json_is_not_sent(client: Make) -> None:
    script = Script(say(202))
    with pytest.raises(errors.InvalidJson):
        client(script).send(b"{")
    assert not script.requests


def test_not_committed_in_time_goes_on_waiting(client: Make) -> None:
    later = say(504, {"message": "accepted, not yet committed", "status": 504})
    script = Script(later, say(200, {"id": ID, "status": "pending"}), COMMITTED)
    assert client(script).send(TX.tx, mode="commit") == TX.tx
    assert [request.url.path.rpartition("/")[2] for request in script.requests] == [
        "transactions",
        "status",
        "status",
    ]


def test_wait(client: Make) -> None:
    pending = say(200, {"id": ID, "status": "pending"})
    told = {"id": ID, "status": "committed", "height": 7, "position": 2, "time": TIME}
    committed = say(200, {**told, "new": "field"})
    found = client(Script(pending, pending, committed)).wait(ID)
    assert msgspec.to_builtins(found) == told
    assert list(msgspec.to_builtins(client(Script(pending)).status(ID))) == ["id", "status"]
    reason = {"name": "DoubleSpend", "text": "lost to another"}
    rejected = say(200, {"id": ID, "status": "rejected", "height": 7, "error": reason})
    with pytest.raises(errors.DoubleSpend, match="lost to another"):
        client(Script(pending, rejected)).wait(ID)
    with pytest.raises(NotSettled, match=ID):
        client(Script(pending)).wait(ID, timeout_s=0.1)
    missing = say(404, {"message": "Not found", "status": 404})
    with pytest.raises(NotFound):
        client(Script(missing)).wait(ID)
    # Of several nodes only one may know it.
    urls = ("http://one:1", "http://two:2")
    assert client(Script(missing, committed), *urls).wait(ID).height == 7


def test_another_node_is_asked_at_once_and_kept(client: Make) -> None:
    def answer(request: httpx.Request) -> Any:
        return httpx.ConnectError("down") if request.url.host == "one" else say(200, [])

    script = Script(answer)
    caller = client(script, "http://one:1", "http://two:2")
    transport = httpx.MockTransport(script)
    if not caller.is_async:
        with Client(*caller.urls, transport=transport) as kept:
            for _ in range(3):
                kept.blocks_of(ID)
        assert [request.url.host for request in script.requests] == ["one", "two", "two", "two"]
    else:
        assert caller.blocks_of(ID) == []
        assert [request.url.host for request in script.requests] == ["one", "two"]


def test_batch(client: Make) -> None:
    second = create(asset={"bicycle": "blue"})
    lines = (
        f'{{"id":"{ID}","status":"committed","height":4,"position":0}}\n'
        '{"status":"refused","error":{"name":"InvalidSignature","text":"wrong"}}\n'
        '{"status":"refused","error":{"name":"NotAllowed","text":"not for you"}}\n'
        f'{{"id":"{ID}","status":"rejected","error":{{"name":"DoubleSpend","text":"lost"}}}}\n'
    )
    script = Script(say(200, lines.encode()))
    pretty = httpx.Response(200, json=second.tx).content.replace(b",", b",\r\n ")
    results = client(script).batch([TX.tx, pretty, TX.raw, TX.raw])
    assert [result.accepted for result in results] == [True, False, False, False]
    assert [result.status for result in results] == ["committed", "refused", "refused", "rejected"]
    assert isinstance(results[1].error, errors.InvalidSignature)
    assert isinstance(results[2].error, NotAllowed)
    assert isinstance(results[3].error, errors.DoubleSpend)
    (request,) = script.requests
    assert request.headers["content-type"] == "application/x-ndjson"
    sent = request.content.splitlines()
    assert [verify(line).id.hex() for line in sent] == [ID, second.tx["id"], ID, ID]


def test_a_batch_is_cut_into_requests_and_must_be_answered_whole(client: Make) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return say(200, b'{"status":"pending"}\n' * request.content.count(b"\n"))

    script = Script(answer)
    assert len(client(script).batch(TX.raw for _ in range(2_100))) == 2_100
    assert [request.content.count(b"\n") for request in script.requests] == [1_000, 1_000, 100]
    with pytest.raises(UnexpectedAnswer, match="1 of 2"):
        client(Script(say(200, b'{"status":"pending"}\n'))).batch([TX.raw, TX.raw])
    assert client(Script(say(200))).batch([]) == []


def test_pages(client: Make) -> None:
    link = '<http://node:1/api/v1/outputs?public_key=x&after=a%2Fb%3D>; rel="next"'
    rows = [{"transaction_id": ID, "output_index": 0}]
    script = Script(say(200, rows, link=link), say(200, rows))
    page = client(script).outputs(alice.public_key, spent=False, limit=1)
    assert (page.items[0].transaction_id, page.after) == (ID, "a/b=")
    assert dict(script.requests[0].url.params) == {
        "public_key": alice.public_key,
        "spent": "false",
        "limit": "1",
    }
    last = client(script).outputs(alice.public_key, after=page.after)
    assert script.requests[1].url.params["after"] == "a/b="
    assert last.after is None


def test_reading(client: Make) -> None:
    assert client(Script(say(200, [TX.tx]))).transactions(ID, operation="CREATE", newest=True).items == [
        TX.tx
    ]
    found = client(Script(say(200, [{"id": ID, "data": {"bicycle": "red"}}]))).search_assets("red -blue")
    assert found.items[0].data == {"bicycle": "red"}
    found = client(Script(say(200, [{"id": ID, "metadata": {"n": 1}}]))).search_metadata(
        '"a phrase"', limit=3
    )
    assert found.items[0].metadata == {"n": 1}
    told = {
        "height": 5,
        "transactions": [TX.tx],
        "time": TIME,
        "hash": "ab",
        "app_hash": "cd",
        "proposer": "ef",
    }
    assert msgspec.to_builtins(client(Script(say(200, told))).block(5)) == told
    assert client(Script(say(200, {"height": 5, "transactions": []}))).latest_block().height == 5
    validator = {"public_key": {"type": "ed25519-base64", "value": "AA=="}, "voting_power": 10}
    assert client(Script(say(200, [validator]))).validators()[0].voting_power == 10


def test_questions(client: Make) -> None:
    answer = {"height": 9, "documents": [{"id": ID, "amount": 2**62}], "next": "c"}
    script = Script(say(200, answer))
    found = client(script).find("outputs", {"amount": {"$gt": 5}}, sort={"amount": -1}, limit=2, min_height=9)
    assert (found.items, found.height, found.after) == (answer["documents"], 9, "c")
    (request,) = script.requests
    assert (request.method, request.url.path) == ("POST", "/api/v1/query/outputs")
    assert json.loads(request.content) == {
        "filter": {"amount": {"$gt": 5}},
        "sort": {"amount": -1},
        "limit": 2,
        "min_height": 9,
    }
    script = Script(say(200, {"height": 9, "documents": [{"total": 3}]}))
    grouped = client(script).aggregate("assets", [{"$count": "total"}])
    assert (grouped.items, grouped.height, grouped.after) == ([{"total": 3}], 9, None)
    assert script.requests[0].url.path == "/api/v1/query/assets/aggregate"
    with pytest.raises(BadRequest, match="MongoDB"):
        client(Script(say(400, {"message": "answered by MongoDB only", "status": 400}))).aggregate(
            "assets", []
        )
    told = {
        "kind": "sqlite",
        "height": 3,
        "ledger_height": 9,
        "lag_blocks": 6,
        "building": {"height": 3, "target": 8},
        "text_search": True,
        "counts": {"assets": 1},
    }
    assert msgspec.to_builtins(client(Script(say(200, told))).store()) == told


def test_history(client: Make) -> None:
    link = f'</api/v1/assets/{ID}/provenance?after=p>; rel="next"'
    script = Script(say(200, {"asset_id": ID, "height": 4, "transactions": [{"id": ID}]}, link=link))
    page = client(script).provenance(ID, at_height=4, limit=1)
    assert (page.items, page.height, page.after) == ([{"id": ID}], 4, "p")
    assert dict(script.requests[0].url.params) == {"at_height": "4", "limit": "1"}
    told = {"public_key": alice.public_key, "height": 4}
    lines = [{"asset_id": ID, "amount": str(10**20), "outputs": 12}]
    held = client(Script(say(200, {**told, "holdings": lines}))).holdings(alice.public_key, at_height=4)
    assert (held.items[0].amount, held.items[0].outputs, held.height) == (10**20, 12, 4)
    for amount in ("-1", "1.5", "", "9" * 101):
        lines[0]["amount"] = amount
        with pytest.raises(UnexpectedAnswer, match="amount"):
            client(Script(say(200, {**told, "holdings": lines}))).holdings(alice.public_key)
    assert client(Script(say(200, {"id": ID, "data": None}))).asset(ID)["data"] is None


def test_ids_do_not_change_the_path(client: Make) -> None:
    script = Script(say(200, TX.tx))
    client(script).transaction("../../metrics?x=1")
    assert script.requests[0].url.raw_path == b"/api/v1/transactions/..%2F..%2Fmetrics%3Fx%3D1"


def test_node_status(client: Make) -> None:
    live = say(200, {"status": "live", "version": "1.2.3"})
    ready = say(200, {"chain_id": "test", "height": 9, "pending": 1, "projected_height": 8})
    found = client(Script(live, ready)).node()
    assert (found.ready, found.version, found.chain_id, found.height) == (True, "1.2.3", "test", 9)
    more = {"app_hash": "ab", "engine": "cometbft", "peers": 3, "catching_up": True, "validator": True}
    told = {"chain_id": "test", "height": 9, "pending": 1, "projected_height": None, **more}
    found = client(Script(live, say(200, told))).node()
    assert {name: getattr(found, name) for name in more} == more
    found = client(Script(live, say(503, {"message": "The node process is gone", "status": 503}))).node()
    assert (found.ready, found.reason) == (False, "The node process is gone")
    with pytest.raises(Unreachable):
        client(Script(httpx.ConnectError("refused"))).node()


def test_create_and_transfer_sign_what_they_send(client: Make) -> None:
    script = Script(say(202))
    made = client(script).create(alice, asset={"n": 1}, recipients=[([alice.public_key], 5)])
    moved = client(script).transfer(alice, [(made, 0)], [([bob.public_key], 5)], mode="sync")
    verified = [verify(request.content) for request in script.requests]
    assert [each.id.hex() for each in verified] == [made["id"], moved["id"]]
    assert verified[1].asset_id == verified[0].id
    assert script.requests[1].url.params["mode"] == "sync"


def test_both_clients_offer_and_explain_the_same_calls() -> None:
    names = {name for name in vars(Client) if not name.startswith("_")}
    assert names == {name for name in vars(AsyncClient) if not name.startswith("_")}
    for name in names - {"close"}:
        assert getattr(Client, name).__doc__ == getattr(AsyncClient, name).__doc__
        assert getattr(Client, name).__doc__


def test_a_client_needs_an_address() -> None:
    with pytest.raises(ValueError, match="at least one node"):
        Client()
