"""A client of several nodes: what it has seen at one it sees at all, and what one node does not do another
one does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from bcdb.client import AsyncClient, Client, NotAllowed, NotFound, NotSettled, Unavailable, Unreachable
from bcdb.client.calls import Calls
from bcdb.client.steps import Lost, Request, Response, Road
from bcdb.model import errors
from bcdb.model.validation import verify
from tests.client.answers import Caller, Clock, Network, Script, drive, refuse, say
from tests.support.transactions import alice, create

TX = create(asset={"bicycle": "red"})
ID = TX.tx["id"]
TIME = "2025-01-31T12:00:00.000000001Z"
TAKEN = say(202, TX.tx)
IN_7 = say(202, TX.tx, bcdb_height="7")
PENDING = say(200, {"id": ID, "status": "pending"})
COMMITTED = say(200, {"id": ID, "status": "committed", "height": 7, "position": 0, "time": TIME})
REASON = {"name": "DoubleSpend", "text": "lost to another"}
REJECTED = say(200, {"id": ID, "status": "rejected", "height": 7, "error": REASON})
MISSING = say(404, {"message": "Not found", "status": 404})
LATE = say(504, {"message": "accepted, not yet committed", "status": 504})
BEHIND = say(503, {"message": "at height 3", "status": 503}, bcdb_height="3", retry_after="0")
DUPLICATE = refuse("DuplicateTransaction", f"transaction `{ID}` already exists")
DOWN = httpx.ConnectError("refused")
CUT = httpx.ReadError("cut off")
Make = Callable[..., Caller]


def knowing(post: httpx.Response, status: httpx.Response, *before: Any) -> Script:
    """A node that says always the same to posts, and the same to questions."""
    return Script(*before, lambda request: post if request.method == "POST" else status)


def paths(script: Script) -> list[str]:
    """Method and last part of the path of each request."""
    return [f"{request.method} {request.url.path.rpartition('/')[2]}" for request in script.requests]


class TestHeights:
    def test_what_one_node_told_is_asked_of_another(self, client: Make) -> None:
        network = Network(one=Script(IN_7, say(200, TX.tx), DOWN), two=Script(say(200, TX.tx)))
        found = client(network).each(
            lambda each: each.send(TX.tx),
            lambda each: each.transaction(ID),
            lambda each: each.transaction(ID),
            lambda each: each.transaction(ID),
            lambda each: each.height,
        )
        assert network.hosts == ["one", "one", "one", "two", "two"]
        assert network.told("one") == [None, None, None]
        assert network.told("two") == ["7", None], "and once it has answered it is known to be there"
        assert found[-1] == 7

    def test_every_call_of_the_ledger_carries_it(self, client: Make) -> None:
        answers = {
            "send": (lambda each: each.send(TX.tx), TAKEN),
            "batch": (lambda each: each.batch([TX.tx]), say(200, b'{"status":"pending"}\n')),
            "transaction": (lambda each: each.transaction(ID), say(200, TX.tx)),
            "status": (lambda each: each.status(ID), PENDING),
            "transactions": (lambda each: each.transactions(ID, after="c"), say(200, [])),
            "outputs": (lambda each: each.outputs(alice.public_key), say(200, [])),
            "asset": (lambda each: each.asset(ID), say(200, {})),
            "provenance": (lambda each: each.provenance(ID), say(200, {"height": 1, "transactions": []})),
            "holdings": (
                lambda each: each.holdings(alice.public_key),
                say(200, {"height": 1, "holdings": []}),
            ),
            "find": (lambda each: each.find("assets"), say(200, {"height": 1, "documents": []})),
            "search": (lambda each: each.search_assets("x"), say(200, [])),
            "block": (lambda each: each.block(1), say(200, {"height": 1})),
            "latest": (lambda each: each.latest_block(), say(200, {"height": 1})),
            "blocks": (lambda each: each.blocks_of(ID), say(200, [])),
        }
        for name, (call, answer) in answers.items():
            network = Network(two=Script(answer))
            client(network, min_height=9).each(call)
            assert network.told("two") == ["9"], name
        told = {"version": "1", "chain_id": "", "height": 1, "pending": 0}
        silent = {
            "later page": (lambda each: each.find("a", after="c"), say(200, {"height": 1, "documents": []})),
            "validators": (lambda each: each.validators(), say(200, [])),
            "node": (lambda each: each.node(), say(200, told)),
        }
        for name, (call, answer) in silent.items():
            network = Network(two=Script(answer))
            client(network, min_height=9).each(call)
            assert set(network.told("two")) == {None}, name

    def test_with_one_address_nothing_is_added(self, client: Make) -> None:
        script = Script(IN_7, say(200, TX.tx, bcdb_height="8"), COMMITTED, TAKEN)
        found = client(script).each(
            lambda each: each.send(TX.tx),
            lambda each: each.transaction(ID),
            lambda each: each.status(ID),
            lambda each: each.send(TX.tx),
            lambda each: each.height,
        )
        assert [request.url.query for request in script.requests] == [
            b"mode=commit",
            b"",
            b"",
            b"mode=commit",
        ]
        assert found[-1] == 8

    def test_a_height_is_handed_on(self, client: Make) -> None:
        script = Script(say(200, TX.tx))
        calls = [lambda each: each.transaction(ID), lambda each: each.height]
        assert client(script, min_height=9).each(*calls, *calls)[1::2] == [9, 9]
        assert [request.url.params.get("min_height") for request in script.requests] == ["9", None]
        for kind in (Client, AsyncClient):
            with pytest.raises(ValueError, match="min_height"):
                kind("http://node:1", min_height=-1)

    def test_where_heights_are_learnt(self, client: Make) -> None:
        batch = b'{"status":"pending"}\n{"status":"committed","height":12,"position":0}\n'
        for answer, call, height in (
            (say(200, [], bcdb_height="5"), lambda each: each.outputs(alice.public_key), 5),
            (COMMITTED, lambda each: each.status(ID), 7),
            (REJECTED, lambda each: each.status(ID), 7),
            (COMMITTED, lambda each: each.wait(ID), 7),
            (PENDING, lambda each: each.status(ID), 0),
            (say(200, batch), lambda each: each.batch([TX.tx, TX.tx]), 12),
        ):
            assert client(Script(answer)).each(call, lambda each: each.height)[1] == height
        for odd in ("x", "-1", "1.5", "", "\u0663", "9" * 19):
            header = {b"bcdb-height": odd.encode()}
            script = Script(httpx.Response(200, json=TX.tx, headers=header))
            assert client(script).each(lambda each: each.transaction(ID), lambda each: each.height)[1] == 0

    def test_threads_lose_no_height(self) -> None:
        road = Road(["http://one:1", "http://two:2"], timeout_s=1.0, clock=Clock())

        def learn(first: int) -> None:
            for height in range(first, 20_000, 4):
                road.learn(road.nodes[height % 2], height)
                assert road.height >= height

        threads = [threading.Thread(target=learn, args=[first]) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (road.height, road.nodes[0].height, road.nodes[1].height) == (19_999, 19_998, 19_999)


class TestNodesThatAreBehind:
    def test_another_one_is_asked(self, client: Make) -> None:
        behind = say(503, b"", bcdb_height="3", retry_after="1")
        network = Network(one=Script(IN_7, DOWN, say(200, [])), two=Script(behind))
        client(network).each(lambda each: each.send(TX.tx), lambda each: each.blocks_of(ID))
        assert network.hosts == ["one", "one", "two", "one"]
        assert network.told("two") == ["7"]

    def test_it_is_waited_for(self, client: Make) -> None:
        network = Network(one=Script(IN_7, DOWN), two=Script(BEHIND, BEHIND, TAKEN))
        client(network).each(lambda each: each.send(TX.tx), lambda each: each.send(TX.tx, mode="async"))
        assert network.told("two") == ["7", "7", "7"]

    def test_in_time(self, client: Make) -> None:
        network = Network(one=Script(IN_7, DOWN), two=Script(BEHIND))
        with pytest.raises((Unavailable, Unreachable)):
            client(network, timeout_s=0.5).each(
                lambda each: each.send(TX.tx), lambda each: each.transaction(ID)
            )

    def test_they_have_stored_nothing(self, client: Make) -> None:
        script = Script(BEHIND, DUPLICATE)
        with pytest.raises(errors.DuplicateTransaction):
            client(script, min_height=9).send(TX.tx)


class TestNodesThatHang:
    def test_others_get_their_share_of_the_time(self) -> None:
        clock = Clock()
        calls = Calls(["http://one:1", "http://two:2"], timeout_s=20.0, clock=clock)
        waits: list[tuple[str, float]] = []

        def node(request: Request) -> Response | Lost:
            waits.append((request.url[:10], request.timeout_s))
            if "one" in request.url:
                clock.now += request.timeout_s
                return Lost("timed out", sent=True)
            return Response(200, {}, TX.raw)

        assert drive(calls.transaction(ID), clock, node) == TX.tx
        assert drive(calls.transaction(ID), clock, node) == TX.tx
        assert waits == [("http://one", 15.0), ("http://two", 3.75), ("http://two", 15.0)]

    def test_all_of_them_end_in_time(self) -> None:
        for count in (1, 2, 5):
            clock = Clock()
            calls = Calls([f"http://node:{number}" for number in range(count)], timeout_s=20.0, clock=clock)
            started = clock.now

            def node(request: Request, clock: Clock = clock) -> Response | Lost:
                clock.now += request.timeout_s
                return Lost("timed out", sent=True)

            with pytest.raises(Unreachable):
                drive(calls.transaction(ID), clock, node)
            assert 20.0 <= clock.now - started <= 21.0

    def test_one_that_hangs_does_not_hold_up_a_wait(self) -> None:
        clock = Clock()
        calls = Calls(["http://one:1", "http://two:2"], timeout_s=20.0, clock=clock)
        started = clock.now

        def node(request: Request) -> Response | Lost:
            if "one" in request.url:
                clock.now += request.timeout_s
                return Lost("timed out", sent=True)
            return Response(404, {}, b"") if clock.now < started + 10 else _answered(COMMITTED)

        assert drive(calls.wait(ID), clock, node).height == 7
        assert clock.now - started < 14
        with pytest.raises((NotSettled, Unreachable)):
            drive(calls.wait("0" * 64, timeout_s=5.0), clock, lambda request: _lost(clock, request))
        assert clock.now - started < 22


def _answered(answer: httpx.Response) -> Response:
    return Response(answer.status_code, dict(answer.headers), answer.content)


def _lost(clock: Clock, request: Request) -> Lost:
    clock.now += request.timeout_s
    return Lost("timed out", sent=True)


class TestDoubt:
    @pytest.mark.parametrize("mode", ["async", "sync", "commit"])
    def test_a_duplicate_at_another_node_is_success(self, client: Make, mode: Any) -> None:
        network = Network(one=Script(CUT), two=Script(DUPLICATE, PENDING, COMMITTED))
        found = client(network).each(lambda each: each.send(TX.tx, mode=mode), lambda each: each.height)
        assert found == [TX.tx, 7 if mode == "commit" else 0]
        asked = ["POST transactions", "GET status", "GET status"]
        assert paths(network.nodes["two"]) == (asked if mode == "commit" else asked[:1])

    def test_a_duplicate_without_doubt_is_none(self, client: Make) -> None:
        for trouble in (DOWN, say(429, b"", retry_after="0"), BEHIND):
            network = Network(one=Script(trouble), two=Script(DUPLICATE))
            with pytest.raises(errors.DuplicateTransaction):
                client(network).send(TX.tx)

    def test_the_other_node_takes_it(self, client: Make) -> None:
        network = Network(one=Script(CUT), two=Script(IN_7))
        assert client(network).send(TX.tx) == TX.tx
        assert network.hosts == ["one", "two"]

    def test_what_one_refuses_another_may_have_taken(self, client: Make) -> None:
        for refused in (
            refuse("DoubleSpend"),
            refuse("InputDoesNotExist"),
            say(403, {"message": "not for you", "status": 403}),
        ):
            network = Network(one=Script(CUT, PENDING, COMMITTED), two=knowing(refused, MISSING))
            assert client(network).send(TX.tx) == TX.tx

    def test_what_nobody_has_taken_is_refused(self, client: Make) -> None:
        for refused, error in (
            (refuse("DoubleSpend"), errors.DoubleSpend),
            (say(403, {"message": "not for you", "status": 403}), NotAllowed),
        ):
            network = Network(one=Script(CUT, MISSING), two=knowing(refused, MISSING))
            with pytest.raises(error):
                client(network).send(TX.tx)
            network = Network(one=Script(CUT, REJECTED), two=knowing(refused, MISSING))
            with pytest.raises(errors.DoubleSpend, match="lost to another"):
                client(network).send(TX.tx)

    def test_what_is_wrong_by_itself_is_refused_at_once(self, client: Make) -> None:
        network = Network(one=Script(CUT), two=Script(refuse("InvalidSignature")))
        with pytest.raises(errors.InvalidSignature):
            client(network).send(TX.tx)
        network = Network(one=Script(CUT, refuse("DoubleSpend")))
        with pytest.raises(errors.DoubleSpend):
            client(network).send(TX.tx)
        assert paths(network.nodes["one"]) == ["POST transactions"] * 2, "the node itself knows best"

    def test_without_an_answer_of_the_first_nothing_is_sure(self) -> None:
        clock = Clock()
        calls = Calls(["http://one:1", "http://two:2"], timeout_s=5.0, clock=clock)
        double = _answered(refuse("DoubleSpend", "was already spent"))

        def node(request: Request) -> Response | Lost:
            if "one" in request.url:
                return Lost("cut off", sent=True)
            return double if request.method == "POST" else Response(404, {}, b"")

        with pytest.raises(NotSettled, match="was already spent"):
            drive(calls.send(TX.tx), clock, node)


class TestNodesThatDie:
    def test_what_one_accepted_is_found_at_another(self, client: Make) -> None:
        network = Network(one=Script(LATE, DOWN), two=Script(COMMITTED))
        assert client(network).send(TX.tx) == TX.tx
        assert network.hosts == ["one", "one", "two"]

    def test_what_another_does_not_know_it_is_given(self, client: Make) -> None:
        network = Network(
            one=Script(say(200, [], bcdb_height="5"), LATE, DOWN),
            two=Script(MISSING, say(503, b""), MISSING, BEHIND, MISSING, TAKEN, PENDING, COMMITTED),
        )
        client(network).each(lambda each: each.blocks_of(ID), lambda each: each.send(TX.tx))
        two = network.nodes["two"].requests
        posted = [request for request in two if request.method == "POST"]
        assert len(posted) == 3
        assert {verify(request.content).id.hex() for request in posted} == {ID}
        assert {request.url.params["mode"] for request in posted} == {"async"}
        assert {request.url.params["min_height"] for request in posted} == {"5"}
        assert not [request for request in two if request.method == "GET" and request.url.params]

    def test_one_address_is_given_nothing_twice(self, client: Make) -> None:
        script = Script(LATE, MISSING)
        with pytest.raises(NotFound, match=ID):
            client(script).send(TX.tx)
        assert paths(script) == ["POST transactions", "GET status"]

    def test_it_may_have_come_there_meanwhile(self, client: Make) -> None:
        network = Network(one=Script(LATE, DOWN), two=Script(MISSING, DUPLICATE, COMMITTED))
        assert client(network).send(TX.tx) == TX.tx

    def test_what_is_wrong_with_it_is_told(self, client: Make) -> None:
        network = Network(one=Script(LATE, DOWN), two=Script(MISSING, refuse("InvalidHash")))
        with pytest.raises(errors.InvalidHash):
            client(network).send(TX.tx)


class TestWait:
    def test_the_one_that_rejected_it_is_heard(self, client: Make) -> None:
        for before in ([], [DOWN], [say(503, b"", retry_after="0")]):
            network = Network(one=Script(*before, REJECTED), two=Script(MISSING))
            with pytest.raises(errors.DoubleSpend, match="lost to another"):
                client(network).wait(ID)

    def test_what_no_node_knows_is_not_found_at_once(self, client: Make) -> None:
        network = Network(one=Script(MISSING), two=Script(MISSING))
        with pytest.raises(NotFound, match=ID):
            client(network).wait(ID)
        assert network.hosts == ["one", "two"]

    def test_one_that_is_away_may_know_it(self, client: Make) -> None:
        network = Network(one=Script(DOWN), two=Script(MISSING, MISSING, COMMITTED))
        assert client(network).wait(ID).height == 7
        network = Network(one=Script(DOWN), two=Script(MISSING))
        with pytest.raises(NotSettled, match=ID):
            client(network).wait(ID, timeout_s=0.3)
        assert {request.method for request in network.nodes["two"].requests} == {"GET"}

    def test_no_height_is_waited_for(self, client: Make) -> None:
        network = Network(one=Script(COMMITTED))
        client(network, min_height=9).wait(ID)
        assert network.told("one") == [None]

    def test_a_name_that_is_no_id_does_not_change_the_path(self, client: Make) -> None:
        network = Network(one=Script(COMMITTED))
        client(network).wait("../x?y")
        assert network.nodes["one"].requests[0].url.raw_path == b"/api/v1/transactions/..%2Fx%3Fy/status"
