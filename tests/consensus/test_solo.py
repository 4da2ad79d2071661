"""The embedded engine: the order of its calls, its clock and hashes, and odd applications."""

import asyncio
import dataclasses

import pytest

from consensus.engine import (
    Admission,
    AppInfo,
    Block,
    CheckResult,
    Committed,
    EngineError,
    Finalized,
    Genesis,
    InitResult,
    Proposal,
    Refused,
    TxResult,
)
from consensus.solo import SoloEngine, address, checkpoint_message

ROOT = b"\x11" * 32
LIMIT = 100


class Signer:
    public_key = b"\x07" * 32

    def sign(self, message: bytes) -> bytes:
        return message[:64].ljust(64, b"\0")


class Recorder:
    """An application that writes down what it is asked."""

    def __init__(self, info: AppInfo | None = None) -> None:
        self.calls: list[str] = []
        self.blocks: list[Block] = []
        self.proposals: list[Proposal] = []
        self.start = info or AppInfo(0, ROOT, 1, b"", 0)
        self.genesis: Genesis | None = None
        self.accepts = True
        self.unready: set[bytes] = set()
        self.dead: set[bytes] = set()
        self.fails = False
        self.results_per_tx = 1
        self.committed = asyncio.Event()

    def info(self) -> AppInfo:
        self.calls.append("info")
        return self.start

    async def init_chain(self, genesis: Genesis) -> InitResult:
        self.calls.append("init_chain")
        self.genesis = genesis
        return InitResult(ROOT, ())

    def check(self, tx: bytes, *, recheck: bool) -> CheckResult:
        self.calls.append("recheck" if recheck else "check")
        if tx in self.dead or tx == b"bad":
            return CheckResult(3, "unwanted")
        return CheckResult()

    async def prepare(self, proposal: Proposal) -> tuple[bytes, ...]:
        self.calls.append("prepare")
        self.proposals.append(proposal)
        chosen: list[bytes] = []
        for tx in proposal.txs:
            if tx not in self.unready and sum(map(len, chosen)) + len(tx) <= proposal.bytes_max:
                chosen.append(tx)
        return tuple(chosen)

    async def process(self, block: Block) -> bool:
        self.calls.append("process")
        return self.accepts

    async def finalize(self, block: Block) -> Finalized:
        self.calls.append("finalize")
        if self.fails:
            raise RuntimeError("broken application")
        self.blocks.append(block)
        results = tuple(TxResult(0, b"") for _ in block.txs) * self.results_per_tx
        return Finalized(results, bytes([block.height]) * 32)

    async def commit(self) -> Committed:
        self.calls.append("commit")
        await asyncio.sleep(0)
        self.committed.set()
        return Committed()


class Clock:
    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def engine(clock: Clock | None = None) -> SoloEngine:
    return SoloEngine(chain_id="test", signer=Signer(), block_bytes_max=LIMIT, clock=clock or Clock(1_000))


async def until_blocks(application: Recorder, count: int) -> None:
    async with asyncio.timeout(10):
        while application.calls.count("commit") < count:
            application.committed.clear()
            await application.committed.wait()


async def test_the_calls_come_in_the_order_of_cometbft() -> None:
    application, solo = Recorder(), engine()
    await solo.start(application)
    assert application.calls == ["info", "init_chain"]
    assert application.genesis is not None
    assert application.genesis.chain_id == "test"
    assert [v.public_key for v in application.genesis.validators] == [Signer.public_key]
    running = asyncio.create_task(solo.run())
    assert await solo.submit(b"one") is Admission.ADMITTED
    await until_blocks(application, 1)
    solo.stop()
    await running
    assert application.calls[2:] == ["check", "prepare", "process", "finalize", "commit"]


