"""The query store as a worker asks it: how new an answer must be, how many questions at a time, for how long.

The store may lag, hang or be gone at any moment. Every wait for it has a bound here, so that whoever does not
ask it never feels how it is.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Literal, NamedTuple, TypeVar

from bcdb.http.body import Disconnected
from bcdb.http.errors import ArgumentError, RequestError
from bcdb.http.metrics import QUESTION_SECONDS, QUESTIONS
from bcdb.model import limits
from bcdb.model.errors import BcdbError, Overloaded, Unavailable
from bcdb.node.link import NodeLink
from query.store import InvalidCursor, InvalidSearch, QueryError, QueryStore, SearchTimeout, Status

Kind = Literal["search", "find", "aggregate", "status"]
Result = TypeVar("Result")

log = logging.getLogger(__name__)

WAIT_MARGIN_S = 1.0
"""What a store may take beyond the time that it was told to wait for a height."""
GONE_LOOK_S = 0.1
"""A question is given up so soon after its client has gone away."""


class Seen(NamedTuple):
    """The height of the store when it was last seen, None if it never was, and whether it answers questions
    now.
    """

    height: int | None
    answers: bool


class Questions:
    """All questions of one worker to the store, which `open_store` opens for reading.

    The store may be made later than the worker, and goes away and comes back by itself.
    """

    def __init__(self, link: NodeLink, open_store: Callable[[], QueryStore]) -> None:
        self._link = link
        self._open_store = open_store
        self._store: QueryStore | None = None
        self._open = 0
        self._slots = asyncio.Semaphore(limits.QUESTIONS_AT_ONCE_MAX)
        self._looking: asyncio.Task[bool] | None = None
        self._looked_at_s = 0.0
        self._height: int | None = None

    def prepare(self) -> None:
        """Open the store now if that can be done, so that the first question need not wait for it."""
        with contextlib.suppress(QueryError):
            self._opened()

    async def ask(
        self,
        kind: Kind,
        question: Callable[[QueryStore, int], Awaitable[Result]],
        min_height: int | None = None,
        gone: Callable[[], bool] = lambda: False,
    ) -> Result:
        """The result of `question`, which is called with the store and the height that it has.

        Before it the store is waited for, up to `limits.SEARCH_WAIT_S_MAX`: with `min_height` until it is so
        far, without until it is where the ledger is now; then a store that is behind answers all the same. 0
        waits for nothing. Raises `ArgumentError` for a cursor that is none, `RequestError` for what can't be
        answered, `Overloaded`, `Unavailable` if the store is away, hangs or is below `min_height`, and
        `Disconnected` soon after `gone` says that nobody waits for the answer any more.
        """

        async def work() -> Result:
            store = self._opened()
            height = await self._fresh(store, min_height)
            return await self._answered(lambda: question(store, height))

        with self._counted(kind):
            return await _while_wanted(work(), gone)

    async def status(self) -> Status:
        """What the store tells of itself, also while it is being built. Raises `Overloaded`,
        `Unavailable`.
        """
        with self._counted("status"):
            return await self._answered(self._opened().status)

    async def look(self) -> Seen:
        """How the store is, within `limits.STORE_LOOK_S_MAX` however it is: all who look share one look."""
        now_s = asyncio.get_running_loop().time()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
            self._looked_at_s = now_s
        left_s = self._looked_at_s + limits.STORE_LOOK_S_MAX - now_s
        if left_s > 0:
            await asyncio.wait([self._looking], timeout=left_s)
        return Seen(self._height, self._looking.done() and self._looking.result())

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        if self._store is not None:
            await self._store.close()
            self._store = None

    # --- parts of a question --------------------------------------------------------------------------------

    def _opened(self) -> QueryStore:
        if self._store is None:
            self._store = self._open_store()
        return self._store

    async def _fresh(self, store: QueryStore, min_height: int | None) -> int:
        if min_height == 0:
            return await _bounded(store.height(), limits.QUESTION_S_MAX)
        target = (await self._link.newest()).height if min_height is None else min_height
        wait_s = limits.SEARCH_WAIT_S_MAX
        height = await _bounded(store.wait_height(target, wait_s), wait_s + WAIT_MARGIN_S)
        if min_height is not None and height < min_height:
            raise Unavailable(
                f"The query store is at height {height} and the ledger at {self._link.head.height}; "
                f"`min_height` asks for {min_height}"
            )
        return height

    async def _answered(self, question: Callable[[], Awaitable[Result]]) -> Result:
        try:
            async with asyncio.timeout(limits.QUESTION_QUEUE_S_MAX):
                await self._slots.acquire()
        except TimeoutError:
            raise Overloaded(
                f"{limits.QUESTIONS_AT_ONCE_MAX} questions are being answered here, and others wait"
            ) from None
        try:
            return await _bounded(question(), limits.QUESTION_S_MAX)
        finally:
            self._slots.release()

    @contextlib.contextmanager
    def _counted(self, kind: Kind) -> Iterator[None]:
        """Let a question in, count how it ends, and turn the errors of the store into those of this API."""
        started_s = time.perf_counter()
        outcome = "failed"
        try:
            if self._open >= limits.QUESTIONS_OPEN_MAX:
                raise Overloaded(f"{limits.QUESTIONS_OPEN_MAX} questions wait here already")
            self._open += 1
            try:
                yield
            finally:
                self._open -= 1
            outcome = "answered"
        except SearchTimeout as error:
            outcome = "too_broad"
            raise RequestError(400, error.text) from None
        except InvalidCursor as error:
            outcome = "refused"
            raise ArgumentError("after", error.text) from None
        except InvalidSearch as error:
            outcome = "refused"
            raise RequestError(400, error.text) from None
        except QueryError as error:
            outcome = "unavailable"
            raise Unavailable(error.text) from None
        except Disconnected:
            outcome = "given_up"
            raise
        except BcdbError as error:
            outcome = {Overloaded: "overloaded", Unavailable: "unavailable"}.get(type(error), "refused")
            raise
        finally:
            QUESTIONS.labels(kind, outcome).inc()
            QUESTION_SECONDS.labels(kind).observe(time.perf_counter() - started_s)

    async def _look(self) -> bool:
        """Note the height; whether questions are answered. A store that is being built tells only its
        height.
        """
        try:
            async with asyncio.timeout(limits.QUESTION_S_MAX):
                store = self._opened()
                try:
                    self._height = await store.height()
                    return True
                except QueryError:
                    self._height = (await store.status()).height
        except (QueryError, TimeoutError):
            pass
        except Exception:
            log.exception("The query store can't be looked at")
        return False


async def _while_wanted(work: Coroutine[Any, Any, Result], gone: Callable[[], bool]) -> Result:
    """The result of `work`, which ends early, with `Disconnected`, when `gone` says so.

    Else those who ask for much and hang up would leave no turn to those who stay.
    """
    working = asyncio.create_task(work)
    try:
        while not working.done():
            await asyncio.wait([working], timeout=GONE_LOOK_S)
            if not working.done() and gone():
                raise Disconnected
        return working.result()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def _bounded(work: Awaitable[Result], timeout_s: float) -> Result:
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError:
        raise Unavailable(f"The query store has not answered for {timeout_s:g} s") from None
