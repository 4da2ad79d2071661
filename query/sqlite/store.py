"""The asynchronous face of the SQLite store: threads for what may take long, cheap looks at the height.

Nothing here blocks the event loop for longer than one look at a small table. Readers notice by themselves
when the file is replaced by a rebuilt one, and tell the writer when they find damage.
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from query.sqlite import asking, checking, files, finding, searching, writing
from query.store import (
    Aggregated,
    Block,
    Checkpoint,
    Find,
    Found,
    InvalidSearch,
    Page,
    Status,
    Stored,
    StoreDamaged,
    StoreUnavailable,
)

log = logging.getLogger(__name__)

SEARCHES_AT_ONCE = 4
LOOK_PAUSE_S = 0.002
"""Between two looks at the height while somebody waits for one; it grows while nothing changes."""
LOOK_PAUSE_S_MAX = 0.02
LOOK_PAUSE_GROWTH = 1.1

Result = TypeVar("Result")


class SqliteStore:
    """A `query.store.QueryStore` in one SQLite file. One process opens it with `open`, others with
    `open_reader`.
    """

    def __init__(self, path: Path, *, writes: bool, text_search: bool = True) -> None:
        self._path = path
        self._writes = writes
        self._text_search = text_search
        self._connection: files.Connection | None = None
        self._written_identity: tuple[int, int] | None = None
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._readers = _Readers(path)
        self._searchers = ThreadPoolExecutor(SEARCHES_AT_ONCE, "store-search")
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._looking: asyncio.Task[None] | None = None
        self._pause_s = LOOK_PAUSE_S
        self._closed = False

    @classmethod
    def open(cls, path: Path, *, text_search: bool = True) -> "SqliteStore":
        """The store at `path` for its one writer. It is made anew, with a log line, if it is missing or
        unusable, or was made with the other choice of `text_search`.

        Raises `StoreUnavailable` when the disk refuses.
        """
        store = cls(path, writes=True, text_search=text_search)
        store._written()
        return store

    @classmethod
    def open_reader(cls, path: Path) -> "SqliteStore":
        """The store at `path` for questions only. It need not be there yet; questions then raise
        `StoreUnavailable`. Whether it offers text search stands in the file.
        """
        return cls(path, writes=False)

    # --- reading --------------------------------------------------------------------------------------------

    async def height(self) -> int:
        """See `QueryStore.height`. Takes some ten microseconds."""
        return self._readers.height()

    async def wait_height(self, height: int, timeout_s: float) -> int:
        """See `QueryStore.wait_height`. All who wait share one look every few milliseconds."""
        with contextlib.suppress(StoreUnavailable):
            if (seen := self._readers.height()) >= height:
                return seen
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (height, reached)
        self._waiting.append(waiter)
        self._pause_s = LOOK_PAUSE_S
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await reached
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiter)
        return self._readers.height()

    async def _look(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(self._pause_s)
                self._pause_s = min(self._pause_s * LOOK_PAUSE_GROWTH, LOOK_PAUSE_S_MAX)
                try:
                    seen = self._readers.height()
                except StoreUnavailable:
                    continue
                for height, reached in self._waiting:
                    if height <= seen and not reached.done():
                        reached.set_result(None)
                self._waiting = [waiter for waiter in self._waiting if not waiter[1].done()]
        finally:
            self._looking = None

    async def status(self) -> Status:
        """See `QueryStore.status`. Takes some ten microseconds."""
        return self._readers.status()

    async def search_assets(self, text: str, limit: int, after: str | None = None) -> list[Found]:
        """See `QueryStore.search_assets`."""
        return await self._search("assets", text, limit, after)

    async def search_metadata(self, text: str, limit: int, after: str | None = None) -> list[Found]:
        """See `QueryStore.search_metadata`."""
        return await self._search("metadata", text, limit, after)

    async def _search(self, collection: str, text: str, limit: int, after: str | None) -> list[Found]:
        searching.check(text, limit)
        return await self._ask(
            lambda connection, rankings: searching.search(
                connection, rankings, collection, text, limit, after
            )
        )

    async def find(self, question: Find) -> Page:
        """See `QueryStore.find`."""
        finding.check(question)
        return await self._read(lambda connection: finding.find(connection, question))

    async def aggregate(self, collection: str, pipeline: Sequence[Mapping[str, Any]]) -> Aggregated:
        """This store does not offer it: raises `InvalidSearch`."""
        raise InvalidSearch(f"Aggregation {finding.MONGODB_ONLY}")

    async def _read(self, work: Callable[[files.Connection], Result]) -> Result:
        return await self._ask(lambda connection, rankings: work(connection))

    async def _ask(self, question: Callable[[files.Connection, searching.Rankings], Result]) -> Result:
        ask = partial(self._readers.ask, question)
        return await asyncio.get_running_loop().run_in_executor(self._searchers, ask)

    # --- writing --------------------------------------------------------------------------------------------

    async def checkpoint(self) -> Checkpoint:
        """See `QueryStore.checkpoint`."""
        if not self._writes:
            return await self._read(writing.read_checkpoint)
        return await self._in_writer(writing.read_checkpoint)

    async def project(self, blocks: Sequence[Block]) -> int:
        """See `QueryStore.project`."""
        return await self._in_writer(
            lambda connection: writing.project(connection, blocks, text_search=self._text_search)
        )

    async def fault(self) -> str | None:
        """See `QueryStore.fault`. Costs two looks at the directory."""
        if self._connection is not None and files.identity(self._path) != self._written_identity:
            return "its file was taken away"
        if files.rebuild_request(self._path).exists():
            return "a reader found it damaged"
        return None

    async def rebuild(self, reason: str, target: int) -> None:
        """See `QueryStore.rebuild`."""
        log.warning("The query store %s is rebuilt from height 0: %s", self._path, reason)
        await asyncio.get_running_loop().run_in_executor(self._writer, self._replace, target)

    # --- checking -------------------------------------------------------------------------------------------

    async def stored(self, collection: str, first: int, last: int) -> AsyncIterator[Stored]:
        """See `QueryStore.stored`."""
        reading = checking.reading(collection, first, last)
        while part := await self._read(reading.part):
            for found in part:
                yield found

    async def strays(self, collection: str, last: int) -> AsyncIterator[Stored]:
        """See `QueryStore.strays`."""
        for reading in checking.strays(collection, last):
            while part := await self._read(reading.part):
                for found in part:
                    yield found

    async def indexes(self) -> Sequence[str]:
        """See `QueryStore.indexes`. Some microseconds for each word of the documents."""
        return await self._read(lambda connection: checking.faults(connection, self._path))

    async def close(self) -> None:
        """See `QueryStore.close`."""
        if self._closed:
            return
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, partial(self._searchers.shutdown, cancel_futures=True))
        self._readers.close()
        await loop.run_in_executor(self._writer, self._close_written)
        self._writer.shutdown(wait=False)

    async def _in_writer(self, work: Callable[[files.Connection], Result]) -> Result:
        def run() -> Result:
            try:
                return work(self._written())
            except files.ERRORS as error:
                raise files.error_of(error, self._path) from error

        return await asyncio.get_running_loop().run_in_executor(self._writer, run)

    def _written(self) -> files.Connection:
        assert self._writes, "a store that was opened with open_reader does not write"
        if self._connection is None:
            self._connection = files.open_writer(self._path, text_search=self._text_search)
            self._written_identity = files.identity(self._path)
        return self._connection

    def _replace(self, target: int) -> None:
        self._close_written()
        try:
            files.replace(self._path, text_search=self._text_search, target=target)
        except OSError as error:
            raise StoreUnavailable(f"The query store can't be made anew: {error.strerror}") from error
        self._written()

    def _close_written(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Readers:
    """Connections for reading, each used by one thread at a time, all to the file that is at the path now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._identity: tuple[int, int] | None = None
        self._idle: list[files.Connection] = []
        self._rankings = searching.Rankings()
        self._eye: files.Connection | None = None
        self._eye_identity: tuple[int, int] | None = None

    def height(self) -> int:
        """The height now; for the thread of the event loop only. Raises `StoreUnavailable`, also for a store
        that is being built.
        """
        checkpoint = self._see(writing.read_checkpoint)
        asking.require_built(checkpoint.height, checkpoint.target)
        return checkpoint.height

    def status(self) -> Status:
        """The same for `QueryStore.status`."""
        return self._see(checking.status)

    def _see(self, look: Callable[[files.Connection], Result]) -> Result:
        identity = files.identity(self._path)
        try:
            if self._eye is None or identity != self._eye_identity:
                self._close_eye()
                self._eye = files.open_reader(self._path)
                self._eye_identity = identity
                self._eye.execute("PRAGMA busy_timeout=0")
            return look(self._eye)
        except (*files.ERRORS, StoreDamaged) as error:
            self._close_eye()
            raise self._failure(error, identity) from error

    def ask(self, question: Callable[[files.Connection, searching.Rankings], Result]) -> Result:
        """The answer to a question, from the thread that calls."""
        identity = files.identity(self._path)
        connection = None
        try:
            connection, rankings = self._borrow(identity)
            return question(connection, rankings)
        except (*files.ERRORS, StoreDamaged) as error:
            if connection is not None:
                connection.close()
                connection = None
            raise self._failure(error, identity) from error
        finally:
            if connection is not None:
                self._give_back(connection, identity)

    def close(self) -> None:
        self._close_eye()
        with self._lock:
            for connection in self._idle:
                connection.close()
            self._idle.clear()

    def _borrow(self, identity: tuple[int, int] | None) -> tuple[files.Connection, searching.Rankings]:
        with self._lock:
            if identity != self._identity:
                for connection in self._idle:
                    connection.close()
                self._idle.clear()
                self._rankings = searching.Rankings()
                self._identity = identity
            rankings = self._rankings
            if self._idle:
                return self._idle.pop(), rankings
        return files.open_reader(self._path), rankings

    def _give_back(self, connection: files.Connection, identity: tuple[int, int] | None) -> None:
        with self._lock:
            if identity == self._identity:
                self._idle.append(connection)
                return
        connection.close()

    def _close_eye(self) -> None:
        eye, self._eye = self._eye, None
        if eye is not None:
            eye.close()

    def _failure(
        self, error: sqlite3.Error | UnicodeDecodeError | StoreDamaged, identity: tuple[int, int] | None
    ) -> StoreUnavailable:
        failure = error if isinstance(error, StoreDamaged) else files.error_of(error, self._path)
        # The writer may never touch the damaged pages and go on for ever, so it is told. Not about a file
        # that it has replaced meanwhile.
        if isinstance(failure, StoreDamaged) and identity == files.identity(self._path):
            with contextlib.suppress(OSError):
                files.rebuild_request(self._path).touch()
        return failure
