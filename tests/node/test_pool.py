"""The pool of bundles: looked into once, bounded by quotas, dead when nothing in them can be committed."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bcdb.ledger import BlockHeader, Ledger, Outcome
from bcdb.ledger.bundle import encode_bundle
from bcdb.model import limits
from bcdb.model.errors import BundleError
from bcdb.model.keys import KeyPair, decode_key
from bcdb.node.pool import FORGOTTEN_AFTER_HEIGHTS, BundlePool, NotTaken, Opened
from bcdb.node.verifiers import Verifiers
from tests.support.transactions import Signed, alice, bob, carol, create, transfer

CHAIN = "test-chain"
MEMBER, OTHER, STRANGER = (KeyPair.from_seed(bytes([seed]) * 32) for seed in (1, 2, 3))


class Bench:
    def __init__(self, path: Path) -> None:
        self.ledger = Ledger.open(path, chain_id=CHAIN)
        self.quotas = {decode_key(pair.public_key): 10_000_000 for pair in (MEMBER, OTHER)}
        self.pool = BundlePool(self.ledger, Verifiers(), self.quotas.get)

    async def admit(self, tx: bytes) -> Opened:
        opened = self.pool.admit(tx)
        await self.pool.verify(opened)
        return opened

    def commit(self, *signed: Signed, txs: Sequence[bytes] = ()) -> Outcome:
        """A block of these transactions, and the bundles that it came in."""
        height = self.ledger.head.height + 1
        header = BlockHeader(height, height, b"proposer", bytes([height]) * 32)
        outcome = self.ledger.apply(header, [found.verified for found in signed])
        self.ledger.commit(outcome)
        self.pool.settle(outcome, txs)
        return outcome


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "ledger")
    yield made
    made.ledger.close()


def bundle(*signed: Signed, by: KeyPair = MEMBER, attempt: int = 0) -> bytes:
    bodies = [found.raw for found in signed]
    return encode_bundle(CHAIN, decode_key(by.public_key), bodies, by.sign, attempt=attempt)


def usage(bench: Bench, pair: KeyPair = MEMBER) -> tuple[int, int]:
    return bench.pool.usage(decode_key(pair.public_key))


async def test_a_stranger_is_refused_before_anything_is_decoded(bench: Bench) -> None:
    raw = bytearray(bundle(create(), by=STRANGER))
    raw[-1] ^= 1
    with pytest.raises(NotTaken, match="no member"):
        bench.pool.admit(bytes(raw))


async def test_a_member_with_a_wrong_signature_is_refused_and_costs_no_quota(bench: Bench) -> None:
    raw = bytearray(bundle(create()))
    raw[-1] ^= 1
    with pytest.raises(BundleError, match="signature"):
        bench.pool.admit(bytes(raw))
    assert usage(bench) == (0, 0)


async def test_quotas_are_of_each_submitter_and_come_back(bench: Bench) -> None:
    txs = [bundle(create(asset={"n": number})) for number in range(3)]
    bench.quotas[decode_key(MEMBER.public_key)] = len(txs[0]) + len(txs[1])
    bench.pool.admit(txs[0])
    bench.pool.admit(txs[0])
    bench.pool.admit(txs[1])
    assert usage(bench) == (2, len(txs[0]) + len(txs[1]))
    with pytest.raises(NotTaken, match="quota"):
        bench.pool.admit(txs[2])
    bench.pool.admit(bundle(create(asset={"n": 9}), by=OTHER))
    bench.commit(txs=txs[:1])
    bench.pool.admit(txs[2])
    bench.pool.forget(txs[1])
    bench.pool.forget(txs[2])
    assert usage(bench) == (0, 0)


async def test_many_small_bundles_are_bounded_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SUBMITTER_BUNDLES_MAX", 2)
    for number in range(2):
        bench.pool.admit(bundle(create(asset={"n": number})))
    with pytest.raises(NotTaken, match="2 bundles"):
        bench.pool.admit(bundle(create(asset={"n": 2})))


async def test_what_only_passes_by_costs_no_quota_until_it_waits(bench: Bench) -> None:
    tx = bundle(create())
    bench.pool.open(tx)
    assert usage(bench) == (0, 0)
    bench.pool.admit(tx)
    assert usage(bench) == (1, len(tx))
    assert bench.pool._passing_bytes == 0


async def test_a_bundle_that_nobody_asks_about_any_more_has_left(bench: Bench) -> None:
    kept, gone = (bundle(create(asset={"n": number})) for number in range(2))
    await bench.admit(kept)
    await bench.admit(gone)
    for _ in range(FORGOTTEN_AFTER_HEIGHTS + 1):
        bench.commit()
        bench.pool.admit(kept)
    assert bench.pool.get(gone) is None
    assert usage(bench) == (1, len(kept))


async def test_after_a_restart_of_the_engine_nothing_waits(bench: Bench) -> None:
    asset = create()
    tx = bundle(asset)
    bench.pool.watch(await bench.admit(tx))
    bench.pool.engine_restarted()
    assert usage(bench) == (0, 0)
    opened = bench.pool.admit(tx)
    assert opened.is_valid, "its transactions are remembered"


@pytest.mark.parametrize("watched", [True, False])
async def test_a_bundle_dies_with_its_last_transaction(bench: Bench, watched: bool) -> None:
    first, second = create(asset={"n": 1}), create(asset={"n": 2})
    opened = await bench.admit(bundle(first, second))
    if watched:
        bench.pool.watch(opened)
    assert bench.pool.has_effect(opened)
    bench.commit(first)
    assert bench.pool.has_effect(opened)
    bench.commit(second)
    assert not bench.pool.has_effect(opened)


@pytest.mark.parametrize("watched", [True, False])
async def test_what_has_lost_its_input_is_dead_and_what_waits_for_it_is_not(
    bench: Bench, watched: bool
) -> None:
    asset = create(alice)
    bench.commit(asset)
    to_bob, to_carol = (transfer([(asset, 0)], [([key.public_key], 1)]) for key in (bob, carol))
    later = transfer([(to_bob, 0)], [([carol.public_key], 1)])
    loser = await bench.admit(bundle(to_carol))
    early = await bench.admit(bundle(later, by=OTHER))
    if watched:
        bench.pool.watch(loser)
        bench.pool.watch(early)
    bench.commit(to_bob)
    assert not bench.pool.has_effect(loser)
    assert bench.pool.has_effect(early), "what it spends is there now"
    bench.commit(later)
    assert not bench.pool.has_effect(early)


async def test_the_same_transaction_in_two_bundles(bench: Bench) -> None:
    asset = create()
    one, two = await bench.admit(bundle(asset)), await bench.admit(bundle(asset, by=OTHER))
    bench.pool.watch(one)
    bench.pool.watch(two)
    bench.pool.forget(bundle(asset))
    assert bench.pool.has_effect(two)
    bench.commit(asset)
    assert not bench.pool.has_effect(two)


async def test_an_old_bundle_that_somebody_sends_again_costs_no_quota(bench: Bench) -> None:
    asset = create(asset={"n": 1})
    old = bundle(asset)
    bench.commit(asset)
    await bench.admit(old)
    assert usage(bench) == (0, 0)
    assert bench.pool.get(old) is not None, "who asks again is told that it is dead"
    forged = encode_bundle(CHAIN, decode_key(MEMBER.public_key), [b"{}"], MEMBER.sign)
    await bench.admit(forged)
    assert usage(bench) == (0, 0)
    assert bench.pool._passing_bytes == sum(len(raw) for raw in bench.pool._passing)


async def test_a_loser_of_several_inputs_leaves_nothing_behind(bench: Bench) -> None:
    assets = [create(alice, asset={"n": number}) for number in range(3)]
    for asset in assets:
        bench.commit(asset)
    merged = create(alice, asset={"n": 9}, recipients=[([alice.public_key], 1), ([alice.public_key], 1)])
    bench.commit(merged)
    both = transfer([(merged, 0), (merged, 1)], [([bob.public_key], 2)])
    one = transfer([(merged, 0)], [([carol.public_key], 1)])
    opened = await bench.admit(bundle(both))
    bench.pool.watch(opened)
    bench.commit(one)
    assert not bench.pool.has_effect(opened)
    assert (bench.pool._holders, bench.pool._rivals) == ({}, {})


async def test_nothing_is_left_of_what_was_watched(bench: Bench) -> None:
    asset = create(alice)
    bench.commit(asset)
    spends = [transfer([(asset, 0)], [([key.public_key], 1)]) for key in (bob, carol)]
    txs = [bundle(spends[0]), bundle(spends[1], create(asset={"n": 1})), bundle(spends[0], by=OTHER)]
    for tx in txs:
        bench.pool.watch(await bench.admit(tx))
    bench.pool.forget(txs[0])
    bench.commit(spends[1], txs=txs[1:2])
    bench.pool.forget(txs[2])
    pool = bench.pool
    assert (pool._holders, pool._rivals, pool._usage, pool._opened) == ({}, {}, {}, {})


async def test_two_that_want_it_verified_wait_for_the_same_work(bench: Bench) -> None:
    asked: list[bytes] = []
    verify = bench.pool._verifiers.verify

    async def counting(bodies: Sequence[bytes]) -> list[object]:
        asked.extend(bodies)
        await asyncio.sleep(0.01)
        return list(await verify(bodies))

    bench.pool._verifiers.verify = counting  # type: ignore[method-assign, assignment]
    tx = bundle(create())
    opened = bench.pool.admit(tx)
    waiter = asyncio.create_task(bench.pool.verify(opened))
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.gather(bench.pool.verify(opened), bench.pool.verify(opened))
    assert len(asked) == 1, "one that gave up does not break off the others' work"
