"""A validator of a network dies at each named point of its code, under load; the others do not wait for it.

The node process is started again by its supervisor and dies there again: only the next start of the whole
node is without the point.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from bcdb.ledger.crashpoints import NAMES
from tests.integration.cluster.scene import Cluster, Load, until
from tests.support.cometbft import program
from tests.support.server import Server, members_of_session

VICTIM, OTHER = 2, 0
POINTS = ("commit-before-write:3", "node-before-publish:3")
"""Before a block is in the ledger, which CometBFT has, and after it is, which CometBFT does not know."""
POINTS_LONG = tuple(
    f"{name}:{nth}"
    for name in NAMES
    # What is written when a write-ahead log with settled entries is opened has no such entries here.
    if not name.startswith("replay-")
    for nth in ((1,) if name.startswith("store-") else (1, 5))
)


def node_process(server: Server) -> int | None:
    """The process id of its node process, None while there is none."""
    for pid in members_of_session(server.pid):
        try:
            if b"bcdb.node.process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        except (FileNotFoundError, ProcessLookupError):
            continue
    return None


def die_at(net: Cluster, load: Load, point: str) -> None:
    """Start the victim, which does not run, with this point, and return when it has died there.

    Clients post from the moment on that its process is there.
    """
    home = net.nodes[VICTIM].home
    if point.startswith("store-"):
        shutil.rmtree(home / "ledger")
    environment = {"BCDB_COMETBFT": str(program()), "BCDB_CRASH_AT": point}
    armed = Server(home, as_configured=True, environment=environment)
    armed.start(wait=False)
    try:
        until(lambda: node_process(armed), f"{point}: its process begins")
        load.resting = False
        first = node_process(armed)
        until(lambda: first != node_process(armed), f"{point} is reached")
        assert armed.is_running, armed.tail()
    finally:
        load.resting = True
        armed.kill()
    if not point.startswith("store-"):
        net.assert_clean(VICTIM)


async def test_dying_at_a_point_loses_nothing(net: Cluster, request: pytest.FixtureRequest) -> None:
    points = POINTS_LONG if request.config.getoption("--long") else POINTS
    unarmed = net.nodes[VICTIM]
    async with Load(net, [VICTIM, OTHER]) as load:
        load.resting = True
        await asyncio.to_thread(unarmed.kill)
        for point in points:
            await asyncio.to_thread(die_at, net, load, point)
        await asyncio.to_thread(net.start, VICTIM)
        load.resting = False
        await asyncio.to_thread(net.assert_commits)
    await load.check()
    assert load.accepted > 20 * len(points), "there was hardly any load"
