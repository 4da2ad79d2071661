"""The one thread that fsyncs the ledger: whatever was written while one flush ran is covered by the next.

The event loop writes without syncing and goes on; it is told which mark has become durable. After a failed
flush nothing is covered any more, and the flush is never tried again: what the kernel dropped, a second fsync
would report as written.
"""

import asyncio
import collections
import sys
import threading
from collections.abc import Callable
from typing import Protocol

from bcdb.model.errors import StorageFailed

SWITCH_INTERVAL_S = 0.0005
"""How long the loop may hold the interpreter while a finished flush waits to report; Python's own is ten
times that, and would be added to every answer."""


class Flushable(Protocol):
    """The part of `Ledger` that is used here."""

    @property
    def mark(self) -> int: ...

    def flush(self) -> int: ...


class Flusher:
    """Flushes `ledger` on its own thread as long as something is not covered.

    `on_covered(mark)` is called on the event loop after every flush, before any `durable` returns;
    `on_failure(error)` once, when a flush failed.
    """

    def __init__(
        self,
        ledger: Flushable,
        *,
        on_covered: Callable[[int], None],
        on_failure: Callable[[StorageFailed], None],
    ) -> None:
        self._ledger = ledger
        self._on_covered = on_covered
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._wake = threading.Event()
        self._stopping = False
        self._failure: StorageFailed | None = None
        self._waiting: collections.deque[tuple[int, asyncio.Future[None]]] = collections.deque()
        self._thread = threading.Thread(target=self._run, name="bcdb-flusher", daemon=True)
        self.covered = 0
        self.flushes = 0

    def start(self) -> None:
        """Begin with a flush, so that what a replay found is durable before anything is said about it."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._wake.set()
        self._thread.start()

    def request(self) -> None:
        """Something was written: flush it as soon as the flush that may be running has ended."""
        self._wake.set()

    async def durable(self, mark: int) -> None:
        """Return once everything up to `mark` is on disk. Raises `StorageFailed`."""
        if self._failure is not None:
            raise self._failure
        if mark <= self.covered:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((mark, future))
        await future

    def stop(self) -> None:
        """End the thread after the flush that runs, and wait for it."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def fail(self, error: StorageFailed) -> None:
        """The ledger failed, here or in a write of the loop's: nobody's data becomes durable from now on."""
        if self._failure is not None:
            return
        self._failure = error
        waiting, self._waiting = self._waiting, collections.deque()
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)
        self._on_failure(error)

    def _run(self) -> None:
        covered = -1
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._stopping:
                return
            if self._ledger.mark == covered:
                continue  # what woke the thread was written while it was about to flush
            try:
                covered = self._ledger.flush()
            except Exception as error:
                if not isinstance(error, StorageFailed):
                    error = StorageFailed(f"A flush failed: {error!r}")
                self._loop.call_soon_threadsafe(self.fail, error)
                return
            self._loop.call_soon_threadsafe(self._covered, covered)

    def _covered(self, mark: int) -> None:
        if self._failure is not None:
            return
        self.covered = max(self.covered, mark)
        self.flushes += 1
        self._on_covered(self.covered)
        waiting = self._waiting
        while waiting and waiting[0][0] <= self.covered:
            future = waiting.popleft()[1]
            if not future.done():
                future.set_result(None)
