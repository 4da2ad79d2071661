"""The ledger as an application: bundles of others, what is remembered, results that all validators share."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bcdb.ledger import Ledger, Outcome
from bcdb.ledger.bundle import encode_bundle
from bcdb.model import limits
from bcdb.model.keys import KeyPair, decode_key
from bcdb.node.application import (
    CODE_BUNDLE,
    CODE_SETTLED,
    LedgerApplication,
)
from bcdb.node.pool import VerifiedCache
from bcdb.node.verifiers import Result, Verifiers
from consensus.engine import Block, EngineError, Genesis, Proposal, TxResult
from tests.support.transactions import Signed, bob, carol, create, transfer

CHAIN = "test-chain"
peer = KeyPair.from_seed(b"p" * 32)


class CountingVerifiers(Verifiers):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bytes] = []

    async def verify(self, bodies: Sequence[bytes]) -> list[Result]:
        self.asked += bodies
        return await super().verify(bodies)


class Bench:
    """An application on a ledger of its own, and what it told."""

    def __init__(self, path: Path) -> None:
        self.ledger = Ledger.open(path, chain_id=CHAIN)
        self.verifiers = CountingVerifiers()
        self.events: list[str] = []
        self.outcomes: list[Outcome] = []
        self.app = LedgerApplication(
            self.ledger,
            self.verifiers,
            written=lambda: self.events.append("written"),
            durable=self.durable,
            committed=self.committed,
        )

    async def durable(self, mark: int) -> None:
        await asyncio.sleep(0)
        self.events.append(f"durable {mark == self.ledger.mark}")

    def committed(self, outcome: Outcome, txs: Sequence[bytes]) -> None:
        self.events.append("committed")
        self.outcomes.append(outcome)

    def block(self, *txs: bytes) -> Block:
        height = self.ledger.head.height + 1
        return Block(height, height * 1_000, bytes([height]) * 32, b"proposer", txs)

    async def decide(self, *txs: bytes) -> tuple[TxResult, ...]:
        """Finalize and commit one block of these."""
        finalized = await self.app.finalize(self.block(*txs))
        await self.app.commit()
        assert finalized.app_hash == self.ledger.head.app_hash
        return finalized.results

    async def prepare(self, *txs: bytes, bytes_max: int = limits.BLOCK_BYTES_MAX) -> tuple[bytes, ...]:
        return await self.app.prepare(Proposal(self.ledger.head.height + 1, 1, b"proposer", txs, bytes_max))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "ledger")
    yield made
    made.ledger.close()


def bundle(*transactions: Signed | bytes, chain: str = CHAIN) -> bytes:
    bodies = [found if isinstance(found, bytes) else found.raw for found in transactions]
    return encode_bundle(chain, decode_key(peer.public_key), bodies, peer.sign)


async def until_checked(bench: Bench, tx: bytes) -> None:
    """Offer a bundle and wait until it is verified, whatever comes out."""
    assert bench.app.check(tx, recheck=False).code == 0
    opened = bench.app.pool.get(tx)
    assert opened is not None
    await bench.app.pool.verify(opened)


async def test_a_peers_bundle_is_verified_once_and_then_remembered(bench: Bench) -> None:
    signed = [create(asset={"n": number}) for number in range(3)]
    tx = bundle(*signed)
    assert bench.app.check(tx, recheck=False).code == 0, "answered at once"
    assert await bench.prepare(tx) == (tx,), "a proposal waits a little for what is being verified"
    assert await bench.app.process(bench.block(tx))
    assert await bench.decide(tx) == (TxResult(0, b"\0\0\0"),)
    assert bench.verifiers.asked == [found.raw for found in signed]
    assert bench.ledger.head.log_size == 3
    assert bench.events == ["written", "durable True", "committed"]


async def test_own_bundles_need_no_verification(bench: Bench) -> None:
    signed = [create(asset={"n": number}) for number in range(3)]
    tx = bundle(*signed)
    bench.app.pool.remember(tx, decode_key(peer.public_key), [found.verified for found in signed])
    assert bench.app.check(tx, recheck=False).code == 0
    assert await bench.prepare(tx) == (tx,)
    assert await bench.app.process(bench.block(tx))
    await bench.decide(tx)
    other = bundle(signed[0], create(asset={"n": 9}))
    assert await bench.app.process(bench.block(other))
    assert len(bench.verifiers.asked) == 1, "what is known from another bundle is not asked again"


async def test_replay_needs_no_check_before(bench: Bench) -> None:
    tx = bundle(create(asset={"n": 1}))
    assert await bench.decide(tx) == (TxResult(0, b"\0"),)


async def test_conflicts_are_decided_by_the_order_of_the_block(bench: Bench) -> None:
    asset = create(asset={"n": 1})
    assert await bench.decide(bundle(asset)) == (TxResult(0, b"\0"),)
    left = transfer([(asset, 0)], [([bob.public_key], 1)])
    right = transfer([(asset, 0)], [([carol.public_key], 1)])
    first, second = bundle(left, asset), bundle(right, left)
    assert await bench.decide(first, second) == (TxResult(0, b"\0\1"), TxResult(0, b"\2\1"))
    known = bench.app.check(second, recheck=False)
    assert known.code == CODE_SETTLED, "its transactions are known, and both have lost for good"


async def test_a_settled_bundle_is_dead(bench: Bench) -> None:
    asset = create(asset={"n": 1})
    tx, same = bundle(asset), bundle(asset, asset)
    await until_checked(bench, tx)
    await until_checked(bench, same)
    await bench.decide(tx)
    assert bench.app.check(same, recheck=True).code == CODE_SETTLED
    assert await bench.prepare(same) == ()


@pytest.mark.parametrize("raw", [b"", b"nonsense", bundle(create(), chain="other")])
async def test_what_is_no_bundle_is_refused_everywhere_alike(bench: Bench, raw: bytes) -> None:
    assert bench.app.check(raw, recheck=False).code == CODE_BUNDLE
    assert await bench.prepare(raw) == ()
    assert not await bench.app.process(bench.block(raw))
    good = bundle(create(asset={"n": 1}))
    results = await bench.decide(raw, good)
    assert results == (TxResult(CODE_BUNDLE, b""), TxResult(0, b"\0"))


async def test_a_decided_block_of_another_version_ends_the_engine(bench: Bench) -> None:
    raw = bytearray(bundle(create()))
    assert raw[1] == 1
    raw[1] = 2
    assert not await bench.app.process(bench.block(bytes(raw)))
    with pytest.raises(EngineError, match="newer bcdb"):
        await bench.app.finalize(bench.block(bytes(raw)))
    assert bench.ledger.head.height == 0


async def test_one_invalid_transaction_spoils_the_proposal_but_not_a_decided_block(bench: Bench) -> None:
    good = create(asset={"n": 1})
    forged = good.raw.replace(b'"amount":"1"', b'"amount":"2"')
    tx = bundle(good, forged)
    await until_checked(bench, tx)
    assert bench.app.check(tx, recheck=True).code == CODE_BUNDLE
    assert await bench.prepare(tx) == ()
    assert not await bench.app.process(bench.block(tx))
    assert await bench.decide(tx) == (TxResult(0, b"\0\2"),)
    assert [result.name for result in bench.outcomes[0].results] == ["", "InvalidHash"]


async def test_bodies_that_are_not_canonical_are_invalid(bench: Bench) -> None:
    spaced = create(asset={"n": 1}).raw.replace(b'"asset":', b'"asset": ')
    assert not await bench.app.process(bench.block(bundle(spaced)))


async def test_a_bundle_may_not_have_too_many_signatures(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BUNDLE_SIGNATURES_MAX", 2)
    signed = [create(asset={"n": number}) for number in range(3)]
    assert await bench.app.process(bench.block(bundle(*signed[:2])))
    assert not await bench.app.process(bench.block(bundle(*signed)))


async def test_a_proposal_keeps_its_bytes_and_its_order(bench: Bench) -> None:
    txs = [bundle(create(asset={"n": number})) for number in range(3)]
    for tx in txs:
        await until_checked(bench, tx)
    assert await bench.prepare(*txs) == tuple(txs)
    assert await bench.prepare(*txs, bytes_max=len(txs[0]) + len(txs[1])) == tuple(txs[:2])


async def test_a_proposal_is_judged_by_what_it_opens_to_and_no_further(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = create(asset={"much": "the same " * 500})
    bodies = [create(asset={"much": "the same " * 500, "n": number}).raw for number in range(4)]
    small = [
        encode_bundle(CHAIN, decode_key(peer.public_key), [body], peer.sign, compress=True) for body in bodies
    ]
    assert max(map(len, small)) * 2 < len(asset.raw)
    monkeypatch.setattr(limits, "BLOCK_BYTES_MAX", 2 * len(asset.raw) + 200)
    assert await bench.app.process(bench.block(*small[:2]))
    assert not await bench.app.process(bench.block(*small))
    assert [bench.app.pool.get(tx) is not None for tx in small] == [True, True, True, False]
    chosen = await bench.prepare(*small[:3], bytes_max=limits.BLOCK_BYTES_MAX)
    assert chosen == tuple(small[:2]), "who proposes counts the same way"


async def test_a_block_has_bounds_in_transactions_and_signatures(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    txs = [bundle(create(asset={"n": number})) for number in range(3)]
    for tx in txs:
        await until_checked(bench, tx)
    for name in ("BLOCK_TRANSACTIONS_MAX", "BLOCK_SIGNATURES_MAX"):
        with monkeypatch.context() as patched:
            patched.setattr(limits, name, 2)
            assert await bench.prepare(*txs) == tuple(txs[:2])
            assert await bench.app.process(bench.block(*txs[:2]))
            assert not await bench.app.process(bench.block(*txs))
    assert await bench.app.process(bench.block(*txs))


async def test_finalize_can_be_asked_again_and_writes_nothing(bench: Bench) -> None:
    first, second = bundle(create(asset={"n": 1})), bundle(create(asset={"n": 2}))
    mark = bench.ledger.mark
    await bench.app.finalize(bench.block(first))
    again = await bench.app.finalize(bench.block(second))
    assert bench.ledger.mark == mark
    assert bench.app.info().height == 0
    await bench.app.commit()
    assert bench.app.info().app_hash == again.app_hash
    info = bench.app.info()
    assert (info.height, info.block_hash, info.time_ns) == (1, b"\1" * 32, 1_000)


async def test_an_empty_block_changes_no_app_hash(bench: Bench) -> None:
    await bench.decide(bundle(create(asset={"n": 1})))
    before = bench.ledger.head.app_hash
    assert await bench.decide() == ()
    assert bench.ledger.head.app_hash == before
    assert bench.ledger.head.height == 2


async def test_commit_without_a_block_is_the_engines_fault(bench: Bench) -> None:
    with pytest.raises(EngineError):
        await bench.app.commit()


async def test_the_engine_must_be_of_this_chain(bench: Bench) -> None:
    result = await bench.app.init_chain(Genesis(CHAIN, 1, ()))
    assert result == await bench.app.init_chain(Genesis(CHAIN, 1, ()))
    assert result.app_hash == bench.ledger.head.app_hash
    with pytest.raises(EngineError):
        await bench.app.init_chain(Genesis("other", 1, ()))


async def test_what_is_kept_of_bundles_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    txs = [bundle(create(asset={"n": number})) for number in range(4)]
    monkeypatch.setattr("bcdb.node.pool.PASSING_BYTES_MAX", len(txs[0]) * 2)
    assert await bench.app.process(bench.block(*txs))
    assert [bench.app.pool.get(tx) is not None for tx in txs] == [False, False, True, True]
    assert await bench.decide(*txs) == (TxResult(0, b"\0"),) * 4, "what was forgotten is opened again"


def test_the_cache_is_bounded_and_goes_by_content() -> None:
    signed = [create(asset={"n": number}).verified for number in range(4)]
    cache = VerifiedCache(entries_max=3, bytes_max=10**9)
    for verified in signed:
        cache.put(verified)
    cache.put(signed[3])
    assert len(cache) == 3
    assert cache.get(signed[0].body) is None, "the oldest leaves"
    assert cache.get(bytes(signed[3].body)) == signed[3]
    assert cache.get(signed[3].body + b" ") is None
    small = VerifiedCache(entries_max=10, bytes_max=len(signed[0].body) * 2)
    for verified in signed:
        small.put(verified)
    assert len(small) == 2
