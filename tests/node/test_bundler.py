"""The bundler against an engine that has moods: what is on its way, what is kept, what is offered again."""

import asyncio
from collections.abc import Sequence

import pytest

from bcdb.ledger.bundle import decode_bundle
from bcdb.model import limits
from bcdb.model.transaction import Verified
from bcdb.node import bundler
from bcdb.node.bundler import Bundler, Window
from bcdb.node.identity import NodeSigner
from consensus.engine import Admission, Condition, Refused
from consensus.solo import SoloEngine
from tests.node.harness import CHAIN, node_pair
from tests.support.transactions import create

ITEMS = [create(asset={"n": number}).verified for number in range(10)]


class MoodyEngine(SoloEngine):
    """Takes down what it is offered and answers as it is told."""

    def __init__(self) -> None:
        super().__init__(chain_id=CHAIN, signer=NodeSigner(node_pair), block_bytes_max=1)
        self.offered: list[bytes] = []
        self.answers: list[Admission | Exception] = []
        self.mood = Condition()

    @property
    def condition(self) -> Condition:
        return self.mood

    async def submit(self, tx: bytes) -> Admission:
        self.offered.append(tx)
        answer = self.answers.pop(0) if self.answers else Admission.ADMITTED
        if isinstance(answer, Exception):
            raise answer
        return answer


class Bench:
    def __init__(self, window: Window | None = None) -> None:
        self.engine = MoodyEngine()
        self.pending = {item.id for item in ITEMS}
        self.remembered: dict[bytes, Sequence[Verified]] = {}
        self.errors: list[BaseException] = []
        self.bundler = Bundler(
            self.engine,
            chain_id=CHAIN,
            signer=NodeSigner(node_pair),
            pending=self.pending,
            remember=self.remembered.__setitem__,
            failed=self.errors.append,
            window=window,
        )
        self.bundler.begin()

    async def offers(self, count: int) -> list[list[bytes]]:
        """The ids in each bundle that was offered, once there are `count`."""
        async with asyncio.timeout(20):
            while len(self.engine.offered) < count:
                await asyncio.sleep(0.001)
        assert len(self.engine.offered) == count
        return [[item.id for item in self.remembered[raw]] for raw in self.engine.offered]

    def commit(self, *raws: bytes) -> None:
        for raw in raws:
            for item in self.remembered[raw]:
                self.pending.discard(item.id)
        self.bundler.block_committed(raws)


def ids(items: Sequence[Verified]) -> list[bytes]:
    return [item.id for item in items]


def test_the_limits_fit_into_each_other() -> None:
    largest = bundler.ENVELOPE_BYTES_MAX + limits.TRANSACTION_BYTES_MAX + bundler.ITEM_OVERHEAD_BYTES
    assert largest <= limits.BUNDLE_BYTES_MAX
    assert limits.SIGNATURES_MAX <= limits.BUNDLE_SIGNATURES_MAX
    assert limits.BUNDLE_BYTES_MAX * 4 <= limits.BLOCK_BYTES_MAX
    assert limits.BUNDLE_BYTES_MAX * 2 < limits.FRAME_BYTES_MAX


