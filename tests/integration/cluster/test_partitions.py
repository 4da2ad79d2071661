"""Networks that fall apart: the larger part goes on, no part goes astray, and together they are one again.

The wires between the nodes are proxies of the test. A validator without a majority still takes transactions
and keeps them until it has one.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence

import pytest

from bcdb.model.keys import KeyPair
from tests.integration.cluster.scene import Cluster, Load, fresh
from tests.support.proxies import Wires
from tests.support.transactions import Signed, bob, carol, transfer

VALIDATORS = 4
AHEAD = 3
"""Blocks that the larger part makes while another one is away."""
STILL_S = 2.0
"""So long nothing may be committed where there is no majority; a block takes a tenth of it."""
SLOW_S = 0.02
ROUNDS, ROUNDS_LONG = 1, 30
FAULT_S, FAULT_S_LONG = (0.2, 0.8), (0.2, 10.0)


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Wires]]:
    made = Cluster(tmp_path_factory.mktemp("parts") / "net", VALIDATORS)
    with Wires(made) as wires, made as running:
        yield running, wires
        running.stop()
        running.assert_clean(*range(VALIDATORS))


@pytest.fixture
def net(wired: tuple[Cluster, Wires]) -> Cluster:
    return wired[0]


@pytest.fixture
def wires(wired: tuple[Cluster, Wires]) -> Iterator[Wires]:
    """Healed before and after; what a test leaves is whole."""
    net, found = wired
    yield found
    found.heal()
    net.assert_whole()


def post(net: Cluster, number: int, *transactions: Signed) -> list[str]:
    """Each is taken there. Returns their ids."""
    for signed in transactions:
        status, said = net.nodes[number].post(signed.raw, mode="async")
        assert status == 202, said
    return [signed.tx["id"] for signed in transactions]


def assert_pending(net: Cluster, number: int, ids: Sequence[str]) -> None:
    words = [net.nodes[number].get(f"/api/v1/transactions/{at}/status")["status"] for at in ids]
    assert words == ["pending"] * len(ids)


def is_unknown(net: Cluster, number: int, identity: str) -> bool:
    return net.nodes[number].request("GET", f"/api/v1/transactions/{identity}/status")[0] == 404


def sold(net: Cluster, *receivers: KeyPair) -> list[Signed]:
    """A fresh asset, known everywhere, and its sales to each of these."""
    asset = fresh()
    net.settled(post(net, 0, asset))
    return [transfer([(asset, 0)], [([receiver.public_key], 1)]) for receiver in receivers]


def still(net: Cluster) -> dict[int, int]:
    """The heights once they stay: one side may have heard of a block that the other has helped to decide."""
    while True:
        before = net.heights()
        time.sleep(STILL_S / 4)
        if net.heights() == before:
            return before


def test_two_and_two_commit_nothing(net: Cluster, wires: Wires) -> None:
    left, right = sold(net, bob, carol)
    wires.part([0, 1], [2, 3])
    before = still(net)
    taken = [*post(net, 0, *[fresh() for _ in range(5)]), *post(net, 2, *[fresh() for _ in range(5)])]
    taken += [*post(net, 1, left), *post(net, 3, right)]
    time.sleep(STILL_S)
    assert net.heights() == before, "two of four are no majority"
    assert_pending(net, 0, taken[:5])
    assert_pending(net, 2, taken[5:10])
    wires.heal()
    fates = net.settled(taken)
    words = [fates.pop(signed.tx["id"])["status"] for signed in (left, right)]
    assert sorted(words) == ["committed", "rejected"], "one of two sales, on whichever side it was"
    assert {fate["status"] for fate in fates.values()} == {"committed"}


def test_one_that_hears_and_is_not_heard(net: Cluster, wires: Wires) -> None:
    """And one that is heard and does not hear: the other three are still more than two thirds."""
    wires.hold([3], [0, 1, 2])
    taken = post(net, 3, fresh())
    status, said = net.nodes[0].post(fresh().raw)
    assert status == 202, said
    assert_pending(net, 3, taken)
    wires.heal()
    net.settled(taken)
    wires.hold([0, 1, 2], [3])
    status, said = net.nodes[1].post(fresh().raw)
    assert status == 202, said
    wires.heal()
    net.wait_same_height()


def test_slow_wires(net: Cluster, wires: Wires) -> None:
    wires.slow(SLOW_S)
    net.assert_commits()


async def test_faults_come_and_go_under_load(
    net: Cluster, wires: Wires, request: pytest.FixtureRequest
) -> None:
    rounds, kinds, seconds = ROUNDS, ["part", "hold"], FAULT_S
    if request.config.getoption("--long"):
        rounds, kinds, seconds = ROUNDS_LONG, ["part", "hold", "cut"], FAULT_S_LONG
    luck = random.Random(26)
    async with Load(net, range(VALIDATORS)) as load:
        for _ in range(rounds):
            numbers = luck.sample(range(VALIDATORS), VALIDATORS)
            lesser, kind = luck.choice((1, 2)), luck.choice(kinds)
            wires.slow(luck.choice((0.0, SLOW_S)))
            getattr(wires, kind)(numbers[:lesser], numbers[lesser:])
            await asyncio.sleep(luck.uniform(*seconds))
            wires.heal()
            await asyncio.sleep(luck.uniform(*seconds))
    await load.check()
    assert load.accepted > 0


async def test_one_is_cut_off_under_load(net: Cluster, wires: Wires) -> None:
    lone, most = 3, (0, 1, 2)
    ours, theirs = await asyncio.to_thread(sold, net, bob, carol)
    async with Load(net, most) as load:
        await asyncio.to_thread(wires.cut, [lone], most)
        taken = await asyncio.to_thread(post, net, lone, *[fresh() for _ in range(20)], ours)
        height = net.heights()[lone]
        await asyncio.to_thread(post, net, 0, theirs)
        await asyncio.to_thread(net.wait_height, height + AHEAD, *most)
        assert net.heights()[lone] <= height + 1, "it has no say, and hears nothing"
        assert_pending(net, lone, taken)
        assert is_unknown(net, 0, taken[0])
        wires.heal()
        fates = await asyncio.to_thread(net.settled, [*taken, theirs.tx["id"]])
    assert fates[theirs.tx["id"]]["status"] == "committed"
    lost = fates.pop(ours.tx["id"])
    assert (lost["status"], lost["error"]["name"]) == ("rejected", "DoubleSpend")
    assert {fate["status"] for fate in fates.values()} == {"committed"}
    await load.check()
    assert load.accepted > 0
