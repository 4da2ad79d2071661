"""One transaction, or two that exclude each other, at several nodes at once; and one node after the other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.integration.cluster.conftest import OBSERVER
from tests.integration.cluster.scene import Cluster, fresh
from tests.support.transactions import Signed, alice, bob, carol, transfer

TIMES, TIMES_LONG = 3, 100


def post_at_once(net: Cluster, *posts: tuple[int, Signed], mode: str = "async") -> list[tuple[int, Any]]:
    """Post each at its node, all in the same moment."""
    with ThreadPoolExecutor(len(posts)) as threads:
        sent = [threads.submit(net.nodes[number].post, made.raw, mode) for number, made in posts]
        return [one.result() for one in sent]


def status_at(net: Cluster, number: int, made: Signed) -> dict[str, Any]:
    found = net.nodes[number].get(f"/api/v1/transactions/{made.tx['id']}/status")
    assert isinstance(found, dict)
    return found


def committed(net: Cluster, number: int = 0) -> Signed:
    """An asset of alice's that this node has."""
    made = fresh()
    assert net.nodes[number].post(made.raw)[0] == 202
    return made


@pytest.fixture
def times(request: pytest.FixtureRequest) -> int:
    return TIMES_LONG if request.config.getoption("--long") else TIMES


def test_one_transaction_posted_everywhere_is_committed_once(net: Cluster, times: int) -> None:
    made = [fresh() for _ in range(times)]
    for each in made:
        answers = post_at_once(net, *((number, each) for number in range(len(net.nodes))))
        for status, said in answers:
            # A node that has met it in a block already says that it exists.
            assert status == 202 or (status == 400 and "already exists" in said["message"]), answers
        assert 202 in [status for status, _ in answers]
    fates = net.settled(each.tx["id"] for each in made)
    assert {fate["status"] for fate in fates.values()} == {"committed"}
    for each in made:
        blocks = net.nodes[1].get(f"/api/v1/blocks?transaction_id={each.tx['id']}")
        assert blocks == [fates[each.tx["id"]]["height"]]
        places = [status_at(net, number, each) for number in range(len(net.nodes))]
        assert all(place == places[0] for place in places), places


def test_of_two_that_spend_one_output_one_is_committed(net: Cluster, times: int) -> None:
    outcomes = set()
    for turn in range(times):
        source = committed(net)
        net.settled([source.tx["id"]])
        rivals = [
            transfer([(source, 0)], [([who.public_key], 1)], metadata={"to": name})
            for name, who in (("bob", bob), ("carol", carol))
        ]
        places = (turn % 4, (turn + 1) % 5)
        answers = post_at_once(net, *zip(places, rivals, strict=True))
        taken = [
            (number, rival)
            for number, rival, (status, _) in zip(places, rivals, answers, strict=True)
            if status == 202
        ]
        for status, said in answers:
            assert status == 202 or (status == 400 and "DoubleSpend" in said["message"]), answers
        net.settled(rival.tx["id"] for _, rival in taken)
        fates = [status_at(net, number, rival) for number, rival in taken]
        words = sorted(fate["status"] for fate in fates)
        assert words in (["committed"], ["committed", "rejected"]), fates
        for fate in fates:
            if fate["status"] == "rejected":
                assert fate["error"]["name"] == "DoubleSpend", fate
                assert source.tx["id"] in fate["error"]["text"], fate
        outcomes.add(len(taken))
        spent = net.nodes[2].get(f"/api/v1/outputs?public_key={alice.public_key}&spent=true")
        assert {"transaction_id": source.tx["id"], "output_index": 0} in spent
    assert outcomes & {2}, "no conflict was met by two nodes"


def test_who_does_not_vote_takes_what_is_written(net: Cluster) -> None:
    ready = net.nodes[OBSERVER].get("/health/ready")
    assert not ready["validator"]
    made = fresh()
    assert net.nodes[OBSERVER].post(made.raw)[0] == 202
    assert status_at(net, OBSERVER, made)["status"] == "committed"
    assert net.settled([made.tx["id"]])[made.tx["id"]]["status"] == "committed"


def test_what_was_written_at_one_node_is_spent_at_another(net: Cluster, times: int) -> None:
    """With the height of the one, the other need not be waited for."""
    for turn in range(times * 2):
        here, there = turn % 5, (turn + 2) % 5
        source = committed(net, here)
        height = status_at(net, here, source)["height"]
        sold = transfer([(source, 0)], [([bob.public_key], 1)])
        status, body = net.nodes[there].request(
            "POST", f"/api/v1/transactions?mode=commit&min_height={height}", sold.raw
        )
        assert status == 202, body
        assert status_at(net, there, sold)["height"] > height
