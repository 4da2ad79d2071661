"""Clients of a network: the npm driver over two nodes, and a chain that goes on from a solo ledger."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from bcdb.client import Client
from bcdb.node.settings import read_settings
from tests.integration.test_npm_driver import SCENARIO, SCENARIO_S_MAX
from tests.support.nodejs import environment, node_path
from tests.support.server import Server
from tests.support.testnet import Testnet
from tests.support.transactions import alice, bob, create, transfer

Born = tuple[Testnet, list[dict[str, object]]]
"""A network, and the transactions that a solo node had committed before."""


@pytest.fixture(scope="module")
def born_of_solo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Born]:
    """Four validators whose chain began as that of one node, and what that node had committed."""
    folder = tmp_path_factory.mktemp("from-solo")
    assets = [create(alice, asset={"kept": number}) for number in range(3)]
    with Server(folder / "alone", workers=1) as server:
        for asset in assets:
            assert server.post(asset.raw)[0] == 202
        height = server.get("/health/ready")["height"]
        assert server.stop() == 0
    with Testnet(folder / "net", source=read_settings(folder / "alone")) as net:
        assert net.wait_height(height + 1)
        yield net, [asset.tx for asset in assets]


def test_the_unmodified_driver_writes_to_one_node_and_reads_from_another(
    born_of_solo: Born,
) -> None:
    net, _ = born_of_solo
    writer, reader = net.nodes[0], net.nodes[2]
    done = subprocess.run(
        [str(node_path()), str(SCENARIO), f"{writer.url}/api/v1/"],
        env={**environment(), "READ_FROM": f"{reader.url}/api/v1/"},
        capture_output=True,
        text=True,
        timeout=SCENARIO_S_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{writer.tail()}\n{reader.tail()}"
    assert "all steps as they should be" in done.stdout


def test_what_the_solo_node_committed_is_everywhere_and_can_be_spent(
    born_of_solo: Born,
) -> None:
    net, assets = born_of_solo
    for server in net.nodes:
        for asset in assets:
            assert server.get(f"/api/v1/transactions/{asset['id']}") == asset
    gift = transfer([(assets[0], 0)], [([bob.public_key], 1)])
    status, _ = net.nodes[1].post(gift.raw)
    assert status == 202
    net.settled([gift.tx["id"]])
    again = transfer([(assets[0], 0)], [([alice.public_key], 1)])
    assert net.nodes[3].post(again.raw)[0] == 400, "it is spent on every node"


def test_our_client_goes_on_at_another_node_when_its_own_dies(born_of_solo: Born) -> None:
    net, _ = born_of_solo
    with Client(net.nodes[0].url, net.nodes[3].url) as client:
        asset = client.create(alice, asset={"seen": "at one node"})
        seen = client.height
        net.nodes[0].kill()
        sold = client.transfer(alice, [(asset, 0)], [([bob.public_key], 1)])
        assert client.height > seen, "committed at the node that lives"
        assert client.status(sold["id"]).status == "committed"
    net.start(0)
    net.settled([asset["id"], sold["id"]])


def test_the_ledgers_are_whole_and_the_same(born_of_solo: Born) -> None:
    net, _ = born_of_solo
    net.assert_agreement()
    net.stop()
    for server in net.nodes:
        checked = server.fsck()
        assert checked.returncode == 0, checked.stdout + checked.stderr