async def test_there_are_no_empty_blocks_and_one_block_takes_all_that_waits() -> None:
    application, solo = Recorder(), engine()
    await solo.start(application)
    for tx in (b"a", b"b", b"c"):
        await solo.submit(tx)
    running = asyncio.create_task(solo.run())
    await until_blocks(application, 1)
    for _ in range(20):
        await asyncio.sleep(0)
    solo.stop()
    await running
    assert [block.txs for block in application.blocks] == [(b"a", b"b", b"c")]


async def test_a_known_chain_goes_on_where_the_application_stands() -> None:
    info = AppInfo(41, b"\x22" * 32, 1, b"\x33" * 32, 5_000)
    application, solo = Recorder(info), engine(Clock(1))
    await solo.start(application)
    assert application.calls == ["info"]
    running = asyncio.create_task(solo.run())
    await solo.submit(b"a")
    await until_blocks(application, 1)
    solo.stop()
    await running
    block = application.blocks[0]
    assert block.height == 42
    assert block.time_ns == 5_001, "later than the block before, though the clock is far behind"
    assert block.proposer == address(Signer.public_key)


async def test_time_never_stands_still_or_goes_back() -> None:
    clock = Clock(10_000)
    application, solo = Recorder(), engine(clock)
    await solo.start(application)
    running = asyncio.create_task(solo.run())
    for number, now in enumerate((10_000, 10_000, 9_000, 20_000), 1):
        clock.now = now
        await solo.submit(b"tx %d" % number)
        await until_blocks(application, number)
    solo.stop()
    await running
    assert [block.time_ns for block in application.blocks] == [10_000, 10_001, 10_002, 20_000]


async def test_block_hashes_chain_and_cover_the_content() -> None:
    async def hashes(first: bytes, second: bytes) -> list[bytes]:
        application, solo = Recorder(), engine()
        await solo.start(application)
        running = asyncio.create_task(solo.run())
        for number, tx in enumerate((first, second), 1):
            await solo.submit(tx)
            await until_blocks(application, number)
        solo.stop()
        await running
        return [block.hash for block in application.blocks]

    same = await hashes(b"a", b"b")
    assert same == await hashes(b"a", b"b")
    other = await hashes(b"x", b"b")
    assert same[0] != other[0]
    assert same[1] != other[1], "the second block names the first"
    assert all(len(found) == 32 for found in same)


async def test_the_checkpoint_is_signed_over_every_field() -> None:
    application, solo = Recorder(), engine()
    await solo.start(application)
    assert solo.checkpoint is None
    running = asyncio.create_task(solo.run())
    await solo.submit(b"a")
    await until_blocks(application, 1)
    solo.stop()
    await running
    checkpoint = solo.checkpoint
    assert checkpoint is not None
    block = application.blocks[0]
    assert (checkpoint.height, checkpoint.block_hash) == (1, block.hash)
    assert checkpoint.app_hash == bytes([1]) * 32
    message = checkpoint_message("test", 1, block.time_ns, block.hash, checkpoint.app_hash)
    assert checkpoint.signatures[0].signature == Signer().sign(message)
    fields = ("test", 1, block.time_ns, block.hash, checkpoint.app_hash)
    for changed in (
        ("tesu", *fields[1:]),
        (*fields[:1], 2, *fields[2:]),
        (*fields[:2], 1, *fields[3:]),
        (*fields[:3], ROOT, fields[4]),
        (*fields[:4], ROOT),
    ):
        assert checkpoint_message(*changed) != message


async def test_what_the_application_does_not_want_is_refused() -> None:
    application, solo = Recorder(), engine()
    await solo.start(application)
    with pytest.raises(Refused) as refused:
        await solo.submit(b"bad")
    assert (refused.value.code, refused.value.text) == (3, "unwanted")
    assert application.calls[-1] == "check"


async def test_what_waits_already_is_known_and_not_checked_again() -> None:
    application, solo = Recorder(), engine()
    await solo.start(application)
    assert await solo.submit(b"a") is Admission.ADMITTED
    assert await solo.submit(b"a") is Admission.KNOWN
    assert application.calls.count("check") == 1


