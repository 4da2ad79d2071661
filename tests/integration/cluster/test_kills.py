"""`kill -9` of every kind of process of a network under load, of whole nodes and of all of them at once.

What was answered 202 must end committed, planted conflicts as they must, the nodes agree, and commits go on
at every node; no CometBFT outlives its node.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from tests.integration.cluster.conftest import OBSERVER
from tests.integration.cluster.scene import Cluster, Load, engines_in, fresh, paused, until

KILLS_LONG = 40
KILLS_BETWEEN_CHECKS = 5
LOAD_S_MIN, LOAD_S_MAX = 0.2, 0.8
ENGINES = 3
"""How often in a row CometBFT is killed."""
STARTS, STARTS_LONG = 2, 25
START_S = 2.5
"""About what a node takes until it is ready."""
SPREAD_S = 0.6
"""A bundle is at all peers after a fraction of this."""


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def kill_process(name: str) -> Callable[[Cluster, int], None]:
    return lambda net, number: kill(net.nodes[number].processes()[name])


def kill_engine(net: Cluster, number: int) -> None:
    kill(net.engine_pid(number))


def kill_command(net: Cluster, number: int) -> None:
    """The supervisor alone: everything else of the node must end by itself."""
    server = net.nodes[number]
    server.kill_command_only()
    assert server.wait_gone(15.0) == []


def kill_all(net: Cluster, number: int) -> None:
    net.nodes[number].kill()


KINDS: dict[str, Callable[[Cluster, int], None]] = {
    "API worker": kill_process("worker-0"),
    "projector": kill_process("projector"),
    "CometBFT": kill_engine,
    "node process": kill_process("node"),
    "supervisor": kill_command,
    "all of a node": kill_all,
}


def strike(net: Cluster, kind: str, number: int) -> None:
    """Kill, and see to it that the node comes back."""
    before = net.engine_pid(number)
    KINDS[kind](net, number)
    if kind in ("node process", "supervisor", "all of a node"):
        # The CometBFT of a node process that is gone is gone, too, whoever starts the next one.
        until(lambda: before not in engines_in(net.nodes[number].home), "the CometBFT ends", 10.0)
    net.restart_if_ended(number, fsck=True)


def assert_back(net: Cluster, kind: str, number: int) -> None:
    """Commits go on everywhere, and the node has one CometBFT."""
    try:
        net.assert_commits()
    except AssertionError as error:
        raise AssertionError(f"after the {kind} of node {number} was killed: {error}") from None
    until(lambda: len(engines_in(net.nodes[number].home)) == 1, "one CometBFT runs", 10.0)


async def kill_under_load(
    net: Cluster, strikes: list[tuple[str, int]], moments: random.Random, *, resting: bool
) -> None:
    """On two of the nodes that are struck, and on one that may not be. `resting`: clients leave the two cores
    to a node that starts."""
    async with Load(net, sorted({strikes[0][1], strikes[-1][1], 3})) as load:
        for kind, number in strikes:
            await asyncio.sleep(moments.uniform(LOAD_S_MIN, LOAD_S_MAX))
            load.resting = resting
            await asyncio.to_thread(strike, net, kind, number)
            load.resting = False
            await asyncio.to_thread(assert_back, net, kind, number)
    await load.check()
    assert load.accepted > 20 * len(strikes), "there was hardly any load"
    await asyncio.to_thread(net.assert_whole)


async def test_every_kind_of_process_is_killed_under_load(
    net: Cluster, request: pytest.FixtureRequest
) -> None:
    """Each kind once, at random moments; with `--long` then many times, of kinds and nodes at random."""
    chance = random.Random(40)
    each = list(zip(KINDS, (0, 1, 2, 3, OBSERVER, 1), strict=True))
    await kill_under_load(net, each, chance, resting=True)
    left = KILLS_LONG if request.config.getoption("--long") else 0
    while left > 0:
        count = min(left, KILLS_BETWEEN_CHECKS)
        strikes = [(chance.choice(list(KINDS)), chance.randrange(len(net.nodes))) for _ in range(count)]
        await kill_under_load(net, strikes, chance, resting=False)
        left -= count


def another_engine(net: Cluster, number: int, before: set[int]) -> set[int]:
    """The process of a CometBFT that is none of those, as soon as it is there."""
    found: set[int] = set()

    def look() -> bool:
        found.update(set(engines_in(net.nodes[number].home)) - before)
        return bool(found)

    until(look, "another run begins")
    return found


def test_a_node_without_its_engine_answers_and_takes_writes(net: Cluster) -> None:
    server = net.nodes[1]
    there, node = fresh(), server.processes()["node"]
    assert server.post(there.raw)[0] == 202
    taken, killed = [], {net.engine_pid(1)}
    for _ in range(ENGINES):
        for pid in killed:
            with contextlib.suppress(ProcessLookupError):
                kill(pid)
        for _ in range(3):
            taken.append(fresh())
            assert server.post(taken[-1].raw, mode="async")[0] == 202
        assert server.get(f"/api/v1/transactions/{there.tx['id']}") == there.tx
        status = server.get(f"/api/v1/transactions/{taken[-1].tx['id']}/status")
        assert status["status"] == "pending"
        # The next one is killed while it starts.
        killed = another_engine(net, 1, killed)
    fates = net.settled(made.tx["id"] for made in taken)
    assert {fate["status"] for fate in fates.values()} == {"committed"}
    assert server.processes()["node"] == node, "the node process went on all the while"


def test_what_was_committed_while_its_node_was_down_is_committed_there(net: Cluster) -> None:
    """The bundle has left, the node dies, the others commit: after the replay the node knows."""
    made = [fresh() for _ in range(3)]
    with paused(net.engine_pid(0), net.engine_pid(1)):
        for each in made:
            assert net.nodes[3].post(each.raw, mode="async")[0] == 202
        time.sleep(SPREAD_S)
        status = net.nodes[3].get(f"/api/v1/transactions/{made[0].tx['id']}/status")
        assert status["status"] == "pending", "two of four commit nothing"
        net.nodes[3].kill()
    net.settled(each.tx["id"] for each in made)
    net.assert_clean(3)
    net.start(3)
    fates = net.settled(each.tx["id"] for each in made)
    assert {fate["status"] for fate in fates.values()} == {"committed"}


async def test_all_nodes_are_killed_at_once_and_one_is_first(
    net: Cluster, request: pytest.FixtureRequest
) -> None:
    async with Load(net, [0, 2, 4]) as load:
        await asyncio.sleep(LOAD_S_MAX)
        await asyncio.to_thread(net.kill)
    net.start(2)
    lonely = fresh()
    assert net.nodes[2].post(lonely.raw, mode="async")[0] == 202, "it takes writes while it is alone"
    if request.config.getoption("--long"):
        assert net.nodes[2].stop() == 0
        net.assert_clean(2)
    net.start()
    await load.check()
    assert net.settled([lonely.tx["id"]])[lonely.tx["id"]]["status"] == "committed"
    await asyncio.to_thread(net.assert_commits)


def test_told_to_stop_while_its_engine_hangs_or_it_starts(
    net: Cluster, request: pytest.FixtureRequest
) -> None:
    """SIGTERM ends everything in time and with 0, at any moment of a start, too."""
    server, made = net.nodes[2], fresh()
    with paused(net.engine_pid(2)):
        assert server.post(made.raw, mode="async")[0] == 202
        assert server.get(f"/api/v1/transactions/{made.tx['id']}/status")["status"] == "pending"
        assert server.stop() == 0, server.tail()
        assert not engines_in(server.home)
    moments = STARTS_LONG if request.config.getoption("--long") else STARTS
    for moment in range(moments):
        server.start(wait=False)
        began = time.monotonic()
        while not (server.home / "run" / "settings.json").exists():
            # Before that the command is not a supervisor yet, and SIGTERM ends it as any program.
            assert time.monotonic() - began < 30
            time.sleep(0.01)
        time.sleep(START_S * (moment + 0.5) / moments)
        assert server.stop() == 0, server.tail()
        assert not engines_in(server.home)
    net.assert_clean(2)
    net.start(2)
    assert net.settled([made.tx["id"]])[made.tx["id"]]["status"] == "committed"
    net.assert_commits()
