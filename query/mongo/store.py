"""The asynchronous face of the MongoDB store: one client to ask or to write, and looks at the height.

A reader connects when it is first asked and comes back by itself after trouble. The writer remembers the
state of the store between two batches, and reads it anew after anything that went wrong.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from query.documents import Block
from query.errors import QueryError, StoreDamaged, StoreUnavailable
from query.mongo import checking, connection, finding, layout, searching
from query.mongo.asking import built
from query.mongo.connection import ANSWER_S_MAX, Client, Database
from query.mongo.layout import State
from query.mongo.writing import Places, project
from query.store import Aggregated, Checkpoint, Find, Found, Page, Status, Stored

log = logging.getLogger(__name__)

LOOK_PAUSE_S = 0.002
"""Between two looks at the height while somebody waits for one; it grows while nothing changes."""
LOOK_PAUSE_S_MAX = 0.02
LOOK_PAUSE_GROWTH = 1.1
FAULT_LOOK_S = 1.0
"""The writer looks this often whether somebody has taken its collections away."""

Result = TypeVar("Result")


class MongoStore:
    """A `query.store.QueryStore` in one MongoDB database. One process opens it with `open`, others with
    `open_reader`.
    """

    def __init__(self, uri: str, database: str, *, writes: bool, text_search: bool = True) -> None:
        self._uri = uri
        self._name = database
        self._writes = writes
        self._text_search = text_search
        self._client: Client = connection.open_client(uri, writes=writes)
        self._database: Database = connection.database_of(self._client, database)
        self._state: State | None = None
        self._places = Places()
        self._looked_s = -FAULT_LOOK_S
        self._rankings = searching.Rankings()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._looking: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._seen: int | QueryError = 0
        self._looks = 0
        self._pause_s = LOOK_PAUSE_S
        self._closed = False

    @classmethod
    async def open(cls, uri: str, database: str, text_search: bool = True) -> "MongoStore":
        """The store for its one writer. It is made anew, with a log line, if it is missing or unusable.

        To make indexes on a large store may take long; it can be read meanwhile. Raises `StoreUnavailable` if
        the database can't be reached, or has collections of somebody else.
        """
        store = cls(uri, database, writes=True, text_search=text_search)
        try:
            store._state = await store._maintain(lambda wide: layout.settle(wide, text_search))
        except BaseException:
            await store.close()
            raise
        return store

    @classmethod
    def open_reader(cls, uri: str, database: str) -> "MongoStore":
        """The store for questions only. The database need not be there yet; questions then raise
        `StoreUnavailable`, as this does for a URI that can't be understood.
        """
        return cls(uri, database, writes=False)

    # --- reading --------------------------------------------------------------------------------------------

    async def height(self) -> int:
        """See `QueryStore.height`. Takes less than a millisecond."""
        return (await self._ask(built(self._database))).checkpoint.height

    async def wait_height(self, height: int, timeout_s: float) -> int:
        """See `QueryStore.wait_height`. All who wait share one look every few milliseconds."""
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (height, reached)
        looks_before = self._looks
        self._waiting.append(waiter)
        self._pause_s = LOOK_PAUSE_S
        self._wanted.set()
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await reached
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiter)
        if self._looks == looks_before:
            raise StoreUnavailable("MongoDB does not answer")
        if isinstance(self._seen, QueryError):
            raise self._seen
        return self._seen

    async def _look(self) -> None:
        try:
            while self._waiting:
                self._wanted.clear()
                try:
                    self._seen = await self.height()
                except QueryError as error:
                    self._seen = error
                self._looks += 1
                if isinstance(self._seen, int):
                    for height, reached in self._waiting:
                        if height <= self._seen and not reached.done():
                            reached.set_result(None)
                    self._waiting = [waiter for waiter in self._waiting if not waiter[1].done()]
                if self._waiting:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._pause_s):
                            await self._wanted.wait()
                    self._pause_s = min(self._pause_s * LOOK_PAUSE_GROWTH, LOOK_PAUSE_S_MAX)
        finally:
            self._looking = None

    async def status(self) -> Status:
        """See `QueryStore.status`. The numbers of documents are MongoDB's estimates."""
        return await self._ask(checking.status(self._database))

    async def search_assets(self, text: str, limit: int, after: str | None = None) -> list[Found]:
        """See `QueryStore.search_assets`. The language of `text` is that of MongoDB's `$text`."""
        return await self._search("assets", text, limit, after)

    async def search_metadata(self, text: str, limit: int, after: str | None = None) -> list[Found]:
        """See `QueryStore.search_metadata`."""
        return await self._search("metadata", text, limit, after)

    async def _search(self, collection: str, text: str, limit: int, after: str | None) -> list[Found]:
        searching.check(text, limit)
        return await self._ask(
            searching.search(self._database, self._rankings, collection, text, limit, after)
        )

    async def find(self, question: Find) -> Page:
        """See `QueryStore.find`."""
        finding.check(question)
        return await self._ask(finding.find(self._database, question))

    async def aggregate(self, collection: str, pipeline: Sequence[Mapping[str, Any]]) -> Aggregated:
        """See `QueryStore.aggregate`."""
        return await self._ask(finding.aggregate(self._database, collection, pipeline))

    async def _ask(self, question: Awaitable[Result]) -> Result:
        with connection.asking():
            async with asyncio.timeout(ANSWER_S_MAX):
                return await question

    # --- writing --------------------------------------------------------------------------------------------

    async def checkpoint(self) -> Checkpoint:
        """See `QueryStore.checkpoint`. Raises `StoreDamaged`, `StoreUnavailable`."""
        with connection.using():
            return (await self._read_state()).checkpoint

    async def project(self, blocks: Sequence[Block]) -> int:
        """See `QueryStore.project`. All of it is written when a majority of the replica set has it."""
        assert self._writes, "a store that was opened with open_reader does not write"
        with connection.using():
            # Whatever happens now, the state is known again only when all has gone well.
            state, self._state = self._state, None
            if state is None:
                state = await self._read_state()
            self._state = await project(self._database, state, self._places, blocks)
        return self._state.checkpoint.height

    async def fault(self) -> str | None:
        """See `QueryStore.fault`. Costs six short commands every second; makes indexes that were dropped."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._looked_s < FAULT_LOOK_S:
            return None
        self._looked_s = now_s
        with connection.using():
            try:
                state = await layout.read_state(self._database)
            except StoreDamaged as damage:
                return damage.text
            if state is None:
                return "its state was taken away"
            if not state.has(await layout.identities(self._database)):
                return "its collections are no longer those that it had"
            missing = await layout.missing_indexes(self._database, state.text_search)
        if missing:
            log.warning("The query store %s lacks %s; made again", self._name, ", ".join(missing))
            await self._maintain(lambda database: layout.complete(database, state, state.text_search))
        return None

    async def rebuild(self, reason: str, target: int) -> None:
        """See `QueryStore.rebuild`. Collections of somebody else are not dropped but refused."""
        log.warning("The query store %s is rebuilt from height 0: %s", self._name, reason)
        self._state, self._places = None, Places()
        self._state = await self._maintain(
            lambda database: layout.remake(database, Checkpoint(0, b"", target), self._text_search)
        )

    async def _read_state(self) -> State:
        state = await layout.read_state(self._database)
        if state is not None:
            return state
        if self._writes or await layout.identities(self._database):
            raise StoreDamaged("The query store has lost its state")
        raise StoreUnavailable("There is no query store yet in the MongoDB database of this node")

    async def _maintain(self, work: Callable[[Database], Awaitable[Result]]) -> Result:
        """Do what may take longer than any answer, such as to make an index."""
        client = connection.open_client(self._uri, writes=True, maintains=True)
        try:
            with connection.using():
                return await work(connection.database_of(client, self._name))
        finally:
            await client.close()

    # --- checking -------------------------------------------------------------------------------------------

    async def stored(self, collection: str, first: int, last: int) -> AsyncIterator[Stored]:
        """See `QueryStore.stored`."""
        with connection.using():
            async for found in checking.stored(self._database, collection, first, last):
                yield found

    async def strays(self, collection: str, last: int) -> AsyncIterator[Stored]:
        """See `QueryStore.strays`."""
        with connection.using():
            async for found in checking.strays(self._database, collection, last):
                yield found

    async def indexes(self) -> Sequence[str]:
        """See `QueryStore.indexes`: what MongoDB's command `validate` says, and which indexes are missing."""
        return await self._maintain(checking.indexes)

    async def close(self) -> None:
        """See `QueryStore.close`."""
        if self._closed:
            return
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        await self._client.close()