async def test_a_full_pool_is_back_pressure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consensus.solo.MEMPOOL_TXS_MAX", 2)
    monkeypatch.setattr("consensus.solo.MEMPOOL_BYTES_MAX", 10)
    application, solo = Recorder(), engine()
    await solo.start(application)
    assert await solo.submit(b"12345678") is Admission.ADMITTED
    assert await solo.submit(b"123") is Admission.FULL
    assert await solo.submit(b"1") is Admission.ADMITTED
    assert await solo.submit(b"2") is Admission.FULL
    running = asyncio.create_task(solo.run())
    await until_blocks(application, 1)
    solo.stop()
    await running
    assert await solo.submit(b"2") is Admission.ADMITTED


async def test_a_block_holds_no_more_than_its_bytes_and_the_rest_is_rechecked_and_follows() -> None:
    application, solo = Recorder(), engine()
    await solo.start(application)
    big = [bytes([number]) * 60 for number in range(3)]
    for tx in big:
        await solo.submit(tx)
    running = asyncio.create_task(solo.run())
    await until_blocks(application, 3)
    solo.stop()
    await running
    assert [block.txs for block in application.blocks] == [(tx,) for tx in big]
    assert application.calls.count("recheck") == 3
    assert application.proposals[0].bytes_max == LIMIT


async def test_what_is_dead_at_recheck_leaves_the_pool() -> None:
    application, solo = Recorder(), engine()
    await solo.start(application)
    first, second = b"a" * 60, b"b" * 60
    await solo.submit(first)
    await solo.submit(second)
    application.dead.add(second)
    running = asyncio.create_task(solo.run())
    await until_blocks(application, 1)
    solo.stop()
    await running
    assert application.calls.count("commit") == 1
    application.dead.clear()
    assert await solo.submit(second) is Admission.ADMITTED, "it is not known any more"


async def test_what_is_not_ready_waits_and_comes_later() -> None:
    application, solo = Recorder(), engine()
    application.unready.add(b"late")
    await solo.start(application)
    await solo.submit(b"late")
    running = asyncio.create_task(solo.run())
    async with asyncio.timeout(10):
        while "prepare" not in application.calls:
            await asyncio.sleep(0)
    assert application.blocks == []
    application.unready.clear()
    await until_blocks(application, 1)
    solo.stop()
    await running
    assert application.blocks[0].txs == (b"late",)


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ({"accepts": False}, EngineError),
        ({"fails": True}, RuntimeError),
        ({"results_per_tx": 2}, EngineError),
    ],
)
async def test_a_broken_application_ends_the_engine(
    broken: dict[str, object], error: type[Exception]
) -> None:
    application, solo = Recorder(), engine()
    for name, value in broken.items():
        setattr(application, name, value)
    await solo.start(application)
    await solo.submit(b"a")
    with pytest.raises(error):
        await solo.run()
    assert "commit" not in application.calls


async def test_stop_finishes_the_block_that_was_begun() -> None:
    application, solo = Recorder(), engine()
    await solo.start(application)
    gate = asyncio.Event()
    commit = application.commit

    async def slow_commit() -> Committed:
        await gate.wait()
        return await commit()

    application.commit = slow_commit  # type: ignore[method-assign]
    await solo.submit(b"a")
    running = asyncio.create_task(solo.run())
    async with asyncio.timeout(10):
        while "finalize" not in application.calls:
            await asyncio.sleep(0)
    solo.stop()
    await asyncio.sleep(0)
    assert not running.done()
    gate.set()
    await running
    assert application.calls[-1] == "commit"


async def test_it_can_not_be_used_before_it_is_started() -> None:
    with pytest.raises(EngineError):
        await engine().submit(b"a")


def test_what_passes_between_engine_and_application_can_not_be_changed() -> None:
    block = Block(1, 1, b"", b"", ())
    with pytest.raises(dataclasses.FrozenInstanceError):
        block.height = 2  # type: ignore[misc]
