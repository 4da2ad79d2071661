"""The network of real nodes that other tests stand on: it orders, agrees, survives, sees what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.testnet import Testnet
from tests.support.transactions import create


def test_nodes_order_agree_and_are_killed_and_started(tmp_path: Path) -> None:
    with Testnet(tmp_path / "net", validators=3, observers=1) as net:
        first = create(asset={"n": 1})
        assert net.nodes[3].post(first.raw)[0] == 202, "who does not vote takes transactions, too"
        fate = net.settled([first.tx["id"]])[first.tx["id"]]
        assert min(net.wait_height(fate["height"]).values()) >= fate["height"]
        assert len(set(net.app_hashes(fate["height"]).values())) == 1
        assert len(net.app_hashes(fate["height"])) == 4
        assert len({net.engine_pid(number) for number in range(4)}) == 4

        net.nodes[3].kill()
        assert len(net.running) == 3
        second = create(asset={"n": 2})
        assert net.nodes[0].post(second.raw)[0] == 202
        assert set(net.heights()) == {0, 1, 2}
        net.start()
        assert net.settled([second.tx["id"]])[second.tx["id"]]["status"] == "committed"
        with pytest.raises(AssertionError, match="1 are not settled"):
            net.settled(["0" * 64], s_max=0.1)
        net.wait_same_height()
        assert net.assert_agreement() >= 2
        net.stop()
        assert net.running == []
