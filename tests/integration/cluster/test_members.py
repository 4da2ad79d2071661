"""Who is a member is each node's own word, and it takes effect while the node runs.

Whoever is none is not let in, and its bundles are not taken; it loses nothing by that but time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from bcdb.cli.home import make_home
from bcdb.cli.network import GENESIS_FILE, join_network, make_card
from bcdb.model.keys import KeyPair
from bcdb.node.application import CODE_NOT_TAKEN
from bcdb.node.keyfile import read_key_file
from bcdb.node.members import MEMBERS_FILE, Member, members_file
from tests.integration.cluster.scene import Cluster, fresh, until
from tests.support.cometbft import program
from tests.support.intruder import Mempool, bundle
from tests.support.membership import change_members, members_of, write_members
from tests.support.server import Server
from tests.support.testnet import free_nodes
from tests.support.transactions import Signed

VALIDATORS = range(4)
OBSERVER = 4
GOES_ON = 3
"""Blocks of the others in which nothing happens to a node that is no member."""


@pytest.fixture
def outsider(net: Cluster, tmp_path: Path) -> Iterator[tuple[Server, Member]]:
    """A node that knows the genesis and all members, and is none; it does not run yet."""
    (place,) = free_nodes(1)
    flags = {
        "host": net.nodes[0].host,
        "port": place.port,
        "stream_port": place.stream_port,
        "workers": 1,
        "engine": "cometbft",
        "p2p_listen": place.address,
    }
    settings, _ = make_home(tmp_path / "outsider", flags, kept=flags)
    member = make_card(settings, "outsider", place.address, votes=False).member
    network = tmp_path / "network"
    network.mkdir()
    (network / GENESIS_FILE).write_bytes((net.nodes[0].home / GENESIS_FILE).read_bytes())
    everybody = members_of(net.nodes[0].home)
    (network / MEMBERS_FILE).write_text(members_file([*everybody, member]))
    join_network(network, settings)
    server = Server(settings.home, as_configured=True, environment={"BCDB_COMETBFT": str(program())})
    try:
        yield server, member
    finally:
        server.kill()
        for number in VALIDATORS:
            write_members(net.nodes[number].home, *everybody)


def post(server: Server, signed: Signed) -> str:
    """It is taken. Returns its id."""
    status, said = server.post(signed.raw, mode="async")
    assert status == 202, said
    identity: str = signed.tx["id"]
    return identity


def status(server: Server, identity: str) -> str:
    told: str = server.get(f"/api/v1/transactions/{identity}/status")["status"]
    return told


def go_on(net: Cluster) -> None:
    """The validators make some blocks."""
    for _ in range(GOES_ON):
        code, said = net.nodes[0].post(fresh().raw)
        assert code == 202, said


def says(net: Cluster, number: int, pair: KeyPair, code: int) -> bool:
    """Whether a node has this to say to a fresh bundle of this submitter."""
    with Mempool(net.nodes[number].home) as mempool:
        return mempool.offer(bundle(net.layout.chain_id, pair, fresh())) == code


def test_who_does_not_vote_is_taken_until_it_is_no_member_any_more(net: Cluster) -> None:
    observer = net.nodes[OBSERVER]
    net.settled([post(observer, fresh())])
    pair = read_key_file(observer.home / "node_key.json")
    everybody = members_of(net.nodes[0].home)
    name = net.layout.nodes[OBSERVER].name
    try:
        for number in VALIDATORS:
            change_members(net.nodes[number].home, lambda member: member if member.name != name else None)
        for number in VALIDATORS:
            until(partial(says, net, number, pair, CODE_NOT_TAKEN), "no member any more")
        waits = fresh()
        identity = post(observer, waits)
        go_on(net)
        assert status(observer, identity) == "pending", "kept, and taken by no one"
        assert post(net.nodes[1], waits) == identity, "another member may send it as well"
        net.settled([identity])
    finally:
        for number in VALIDATORS:
            write_members(net.nodes[number].home, *everybody)
    for number in VALIDATORS:
        until(partial(says, net, number, pair, 0), "a member again")
    net.settled([post(observer, fresh())])


def test_an_outsider_is_not_let_in_until_it_is_a_member(
    net: Cluster, outsider: tuple[Server, Member]
) -> None:
    server, member = outsider
    server.start()
    identity = post(server, fresh())
    until(lambda: is_turned_away(net, member), "it has tried")
    go_on(net)
    told = server.get("/health/ready")
    assert (told["height"], told["peers"], told["catching_up"]) == (0, 0, True)
    assert status(server, identity) == "pending"
    pair = read_key_file(server.home / "node_key.json")
    assert says(net, 0, pair, CODE_NOT_TAKEN)
    for number in VALIDATORS:
        write_members(net.nodes[number].home, *members_of(net.nodes[number].home), without_address(member))
    until(lambda: server.get("/health/ready")["peers"] > 0, "it is let in")
    until(lambda: status(server, identity) == "committed", "it has caught up, and is heard")
    net.settled([identity])
    assert server.stop() == 0
    done = server.fsck()
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def is_turned_away(net: Cluster, member: Member) -> bool:
    """Whether a validator has said that it does not want this peer."""
    return any(
        "filtered" in line and member.node_id in line
        for number in VALIDATORS
        for line in net.nodes[number].log.read_text(errors="replace").splitlines()
    )


def without_address(member: Member) -> Member:
    """It dials the others; they need not know where it is."""
    return msgspec.structs.replace(member, address="")
