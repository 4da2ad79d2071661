"""An engine that outlives CometBFT, over runs that only pretend."""

import asyncio
from collections.abc import Callable

import pytest

from consensus.cometbft import lasting
from consensus.cometbft.lasting import LastingEngine
from consensus.cometbft.process import ProcessError
from consensus.cometbft.rpc import RpcError, RpcUnavailable
from consensus.engine import Admission, Application, Checkpoint, Condition, EngineError, Refused, Validator
from tests.support.cometbft import Application as Ordered


class Pretended:
    """A run that ends when it is told to."""

    name = "pretended"

    def __init__(self, *, unable: Exception | None = None) -> None:
        self.unable = unable
        self.application_failed = False
        self.started = asyncio.Event()
        self.ends: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answers: list[Admission | Exception] = []
        self.on_restart: Callable[[], None] = lambda: None

    @property
    def validators(self) -> tuple[Validator, ...]:
        return ()

    @property
    def checkpoint(self) -> Checkpoint | None:
        return None

    @property
    def condition(self) -> Condition:
        return Condition(peers=3)

    async def start(self, application: Application) -> None:
        self.started.set()
        if self.unable is not None:
            raise self.unable

    async def run(self) -> None:
        await self.ends

    async def submit(self, tx: bytes) -> Admission:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stop(self) -> None:
        if not self.ends.done():
            self.ends.set_result(None)

    def crash(self) -> None:
        self.ends.set_exception(ProcessError("CometBFT was ended by signal 9; it said: nothing"))


class Bench:
    def __init__(self, *runs: Pretended) -> None:
        self.runs = list(runs)
        self.left = list(runs)
        self.restarts = 0
        self.engine = LastingEngine(lambda: self.left.pop(0))
        self.engine.on_restart = self.restarted

    def restarted(self) -> None:
        self.restarts += 1

    async def begin(self) -> "asyncio.Task[None]":
        await self.engine.start(Ordered())
        return asyncio.create_task(self.engine.run())


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "PAUSE_S_FIRST", 0.01)
    monkeypatch.setattr(lasting, "PAUSE_S_MAX", 0.02)
    monkeypatch.setattr(lasting, "FIRST_PAUSE_S", 0.01)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_another_run_begins_when_one_ends_by_itself() -> None:
    bench = Bench(Pretended(), Pretended(), Pretended())
    task = await bench.begin()
    assert bench.engine.condition == Condition(peers=3)
    for number in (0, 1):
        bench.runs[number].crash()
        await until(lambda number=number: bench.restarts == number + 1)
    assert bench.engine.condition == Condition(peers=3)
    bench.engine.stop()
    await task


async def test_what_can_not_begin_is_tried_again_and_tells_why_meanwhile() -> None:
    bench = Bench(Pretended(), Pretended(unable=EngineError("no port")), Pretended())
    task = await bench.begin()
    bench.runs[0].answers = [Admission.ADMITTED]
    assert await bench.engine.submit(b"tx") is Admission.ADMITTED
    bench.runs[0].crash()
    await bench.runs[1].started.wait()
    await until(lambda: bench.engine.condition.text == "no port")
    assert not bench.engine.condition.is_validator
    assert await bench.engine.submit(b"tx") is Admission.FULL
    await until(lambda: bench.engine.condition.text == "")
    assert bench.restarts == 2, "told before each begin: what was there before is gone"
    bench.engine.stop()
    await task


async def test_the_first_run_must_begin() -> None:
    bench = Bench(Pretended(unable=EngineError("no binary")))
    with pytest.raises(EngineError, match="no binary"):
        await bench.engine.start(Ordered())


async def test_a_first_run_that_ends_at_once_is_tried_again() -> None:
    busy = ProcessError("CometBFT ended with code 1; it said: resource temporarily unavailable")
    bench = Bench(Pretended(unable=busy), Pretended(unable=busy), Pretended())
    task = await bench.begin()
    assert bench.engine.condition == Condition(peers=3)
    bench.engine.stop()
    await task
    bench = Bench(*(Pretended(unable=busy) for _ in range(lasting.FIRST_TRIES)))
    with pytest.raises(ProcessError):
        await bench.engine.start(Ordered())


async def test_what_the_application_raises_ends_it() -> None:
    bench = Bench(Pretended(), Pretended())
    task = await bench.begin()
    bench.runs[0].application_failed = True
    bench.runs[0].ends.set_exception(EngineError("of the application"))
    with pytest.raises(EngineError, match="of the application"):
        await task
    assert bench.left, "no other run"


async def test_what_the_application_raises_at_a_restart_ends_it_too() -> None:
    bench = Bench(Pretended(), Pretended(unable=EngineError("wrong chain")))
    bench.runs[1].application_failed = True
    task = await bench.begin()
    bench.runs[0].crash()
    with pytest.raises(EngineError, match="wrong chain"):
        await task


async def test_another_error_is_no_reason_to_go_on() -> None:
    bench = Bench(Pretended(), Pretended())
    task = await bench.begin()
    bench.runs[0].ends.set_exception(RuntimeError("a defect"))
    with pytest.raises(RuntimeError):
        await task


async def test_stop_breaks_off_the_pause_before_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "PAUSE_S_FIRST", 60.0)
    bench = Bench(Pretended(), Pretended())
    task = await bench.begin()
    bench.runs[0].crash()
    await until(lambda: bench.engine.condition.text != "")
    bench.engine.stop()
    async with asyncio.timeout(5):
        await task


@pytest.mark.parametrize("error", [RpcUnavailable("busy"), RpcError("nonsense")])
async def test_an_rpc_that_gives_no_answer_is_asked_again_later(error: Exception) -> None:
    bench = Bench(Pretended())
    await bench.begin()
    bench.runs[0].answers = [error, Refused(3, "no member")]
    assert await bench.engine.submit(b"tx") is Admission.FULL
    with pytest.raises(Refused):
        await bench.engine.submit(b"tx")
    bench.engine.stop()
