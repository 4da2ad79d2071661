"""One of four validators is a traitor: it proposes what is no block, and floods its peers.

The honest three vote against what must not be, take what is merely useless, and go on; no client notices more
than a pause.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bcdb.ledger.bundle import ENVELOPE_BYTES_MAX
from bcdb.model import limits
from bcdb.model.keys import KeyPair, decode_key
from bcdb.node.keyfile import read_key_file
from tests.integration.cluster.scene import Cluster, fresh, until
from tests.support.intruder import Intruder, Mempool, Txs, bundle
from tests.support.transactions import Signed, alice, bob, carol, create, transfer

TRAITOR = 3
HONEST = (0, 1, 2)
TURNS_S_MAX = 90.0
SMALL = 100
OVER_QUOTA = 300
"""Bundles of one submitter; 256 may wait."""
LARGE_BYTES = 512 * 1024
LARGE = 2
POLL_S = 0.05
FLOODS_LONG = 10
MEMORY_BYTES_MAX = 300 * 1024 * 1024
"""What a flood may add to a node process and its CometBFT: some copies of the largest mempool it may make."""
OTHERS_WAITING_MAX = 64
"""Bundles of the honest nodes that wait at a time, at most."""

stranger = KeyPair.from_seed(b"stranger" * 4)


@pytest.fixture(scope="module")
def traitor(network: Cluster) -> Iterator[Intruder]:
    network.restart_if_ended()
    network.stop(TRAITOR)
    with Intruder(network.nodes[TRAITOR].home) as running:
        yield running
    network.start(TRAITOR)
    network.assert_whole()


@pytest.fixture
def honest(network: Cluster, traitor: Intruder) -> Iterator[Cluster]:
    """The network with a traitor in it, who has nothing more in mind after a test; all agree then."""
    yield network
    assert not traitor.application.plan
    network.wait_height(max(network.heights().values()))
    network.assert_agreement(since=network.agreed + 1)


def rejections(net: Cluster) -> set[tuple[int, str]]:
    """Heights at which honest nodes have rejected a proposal, and why."""
    seen = set()
    for number in HONEST:
        log = net.nodes[number].log.read_text(errors="replace")
        found = re.findall(r"a proposal is rejected .*?height=(\d+) .*reason=(.*)", log)
        seen |= {(int(height), reason.strip("'\"")) for height, reason in found}
    return seen


def until_proposed(net: Cluster, traitor: Intruder) -> None:
    """Clients write until the traitor has had all the turns that it wants."""

    def look() -> bool:
        signed = fresh()
        status, said = net.nodes[0].post(signed.raw)
        if status == 504:
            net.settled([signed.tx["id"]])
        assert status in (202, 504), said
        return not traitor.application.plan

    until(look, "all is proposed", TURNS_S_MAX)
    net.assert_commits()


HALF_A_BUNDLE = (limits.BUNDLE_BYTES_MAX - ENVELOPE_BYTES_MAX) // 2 - 16


def junk(chain_id: str, count: int, size: int) -> Txs:
    """Five bundles of bodies that are no transactions, `count` in each."""
    bodies = [b"x" * size] * count
    return tuple(bundle(chain_id, KeyPair.from_seed(bytes([at]) * 32), *bodies) for at in range(5))


def many_signatures(number: int) -> Signed:
    """A transaction with as many signatures as one may have, valid by itself; it spends what is not there."""
    count = limits.SIGNATURES_MAX
    source = create(recipients=[([alice.public_key], 1)] * count, asset={"many": number})
    spent = [(source, index) for index in range(count)]
    return transfer(spent, [([bob.public_key], count)], keypairs=[alice])


def garbage(chain_id: str, pair: KeyPair) -> list[tuple[str, Txs]]:
    """Proposals that must not be, and what is said of each."""
    good = bundle(chain_id, pair, fresh())
    forged = fresh().raw.replace(b'"amount":"1"', b'"amount":"2"')
    return [
        ("A bundle is an array of", (good, b"garbage")),
        ("a transaction that is invalid", (good, bundle(chain_id, pair, fresh(), forged))),
        ("more transactions or bytes", junk(chain_id, limits.BUNDLE_TRANSACTIONS_MAX, 1)),
        (
            "more bytes than a block",
            junk(chain_id, 2, HALF_A_BUNDLE),
        ),
    ]


def more_garbage(chain_id: str, pair: KeyPair) -> list[tuple[str, Txs]]:
    good = bundle(chain_id, pair, fresh())
    many = [
        many_signatures(number) for number in range(limits.BLOCK_SIGNATURES_MAX // limits.SIGNATURES_MAX + 1)
    ]
    return [
        ("is no MessagePack", (b"",)),
        ("is of chain 'another'", (bundle("another", pair, fresh()),)),
        ("signature is wrong", (good, good[:-1] + bytes([good[-1] ^ 1]))),
        ("more signatures than", tuple(bundle(chain_id, pair, each) for each in many)),
        ("a transaction that is invalid", (bundle(chain_id, pair, *many[:5]),)),
    ]


def test_proposals_that_must_not_be(
    honest: Cluster, traitor: Intruder, request: pytest.FixtureRequest
) -> None:
    chain_id = honest.layout.chain_id
    plans = garbage(chain_id, traitor.pair)
    if request.config.getoption("--long"):
        plans += more_garbage(chain_id, traitor.pair)
    before = rejections(honest)
    traitor.propose(*[txs for _, txs in plans])
    until_proposed(honest, traitor)
    seen = sorted(rejections(honest) - before)
    assert len(seen) == len(plans), seen
    for (height, reason), (expected, _) in zip(seen, plans, strict=True):
        assert expected in reason, (height, seen)
    assert not set(traitor.application.decided) & {txs for _, txs in plans}


def test_proposals_that_are_only_useless(honest: Cluster, traitor: Intruder) -> None:
    """Who may send is each node's own opinion, and what is settled or lost changes nothing: all is legal."""
    chain_id, pair = honest.layout.chain_id, traitor.pair
    asset, unknown = fresh(), fresh()
    sales = [transfer([(asset, 0)], [([to.public_key], 1)]) for to in (bob, carol)]
    issue, sale = bundle(chain_id, pair, asset), bundle(chain_id, pair, *sales)
    plan = (issue, bundle(chain_id, stranger, unknown), issue, sale, sale)
    traitor.propose(plan)
    until_proposed(honest, traitor)
    assert plan in traitor.application.decided
    taken = [asset.tx["id"], unknown.tx["id"], sales[0].tx["id"]]
    fates = honest.settled(taken)
    assert len({fate["height"] for fate in fates.values()}) == 1
    block = honest.nodes[0].get(f"/api/v1/blocks/{fates[taken[0]]['height']}")
    assert [each["id"] for each in block["transactions"]] == taken
    assert honest.nodes[1].request("GET", f"/api/v1/transactions/{sales[1].tx['id']}")[0] == 404


