"""A worker's end of the socket to the node process.

What a worker sends in one turn of its event loop leaves in one write. There is no reconnecting: when the node
is gone every waiting caller gets `Unavailable`, and the worker ends with it (`wait_closed`).
"""

import asyncio
import collections
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from bcdb.ledger import Head
from bcdb.model import limits
from bcdb.model.errors import BcdbError, Overloaded, Unavailable, ValidationError
from bcdb.model.transaction import Verified
from bcdb.model.validation import verify_canonical
from bcdb.node import protocol
from bcdb.node.protocol import LocalStatus, NodeInfo, ProtocolError, Settled
from bcdb.node.published import PublishedHeight, published_path

CONNECT_PAUSE_S = 0.05
SUBMIT_FRAME_BYTES = 1024 * 1024
"""A `Submit` is sent before its bodies pass this, so that no frame comes near the limit."""
VERIFY_SLICE_ITEMS = 16
VERIFY_SLICE_BYTES = 32 * 1024
"""Transactions verified for the node before this worker looks at its other work again."""

Listener = Callable[[Head], None]


class NodeLink(asyncio.Protocol):
    """One connection to the node process; make it with `connect`."""

    def __init__(self, name: str, *, verifies: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._name = name
        self._verifies = verifies
        self._splitter = protocol.FrameSplitter()
        self._transport: asyncio.Transport | None = None
        self._head: Head | None = None
        self._published: PublishedHeight | None = None
        self._chain_id = ""
        self._welcome: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._gone = Unavailable("The node process is not connected")
        self._next_number = 1
        self._submits: dict[int, asyncio.Future[None]] = {}
        self._requests: dict[int, asyncio.Future[Any]] = {}
        self._gathered: list[Verified] = []
        self._gathered_bytes = 0
        self._output: list[bytearray] = []
        self._write_planned = False
        self._listeners: list[Listener] = []
        self._height_waiters: dict[asyncio.Future[Head], int] = {}
        self._verifying: collections.deque[protocol.VerifyRequest] = collections.deque()
        self._verify_task: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls, socket_path: Path, *, name: str, verifies: bool = False, timeout_s: float = 10.0
    ) -> "NodeLink":
        """Connect to the node, trying again until `timeout_s` is over while it is still starting.

        `verifies`: this process also verifies transactions that the node hands to it (API workers do).
        Raises `Unavailable`, or `ProtocolError` when the node is of another version.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        link = cls(name, verifies=verifies)
        while True:
            try:
                await loop.create_unix_connection(lambda: link, str(socket_path))
                break
            except OSError as error:
                if loop.time() >= deadline:
                    text = f"The node process does not listen at {socket_path}: {error}"
                    raise Unavailable(text) from error
                await asyncio.sleep(CONNECT_PAUSE_S)
        try:
            await asyncio.wait_for(link._welcome, max(deadline - loop.time(), 1.0))
        except TimeoutError:
            link.close()
            raise Unavailable("The node process took the connection but did not answer") from None
        link._published = PublishedHeight(published_path(socket_path), writes=False)
        return link

    # --- what callers use -----------------------------------------------------------------------------------

    @property
    def head(self) -> Head:
        """The last published block."""
        return cast(Head, self._head)

    async def newest(self) -> Head:
        """The last published block, also if this link has not been told of it yet. Raises `Unavailable`."""
        head, published = self.head, self._published
        if published is None or published.value <= head.height:
            return head
        return await self.wait_height(published.value)

    @property
    def chain_id(self) -> str:
        return self._chain_id

    @property
    def is_open(self) -> bool:
        return not self._closed.done()

    async def wait_closed(self) -> None:
        """Return once the connection is gone."""
        await asyncio.shield(self._closed)

    def close(self) -> None:
        """Cut the connection; everything that still waits gets `Unavailable`."""
        if self._transport is not None:
            self._transport.abort()

    def submit_nowait(self, verified: Verified) -> asyncio.Future[None]:
        """Give a transaction to the node; the future is done once it is durable.

        The future raises the `ValidationError` that refused it, `Overloaded` or `Unavailable`. When it is
        `Unavailable` because the node went away, the transaction may be durable all the same.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        if self._closed.done():
            future.set_exception(self._gone)
            return future
        if len(self._submits) >= limits.LINK_SUBMITS_MAX:
            busy = f"{limits.LINK_SUBMITS_MAX} transactions wait for the node already"
            future.set_exception(Overloaded(busy))
            return future
        number = self._next_number
        self._next_number = number + 1
        self._submits[number] = future
        self._gathered.append(verified)
        self._gathered_bytes += len(verified.body)
        if self._gathered_bytes >= SUBMIT_FRAME_BYTES:
            self._seal()
        if not self._write_planned:
            self._write_planned = True
            self._loop.call_soon(self._write)
        return future

    async def submit(self, verified: Verified) -> None:
        """Give a transaction to the node and return once it is durable. Raises as `submit_nowait` tells."""
        await self.submit_nowait(verified)

    async def submit_and_wait(self, verified: Verified, timeout_s: float) -> Settled:
        """Submit, then wait until it is settled and published, `timeout_s` in all.

        Gives "pending" when the time is over first: the transaction is durable and stays. Raises as
        `submit_nowait` tells.
        """
        if len(self._requests) >= limits.LINK_REQUESTS_MAX:
            raise self._busy()  # before anything is stored
        accepted = self.submit_nowait(verified)
        number, settled = self._request(lambda number: protocol.Await(number, verified.id))
        try:
            async with asyncio.timeout(timeout_s):
                await accepted
                return cast(Settled, await settled)
        except TimeoutError:
            if not accepted.done() or accepted.cancelled():
                raise Unavailable("The node did not make the transaction durable in time") from None
            return Settled("pending")
        finally:
            self._drop(number)

    async def settled(self, transaction_id: bytes, timeout_s: float) -> Settled:
        """Wait until an accepted id is settled and published; "pending" when the time is over first."""
        number, settled = self._request(lambda number: protocol.Await(number, transaction_id))
        try:
            async with asyncio.timeout(timeout_s):
                return cast(Settled, await settled)
        except TimeoutError:
            return Settled("pending")
        finally:
            self._drop(number)

    async def status(self, transaction_id: bytes) -> LocalStatus:
        """What the node knows of this id. Raises `Unavailable`."""
        return cast(LocalStatus, await self._ask(lambda number: protocol.AskStatus(number, transaction_id)))

    async def info(self) -> NodeInfo:
        """The node process's own figures. Raises `Unavailable`."""
        return cast(NodeInfo, await self._ask(protocol.AskInfo))

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(head)` for every newly published block; what is returned ends that.

        Heights may be skipped when blocks come fast; the listener must not block.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def wait_height(self, height: int, timeout_s: float | None = None) -> Head:
        """Wait until `height` is published and give the head then; when `timeout_s` is over, the head as it
        is.

        Raises `Unavailable` when the node goes away first.
        """
        if self.head.height >= height:
            return self.head
        if self._closed.done():
            raise self._gone
        future: asyncio.Future[Head] = self._loop.create_future()
        self._height_waiters[future] = height
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            return self.head
        finally:
            self._height_waiters.pop(future, None)

    # --- sending --------------------------------------------------------------------------------------------

    def _seal(self) -> None:
        """Make the gathered transactions a frame; their numbers are the last ones given out."""
        items = self._gathered
        if not items:
            return
        self._gathered, self._gathered_bytes = [], 0
        self._output.append(protocol.encode(protocol.Submit(self._next_number - len(items), items)))

    def _send(self, message: protocol.ToNode) -> None:
        self._seal()
        self._output.append(protocol.encode(message))
        if not self._write_planned:
            self._write_planned = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._write_planned = False
        self._seal()
        output, self._output = self._output, []
        if self._transport is not None and not self._closed.done():
            self._transport.writelines(output)

    def _request(self, message: Callable[[int], protocol.ToNode]) -> tuple[int, asyncio.Future[Any]]:
        self._seal()
        future: asyncio.Future[Any] = self._loop.create_future()
        number = self._next_number
        self._next_number = number + 1
        if self._closed.done() or len(self._requests) >= limits.LINK_REQUESTS_MAX:
            future.set_exception(self._gone if self._closed.done() else self._busy())
            future.exception()  # counts as seen: not every caller comes to await it
            return number, future
        self._requests[number] = future
        self._send(message(number))
        return number, future

    async def _ask(self, message: Callable[[int], protocol.ToNode]) -> Any:
        number, future = self._request(message)
        try:
            return await future
        finally:
            self._drop(number)

    def _busy(self) -> Overloaded:
        return Overloaded(f"{limits.LINK_REQUESTS_MAX} requests wait for the node already")

    def _drop(self, number: int) -> None:
        """Nobody waits for this request any more; tell the node if it still does."""
        future = self._requests.pop(number, None)
        if future is None:
            return
        future.cancel()
        if not self._closed.done():
            self._send(protocol.Forget(number))

    # --- receiving ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send(protocol.Hello(protocol.VERSION, self._name, self._verifies))

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._splitter.feed(data):
                self._receive(protocol.decode_to_worker(frame))
        except ProtocolError as error:
            self._lose(Unavailable(error.text))

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(self._gone)

    def _receive(self, message: protocol.ToWorker) -> None:
        match message:
            case protocol.Answered():
                self._on_answered(message)
            case protocol.Published(head):
                self._on_published(head)
            case (
                protocol.SettledAnswer(number, answer)
                | protocol.StatusAnswer(number, answer)
                | protocol.InfoAnswer(number, answer)
            ):
                future = self._requests.pop(number, None)
                if future is not None and not future.done():
                    future.set_result(answer)
            case protocol.Declined(number, name, text):
                future = self._requests.pop(number, None)
                if future is not None and not future.done():
                    future.set_exception(protocol.restore_error(name, text))
            case protocol.VerifyRequest():
                self._verifying.append(message)
                if self._verify_task is None:
                    self._verify_task = self._loop.create_task(self._verify())
            case protocol.Welcome(version, chain_id, head):
                if version != protocol.VERSION:
                    text = (
                        f"The node speaks version {version} of the protocol, this process {protocol.VERSION}"
                    )
                    raise ProtocolError(text)
                self._chain_id, self._head = chain_id, head
                if not self._welcome.done():
                    self._welcome.set_result(None)

    def _on_answered(self, message: protocol.Answered) -> None:
        first, submits = message.first, self._submits
        for refusal in message.refusals:
            future = submits.pop(first + refusal.offset, None)
            if future is not None and not future.done():
                future.set_exception(protocol.restore_error(refusal.name, refusal.text))
        for number in range(first, first + message.count):
            future = submits.pop(number, None)
            if future is not None and not future.done():
                future.set_result(None)

    def _on_published(self, head: Head) -> None:
        self._head = head
        waiting = self._height_waiters
        if waiting:
            for future in [future for future, height in waiting.items() if height <= head.height]:
                del waiting[future]
                if not future.done():
                    future.set_result(head)
        for listener in tuple(self._listeners):
            try:
                listener(head)
            except Exception as error:
                self._loop.call_exception_handler(
                    {"message": "A listener for published blocks failed", "exception": error}
                )

    async def _verify(self) -> None:
        try:
            while self._verifying:
                request = self._verifying.popleft()
                verified: list[Verified | None] = []
                failures: list[protocol.Refusal] = []
                for some in verify_slices(request.bodies):
                    verify_slice(some, verified, failures)
                    await asyncio.sleep(0)
                if self._closed.done():
                    return
                self._send(protocol.VerifyResult(request.number, verified, failures))
        except BaseException:
            # Whoever can't verify must not look as if he did: the node gives his work to others.
            self.close()
            raise
        finally:
            self._verify_task = None

    def _lose(self, error: BcdbError) -> None:
        if self._closed.done():
            return
        self._closed.set_result(None)
        self.close()
        waiting: list[asyncio.Future[Any]] = [self._welcome, *self._submits.values()]
        waiting += self._requests.values()
        waiting += self._height_waiters
        self._submits, self._requests, self._height_waiters = {}, {}, {}
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # counts as seen: a caller that gave up meanwhile needs no log line


def verify_slices(bodies: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """The bodies in portions that take some milliseconds each, unless one alone takes longer."""
    start = size = 0
    for at, body in enumerate(bodies):
        if at > start and (at - start >= VERIFY_SLICE_ITEMS or size + len(body) > VERIFY_SLICE_BYTES):
            yield bodies[start:at]
            start, size = at, 0
        size += len(body)
    yield bodies[start:]


def verify_slice(
    bodies: Sequence[bytes], verified: list[Verified | None], failures: list[protocol.Refusal]
) -> None:
    """Verify bodies as they stand in a bundle, appending one entry for each, None where it failed."""
    for body in bodies:
        try:
            verified.append(verify_canonical(body))
        except ValidationError as error:
            failures.append(protocol.Refusal(len(verified), error.name, error.text))
            verified.append(None)
