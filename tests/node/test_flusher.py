"""The flushing thread: what a flush covers, what a failed one means."""

import asyncio
import threading

import pytest

from bcdb.model.errors import StorageFailed
from bcdb.node.flusher import Flusher


class Disk:
    """A ledger that counts its flushes and holds them while `gate` is shut."""

    def __init__(self) -> None:
        self.mark = 0
        self.flushed: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.error: Exception | None = None

    def flush(self) -> int:
        covered = self.mark
        self.begun.set()
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        self.flushed.append(covered)
        return covered


class Bench:
    def __init__(self) -> None:
        self.disk = Disk()
        self.covered: list[int] = []
        self.failures: list[StorageFailed] = []
        self.flusher = Flusher(self.disk, on_covered=self.covered.append, on_failure=self.failures.append)

    def write(self) -> int:
        self.disk.mark += 1
        self.flusher.request()
        return self.disk.mark


async def test_the_first_flush_needs_no_request() -> None:
    bench = Bench()
    bench.disk.mark = 3
    bench.flusher.start()
    async with asyncio.timeout(20):
        while bench.covered != [3]:
            await asyncio.sleep(0.001)
    bench.flusher.stop()


async def test_one_flush_covers_all_that_was_written_during_the_one_before() -> None:
    bench = Bench()
    bench.flusher.start()
    bench.disk.gate.clear()
    bench.disk.begun.clear()
    first = bench.write()
    await asyncio.to_thread(bench.disk.begun.wait, 20)
    last = 0
    for _ in range(100):
        last = bench.write()
    waiting = asyncio.ensure_future(bench.flusher.durable(last))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    bench.disk.gate.set()
    await bench.flusher.durable(first)
    await waiting
    assert bench.disk.flushed[-1] == last
    assert len(bench.disk.flushed) <= 4
    assert bench.flusher.covered == last
    await bench.flusher.durable(last)
    bench.flusher.stop()


async def test_who_is_told_of_a_flush_first() -> None:
    bench = Bench()
    bench.flusher.start()
    mark = bench.write()
    await bench.flusher.durable(mark)
    assert bench.covered[-1] == mark
    bench.flusher.stop()


@pytest.mark.parametrize("error", [StorageFailed("no disk"), OSError("no disk")])
async def test_a_failed_flush_is_the_last_one(error: Exception) -> None:
    bench = Bench()
    bench.flusher.start()
    await bench.flusher.durable(bench.write())
    bench.disk.error = error
    flushed = len(bench.disk.flushed)
    waiting = asyncio.ensure_future(bench.flusher.durable(bench.write()))
    with pytest.raises(StorageFailed, match="no disk"):
        await waiting
    bench.disk.error = None
    with pytest.raises(StorageFailed):
        await bench.flusher.durable(bench.write())
    await asyncio.sleep(0.02)
    assert len(bench.disk.flushed) == flushed
    assert len(bench.failures) == 1
    bench.flusher.stop()


async def test_a_failure_of_the_loop_ends_all_waiting_and_hides_a_late_flush() -> None:
    bench = Bench()
    bench.flusher.start()
    bench.disk.gate.clear()
    waiting = asyncio.ensure_future(bench.flusher.durable(bench.write()))
    await asyncio.sleep(0)
    covered = list(bench.covered)
    bench.flusher.fail(StorageFailed("a write failed"))
    with pytest.raises(StorageFailed, match="a write failed"):
        await waiting
    bench.disk.gate.set()
    bench.flusher.stop()
    await asyncio.sleep(0.01)
    assert bench.covered == covered