def test_a_flood(honest: Cluster, traitor: Intruder, request: pytest.FixtureRequest) -> None:
    """What no node wants, what no member has sent, and more of a member's than it may have waiting."""
    chain_id = honest.layout.chain_id
    floods = FLOODS_LONG if request.config.getoption("--long") else 1
    member = read_key_file(honest.nodes[0].home / "node_key.json")
    before = memory(honest)
    most = rounds = 0
    with Mempool(honest.nodes[0].home) as mempool, ThreadPoolExecutor(2) as threads:

        def flood() -> None:
            for number in range(floods):
                traitor.application.admits = True
                for txs in waves(chain_id, traitor.pair, member, number):
                    traitor.offer(txs)
                # What has been sent to everybody leaves its own mempool after the next block.
                traitor.application.admits = False

        def clients() -> int:
            count = 0
            while not flooding.done():
                honest.assert_commits()
                count += 1
            return count

        flooding = threads.submit(flood)
        writing = threads.submit(clients)
        while not flooding.done():
            most = max(most, mempool.waiting()[0])
            time.sleep(POLL_S)
        flooding.result()
        rounds = writing.result()
    assert rounds > 0, "clients write, and see it committed, while the flood comes in"
    assert 0 < most <= limits.SUBMITTER_BUNDLES_MAX + OTHERS_WAITING_MAX
    grown = {name: size - before[name] for name, size in memory(honest).items()}
    assert max(grown.values()) < MEMORY_BYTES_MAX, grown


def waves(chain_id: str, pair: KeyPair, member: KeyPair, number: int) -> list[list[bytes]]:
    """Many bundles, and what is none; none of them is in another wave."""
    padding = "x" * LARGE_BYTES

    def nonsense(at: int) -> bytes:
        return b"nonsense %d %d" % (number, at)

    small = [nonsense(at) for at in range(SMALL)]
    small += [bundle(chain_id, stranger, fresh()) for _ in range(SMALL)]
    large = [nonsense(at) + bytes(LARGE_BYTES) for at in range(LARGE)]
    large += [bundle(chain_id, stranger, fresh(padding=padding)) for _ in range(LARGE)]
    large += [bundle(chain_id, pair, fresh(padding=padding)) for _ in range(LARGE)]
    # In another member's name, and so looked at whole.
    large += [
        tx.replace(decode_key(stranger.public_key), decode_key(member.public_key))
        for tx in large[LARGE : 2 * LARGE]
    ]
    return [small, [bundle(chain_id, pair, fresh()) for _ in range(OVER_QUOTA)], large]


def memory(net: Cluster) -> dict[str, int]:
    """Resident bytes of the node processes and CometBFTs of the honest."""
    found = {}
    for number in HONEST:
        pids: Sequence[tuple[str, int]] = [
            ("node", net.nodes[number].processes()["node"]),
            ("engine", net.engine_pid(number)),
        ]
        for name, pid in pids:
            told = re.search(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
            assert told is not None
            found[f"{name} {number}"] = int(told.group(1)) * 1024
    return found