async def test_at_once_when_idle_and_fuller_while_busy() -> None:
    bench = Bench()
    bench.bundler.add(ITEMS[:1])
    assert await bench.offers(1) == [ids(ITEMS[:1])]
    bench.bundler.add(ITEMS[1:3])
    bench.bundler.add(ITEMS[3:5])
    await asyncio.sleep(0.01)
    assert len(bench.engine.offered) == 1
    bench.commit(bench.engine.offered[0])
    assert await bench.offers(2) == [ids(ITEMS[:1]), ids(ITEMS[1:5])]
    found = decode_bundle(bench.engine.offered[1], CHAIN)
    assert found.transactions == tuple(item.body for item in ITEMS[1:5])
    bench.bundler.stop()


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("BUNDLE_TRANSACTIONS_MAX", 4),
        ("BUNDLE_SIGNATURES_MAX", 4),
        ("BUNDLE_BYTES_MAX", bundler.ENVELOPE_BYTES_MAX + 5 + 4 * (len(ITEMS[0].body) + 5)),
    ],
)
async def test_a_bundle_keeps_its_bounds(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(limits, limit, value)
    bench = Bench()
    bench.bundler.add(ITEMS)
    for number in range(3):
        await bench.offers(number + 1)
        bench.commit(bench.engine.offered[-1])
    assert await bench.offers(3) == [ids(ITEMS[:4]), ids(ITEMS[4:8]), ids(ITEMS[8:])]
    bench.bundler.stop()


async def test_what_others_have_settled_is_left_out() -> None:
    bench = Bench()
    bench.bundler.add(ITEMS[:4])
    bench.pending -= set(ids(ITEMS[1:3]))
    assert await bench.offers(1) == [[ITEMS[0].id, ITEMS[3].id]]
    bench.bundler.add(ITEMS[4:5])
    bench.pending -= {ITEMS[0].id, ITEMS[3].id}
    bench.bundler.block_committed([b"somebody else's bundle"])
    assert (await bench.offers(2))[1] == [ITEMS[4].id], "a dead bundle holds nobody up"
    bench.bundler.stop()


async def test_however_much_others_have_settled_the_rest_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    room = bundler.ENVELOPE_BYTES_MAX + 5 + 2 * (len(ITEMS[0].body) + 5)
    monkeypatch.setattr(limits, "BUNDLE_BYTES_MAX", room)
    monkeypatch.setattr(limits, "BUNDLE_SIGNATURES_MAX", 2)
    bench = Bench()
    bench.bundler.add(ITEMS)
    bench.pending -= set(ids(ITEMS[:7]))
    assert await bench.offers(1) == [ids(ITEMS[7:9])]
    bench.commit(bench.engine.offered[0])
    bench.pending.clear()
    bench.bundler.block_committed([])
    bench.bundler.add(ITEMS[:7])
    await asyncio.sleep(0.01)
    assert bench.errors == []
    bench.bundler.stop()


async def test_a_block_without_it_changes_nothing() -> None:
    bench = Bench()
    bench.bundler.add(ITEMS[:1])
    await bench.offers(1)
    bench.bundler.block_committed([b"somebody else's bundle"])
    bench.bundler.add(ITEMS[1:2])
    await asyncio.sleep(0.01)
    assert len(bench.engine.offered) == 1
    bench.bundler.stop()


async def test_what_a_carried_bundle_left_open_goes_into_the_next_first() -> None:
    bench = Bench()
    bench.bundler.add(ITEMS[:3])
    await bench.offers(1)
    bench.bundler.add(ITEMS[3:4])
    bench.pending.discard(ITEMS[1].id)
    bench.bundler.block_committed([bench.engine.offered[0]])
    assert (await bench.offers(2))[1] == [ITEMS[0].id, ITEMS[2].id, ITEMS[3].id]
    bench.bundler.stop()


@pytest.mark.parametrize("answer", [Admission.FULL, Refused(1, "not now")])
async def test_back_pressure_and_refusals_are_tried_again_later(
    monkeypatch: pytest.MonkeyPatch, answer: Admission | Exception
) -> None:
    monkeypatch.setattr(bundler, "FULL_PAUSE_S", 0.01)
    bench = Bench()
    bench.engine.answers = [answer, answer]
    bench.bundler.add(ITEMS[:1])
    await bench.offers(3)
    assert len(set(bench.engine.offered)) == 1
    bench.bundler.stop()


async def test_a_lost_bundle_is_offered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundler, "RESEND_S", 0.01)
    bench = Bench()
    bench.engine.answers = [Admission.ADMITTED, Admission.KNOWN]
    bench.bundler.add(ITEMS[:1])
    async with asyncio.timeout(20):
        while len(bench.engine.offered) < 3:
            await asyncio.sleep(0.001)
    assert len(set(bench.engine.offered)) == 1
    bench.commit(bench.engine.offered[0])
    offered = len(bench.engine.offered)
    await asyncio.sleep(0.05)
    assert len(bench.engine.offered) == offered
    bench.bundler.stop()


async def test_an_engine_that_breaks_is_reported() -> None:
    bench = Bench()
    bench.engine.answers = [RuntimeError("broken")]
    bench.bundler.add(ITEMS[:1])
    await bench.offers(1)
    await asyncio.sleep(0.01)
    assert [str(error) for error in bench.errors] == ["broken"]
    bench.bundler.stop()


async def test_nothing_is_offered_after_stop() -> None:
    bench = Bench()
    bench.bundler.add(ITEMS[:1])
    bench.bundler.stop()
    await asyncio.sleep(0.01)
    bench.bundler.add(ITEMS[1:2])
    bench.bundler.block_committed([])
    await asyncio.sleep(0.01)
    assert bench.engine.offered == []


WIDE = Window(bundles=3, size_bytes=10 * limits.BUNDLE_BYTES_MAX, pace_s=0.0)


async def test_several_are_on_their_way_as_far_as_the_window_goes() -> None:
    bench = Bench(WIDE)
    for number in range(5):
        bench.bundler.add(ITEMS[number : number + 1])
        await asyncio.sleep(0.005)
    assert await bench.offers(3) == [ids(ITEMS[at : at + 1]) for at in range(3)]
    assert bench.bundler.in_flight == 3
    bench.commit(bench.engine.offered[1])
    assert (await bench.offers(4))[3] == ids(ITEMS[3:5]), "what gathered meanwhile leaves together"
    bench.bundler.stop()


