"""A validator whose disk lost something: its last blocks, its whole ledger, or what its CometBFT had.

What can be made again from what is left is made again by itself; without the record of its votes it must not
vote, and says so.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cluster.scene import Cluster, fresh, paused, until
from tests.support.server import Server
from tests.support.transactions import bob, transfer

NUMBER = 1
COMMITS = 3


def commits(net: Cluster, number: int) -> list[str]:
    """Some blocks more; ids of what is in them."""
    made = [fresh() for _ in range(COMMITS)]
    for each in made:
        assert net.nodes[number].post(each.raw)[0] == 202
    return [each.tx["id"] for each in made]


def height_of(net: Cluster, number: int) -> int:
    return net.heights()[number]


@contextlib.contextmanager
def put_away(path: Path, folder: Path) -> Iterator[None]:
    """What is at `path` is not there meanwhile; what was made there instead is gone afterwards."""
    path.rename(folder / path.name)
    try:
        yield
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        (folder / path.name).rename(path)


def refusal(server: Server) -> str:
    """What it says when it is started and does not begin."""
    before = server.log.stat().st_size
    server.start(wait=False)
    try:
        assert server.wait_end() != 0
    finally:
        server.kill()
    lines = server.log.read_bytes()[before:].decode().splitlines()
    said = [line for line in lines if line.startswith(("bcdb node: ", "Error: "))]
    assert said, lines
    return said[0]


def test_an_older_ledger_catches_up(net: Cluster, tmp_path: Path) -> None:
    """The copy is of a time when a transaction waited, which stands in a block since then."""
    server = net.nodes[NUMBER]
    source, waiting = fresh(), fresh()
    assert server.post(source.raw)[0] == 202
    spending = transfer([(source, 0)], [([bob.public_key], 1)])
    with paused(net.engine_pid(0), net.engine_pid(2)):
        for each in (waiting, spending):
            assert server.post(each.raw, mode="async")[0] == 202
        server.kill()
    shutil.copytree(server.home / "ledger", tmp_path / "older")
    net.start(NUMBER)
    net.settled([waiting.tx["id"], spending.tx["id"]])
    later = commits(net, NUMBER)
    height = height_of(net, NUMBER)
    server.kill()
    shutil.rmtree(server.home / "ledger")
    shutil.copytree(tmp_path / "older", server.home / "ledger")
    net.start(NUMBER)
    assert height_of(net, NUMBER) >= height, "it has replayed before it is ready"
    fates = net.settled([waiting.tx["id"], spending.tx["id"], *later])
    assert {fate["status"] for fate in fates.values()} == {"committed"}
    net.assert_commits()


def test_a_lost_ledger_is_made_again(net: Cluster, request: pytest.FixtureRequest) -> None:
    server = net.nodes[NUMBER]
    before = commits(net, NUMBER)
    height = height_of(net, NUMBER)
    assert server.stop() == 0
    net.assert_clean(NUMBER)
    kills = 10 if request.config.getoption("--long") else 0
    for turn in range(kills + 1):
        if turn % 2 == 0:
            shutil.rmtree(server.home / "ledger")
        server.start(wait=False)
        if turn < kills:
            until((server.home / "ledger" / "CURRENT").exists, "a new ledger is there")
            time.sleep(turn / kills)
            server.kill()
    server.wait_ready()
    assert height_of(net, NUMBER) >= height, "it has replayed before it is ready"
    assert server.get(f"/api/v1/transactions/{before[0]}/status")["status"] == "committed"
    net.assert_commits()
    net.wait_same_height()
    net.assert_agreement(since=1)
    until(
        lambda: server.get("/health/ready")["projected_height"] >= height,
        "its query store follows the new ledger",
    )


def test_without_what_its_engine_keeps_it_does_not_begin(net: Cluster, tmp_path: Path) -> None:
    """The record of its votes alone, or all the data: what is left tells that this validator has voted."""
    server = net.nodes[NUMBER]
    assert server.stop() == 0
    data = server.home / "cometbft" / "data"
    record = data / "priv_validator_state.json"
    with put_away(record, tmp_path):
        said = refusal(server)
        assert f"{record} is missing" in said, said
        assert "could sign twice" in said, said
        assert not record.exists(), "none is made"
    with put_away(data, tmp_path):
        said = refusal(server)
        assert f"CometBFT's blocks are missing in {data}" in said, said
    net.start(NUMBER)
