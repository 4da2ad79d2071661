"""What waits for a block: bounded for each member, and never for long what can't change anything any more.

Two of four validators are stopped for it, so that nothing is decided and all that comes has to wait.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import msgspec
import pytest

from bcdb.model import limits
from bcdb.model.keys import KeyPair
from bcdb.node.application import CODE_BUNDLE, CODE_NOT_TAKEN
from bcdb.node.keyfile import read_key_file
from bcdb.node.members import MEBIBYTE, Member
from tests.integration.cluster.scene import Cluster, fresh, until
from tests.support.intruder import Mempool, bundle
from tests.support.membership import change_members, members_of, write_members
from tests.support.transactions import Signed, transfer

HERE, ASIDE = 0, 1
"""Validators that run, and wait for the others."""
AWAY = (2, 3)
BOUNDED, TRUSTED = 2, 3
"""Members whose bundles are offered: one with the least quota, one with room for more than a block."""
QUOTA_MB = 64
PADDING_BYTES = 1000 * 1024
RIVALS = 10
"""Each with that padding: more than a block holds."""
EMPTY_S_MAX = 45.0
BLOCKS_MAX = 4
"""A block takes what it can of the dead, the next one can't see them any more; leave some for chance."""
IDLE_S, IDLE_S_LONG = 1.0, 28.0
SLACK_S = 10.0 + 8.0
"""An idle chain makes a block every 10 s; the machine may be slow."""
CLOCKS_S = 0.5
"""By how much a block's time, the median of the votes before it, may be ahead of what a client measures."""


@pytest.fixture
def quotas(net: Cluster) -> Iterator[None]:
    """Two members have quotas of their own at all nodes, from the next second on."""
    chosen = {net.layout.nodes[BOUNDED].name: limits.SUBMITTER_QUOTA_MB_MIN}
    chosen[net.layout.nodes[TRUSTED].name] = QUOTA_MB
    before = {number: members_of(server.home) for number, server in enumerate(net.nodes)}

    def with_quota(member: Member) -> Member:
        return msgspec.structs.replace(member, quota_mb=chosen.get(member.name, member.quota_mb))

    for server in net.nodes:
        change_members(server.home, with_quota)
    try:
        yield
    finally:
        for number, members in before.items():
            write_members(net.nodes[number].home, *members)


def post(net: Cluster, signed: Signed, number: int = HERE) -> str:
    """It is taken. Returns its id."""
    status, said = net.nodes[number].post(signed.raw, mode="async")
    assert status == 202, said
    identity: str = signed.tx["id"]
    return identity


def pair_of(net: Cluster, number: int) -> KeyPair:
    return read_key_file(net.nodes[number].home / "node_key.json")


def offer(net: Cluster, *txs: bytes) -> list[int]:
    with Mempool(net.nodes[HERE].home) as mempool:
        return [mempool.offer(tx) for tx in txs]


def is_empty(net: Cluster) -> bool:
    for server in net.nodes:
        with Mempool(server.home) as mempool:
            if mempool.waiting() != (0, 0):
                return False
    return True


def test_what_waits_is_bounded_and_the_dead_leave(net: Cluster, quotas: None) -> None:
    chain_id, asset = net.layout.chain_id, fresh()
    net.settled([post(net, asset)])
    net.stop(*AWAY)
    bounded, trusted, stranger = pair_of(net, BOUNDED), pair_of(net, TRUSTED), KeyPair.generate()

    # Quotas: two of the largest bundles of one member, nothing of a stranger, and no nonsense.
    count = limits.SUBMITTER_QUOTA_MB_MIN * MEBIBYTE // limits.BUNDLE_BYTES_MAX
    padding = "x" * (limits.BUNDLE_BYTES_MAX // 2 - 16 * 1024)
    large = [bundle(chain_id, bounded, fresh(padding=padding), fresh(padding=padding)) for _ in range(count)]
    filling = bundle(chain_id, bounded, fresh(padding="x" * 40 * 1024))
    assert offer(net, *large) == [0] * count
    assert offer(net, bundle(chain_id, bounded, fresh(padding=padding))) == [CODE_NOT_TAKEN]
    assert offer(net, filling, bundle(chain_id, bounded, fresh(padding="x" * 40 * 1024))) == [
        0,
        CODE_NOT_TAKEN,
    ]
    assert offer(net, bundle(chain_id, stranger, fresh()), b"nonsense") == [CODE_NOT_TAKEN, CODE_BUNDLE]

    # Rivals: all spend the same output, so that one will win, whoever proposes, and the others be dead.
    rivals = [
        transfer(
            [(asset, 0)],
            [([KeyPair.generate().public_key], 1)],
            metadata={"padding": "x" * PADDING_BYTES},
        )
        for _ in range(RIVALS)
    ]
    assert sum(len(rival.raw) for rival in rivals) > limits.BLOCK_BYTES_MAX
    assert offer(net, *[bundle(chain_id, trusted, rival) for rival in rivals]) == [0] * RIVALS
    behind = post(net, fresh())
    height = max(net.heights().values())
    net.start(*AWAY)
    live = post(net, fresh(), ASIDE)
    fates = net.settled([behind, live])
    until(lambda: is_empty(net), "no bundle waits anywhere", EMPTY_S_MAX)
    winners = [
        rival.tx["id"]
        for rival in rivals
        if net.nodes[HERE].request("GET", f"/api/v1/transactions/{rival.tx['id']}")[0] == 200
    ]
    assert len(winners) == 1
    assert max(fate["height"] for fate in fates.values()) <= height + BLOCKS_MAX


def test_a_transaction_has_a_true_time_after_idle_times(net: Cluster, request: pytest.FixtureRequest) -> None:
    idle_s = IDLE_S_LONG if request.config.getoption("--long") else IDLE_S
    net.wait_same_height()
    time.sleep(idle_s)
    began_s = time.time()
    identity = post(net, fresh())
    height = net.settled([identity])[identity]["height"]
    written = net.nodes[HERE].get(f"/api/v1/blocks/{height}")["time"]
    assert began_s - SLACK_S < datetime.fromisoformat(written).timestamp() < time.time() + CLOCKS_S