async def test_the_window_is_bounded_in_bytes_but_never_shut() -> None:
    bench = Bench(Window(bundles=3, size_bytes=1, pace_s=0.0))
    bench.bundler.add(ITEMS[:1])
    await bench.offers(1)
    bench.bundler.add(ITEMS[1:2])
    await asyncio.sleep(0.01)
    assert len(bench.engine.offered) == 1
    bench.commit(bench.engine.offered[0])
    assert len(await bench.offers(2)) == 2
    bench.bundler.stop()


async def test_a_wide_window_has_a_pace() -> None:
    bench = Bench(Window(bundles=3, size_bytes=10 * limits.BUNDLE_BYTES_MAX, pace_s=0.05))
    bench.bundler.add(ITEMS[:1])
    await bench.offers(1)
    for number in range(1, 5):
        bench.bundler.add(ITEMS[number : number + 1])
        await asyncio.sleep(0)
    assert (await bench.offers(2))[1] == ids(ITEMS[1:5])
    bench.bundler.stop()


async def test_after_a_restart_of_the_engine_all_are_offered_again() -> None:
    bench = Bench(WIDE)
    for number in range(2):
        bench.bundler.add(ITEMS[number : number + 1])
        await asyncio.sleep(0.005)
    await bench.offers(2)
    bench.bundler.engine_restarted()
    await bench.offers(4)
    assert bench.engine.offered[:2] == bench.engine.offered[2:]
    bench.bundler.stop()


async def test_after_many_blocks_without_it_a_bundle_is_offered_again() -> None:
    bench = Bench(WIDE)
    bench.bundler.add(ITEMS[:1])
    await bench.offers(1)
    for _ in range(bundler.RESEND_HEIGHTS):
        bench.bundler.block_committed([b"somebody else's bundle"])
    await bench.offers(2)
    bench.bundler.stop()


async def test_the_blocks_of_the_past_say_nothing_of_a_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that catches up sees many blocks, which were made before its bundle was."""
    monkeypatch.setattr(bundler, "RESEND_S", 0.005)
    bench = Bench(WIDE)
    bench.engine.mood = Condition(is_catching_up=True)
    bench.bundler.add(ITEMS[:1])
    async with asyncio.timeout(20):
        while len(bench.engine.offered) <= 2 * bundler.OFFERS_MAX:
            await asyncio.sleep(0.001)
    assert len(set(bench.engine.offered)) == 1, "it is not made anew"
    monkeypatch.setattr(bundler, "RESEND_S", 60.0)
    await asyncio.sleep(0.02)
    offered = len(bench.engine.offered)
    for _ in range(bundler.RESEND_HEIGHTS):
        bench.bundler.block_committed([b"a block of the past"])
    await asyncio.sleep(0.01)
    assert len(bench.engine.offered) == offered
    bench.engine.mood = Condition()
    bench.bundler.block_committed([b"the first block that is new"])
    await bench.offers(offered + 1)
    bench.bundler.stop()


async def test_what_was_offered_in_vain_leaves_in_other_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundler, "RESEND_S", 0.005)
    bench = Bench(WIDE)
    bench.engine.answers = [Admission.ADMITTED] + [Admission.KNOWN] * (bundler.OFFERS_MAX - 1)
    bench.bundler.add(ITEMS[:2])
    await asyncio.sleep(0.1)
    assert len(bench.engine.offered) > bundler.OFFERS_MAX
    assert len(set(bench.engine.offered)) == 1, "while no blocks are made, that says nothing"
    async with asyncio.timeout(20):
        while len(set(bench.engine.offered)) < 2:
            bench.bundler.block_committed([b"somebody else's bundle"])
            await asyncio.sleep(0.01)
    first, second = dict.fromkeys(bench.engine.offered)
    assert (decode_bundle(first, CHAIN).attempt, decode_bundle(second, CHAIN).attempt) == (0, 1)
    assert decode_bundle(second, CHAIN).transactions == decode_bundle(first, CHAIN).transactions
    bench.commit(first)
    await asyncio.sleep(0.01)
    assert bench.bundler.in_flight == 0, "the first one may come after all"
    bench.bundler.stop()


async def test_nothing_leaves_before_the_engine_has_begun() -> None:
    bench = Bench()
    made = Bundler(
        bench.engine,
        chain_id=CHAIN,
        signer=NodeSigner(node_pair),
        pending=bench.pending,
        remember=bench.remembered.__setitem__,
        failed=bench.errors.append,
    )
    made.add(ITEMS[:2])
    await asyncio.sleep(0.01)
    assert bench.engine.offered == []
    made.begin()
    assert await bench.offers(1) == [ids(ITEMS[:2])]
    made.stop()
