"""One connection of the ABCI socket: bytes to requests, answers to bytes, in the order of the requests.

CometBFT stops when answers come out of order, so a request waits until the one before it on the same
connection is answered; other connections do not wait. A frame is a uvarint with the length, then the message
(CometBFT v0.38, abci/types/messages.go). Whoever is at the other end may send anything: a frame that is too
long or no request ends the connection, never the server.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, cast

from google.protobuf.message import DecodeError

from consensus.cometbft.messages import Request, Response
from consensus.engine import EngineError

log = logging.getLogger(__name__)

MESSAGE_BYTES_MAX = 128 * 1024 * 1024
"""CometBFT's largest block has 100 MB; a proposal is that and some signatures."""
PREFIX_BYTES_MAX = 5
"""A uvarint of a length up to `MESSAGE_BYTES_MAX` has four; one more tells that it goes on."""
BUFFER_BYTES = 256 * 1024
REQUESTS_WAITING_MAX = 1_024
"""Nothing is read while so many wait. One read may bring several times as many: CometBFT sends what it is
given without waiting for answers."""
ANSWERS_A_TURN = 64
"""Then the event loop looks at its other work; checking a large bundle takes some milliseconds."""

Handler = Callable[[Any], Any]
"""From the message of a request to that of its answer, or to something that gives it when awaited."""


class Connection(asyncio.BufferedProtocol):
    """Serves one connection by `handlers`, which are found by the name of the request.

    `on_failure` is told what a handler raised; the connection then ends, which ends CometBFT too.
    `on_open` and `on_close` are given the connection.
    """

    def __init__(
        self,
        handlers: dict[str, Handler],
        on_failure: Callable[[BaseException], None],
        on_open: Callable[["Connection"], None],
        on_close: Callable[["Connection"], None],
    ) -> None:
        self._handlers = handlers
        self._on_failure = on_failure
        self._on_open = on_open
        self._on_close = on_close
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(BUFFER_BYTES)
        self._start = self._end = 0
        """The bytes of the buffer that are not parsed yet."""
        self._waiting: deque[Any] = deque()
        self._answering: asyncio.Task[None] | None = None
        self._answers: list[bytes] = []
        self._goes_on = False
        """Whether the next turn of the event loop goes on with answering."""
        self._writable = True

    # --- the transport's side -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._on_open(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._waiting.clear()
        if self._answering is not None:
            self._answering.cancel()
        self._on_close(self)

    def pause_writing(self) -> None:
        self._writable = False
        self._read_or_not()

    def resume_writing(self) -> None:
        self._writable = True
        self._read_or_not()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._end == len(self._buffer):
            self._make_room(self._end - self._start + 1)
        return memoryview(self._buffer)[self._end :]

    def buffer_updated(self, count: int) -> None:
        self._end += count
        try:
            self._take_requests()
        except ValueError as error:
            log.error("A connection to the ABCI socket ends: %s", error)
            self.close()
            return
        self._answer()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # --- requests in ----------------------------------------------------------------------------------------

    def _take_requests(self) -> None:
        """Parse what is whole. Raises `ValueError` for what can't be a frame."""
        while (prefix := self._prefix()) is not None:
            start, length = prefix
            if length > MESSAGE_BYTES_MAX:
                raise ValueError(f"a message of {length} bytes is longer than {MESSAGE_BYTES_MAX}")
            if self._end - start < length:
                if length > len(self._buffer) - start:
                    self._make_room(start - self._start + length)
                return
            try:
                request = Request.FromString(memoryview(self._buffer)[start : start + length])
            except DecodeError:
                raise ValueError("what was sent is no request of ABCI") from None
            self._waiting.append(request)
            self._start = start + length
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._buffer) > BUFFER_BYTES:
                self._buffer = bytearray(BUFFER_BYTES)
        self._read_or_not()

    def _prefix(self) -> tuple[int, int] | None:
        """Where the next message begins and how long it is; None while that is not known."""
        length = shift = 0
        for place in range(self._start, min(self._end, self._start + PREFIX_BYTES_MAX)):
            byte = self._buffer[place]
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                return place + 1, length
            shift += 7
        if self._end - self._start >= PREFIX_BYTES_MAX:
            raise ValueError("the length of a message has no end")
        return None

    def _make_room(self, wanted: int) -> None:
        """Move what is not parsed to the front of a buffer that holds `wanted` bytes.

        Always a new buffer, as the event loop may still look at the old one.
        """
        fresh = bytearray(max(wanted + BUFFER_BYTES // 4, BUFFER_BYTES))
        held = self._end - self._start
        fresh[:held] = memoryview(self._buffer)[self._start : self._end]
        self._buffer, self._start, self._end = fresh, 0, held

    def _read_or_not(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._writable and len(self._waiting) < REQUESTS_WAITING_MAX:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    # --- answers out ----------------------------------------------------------------------------------------

    def _answer(self) -> None:
        """Answer what waits, as far as that needs no waiting itself and in one turn; the rest is a task's."""
        if self._answering is not None or self._goes_on:
            return
        loop = asyncio.get_running_loop()
        try:
            for _ in range(min(ANSWERS_A_TURN, len(self._waiting))):
                answer = self._ask(self._waiting.popleft())
                if not isinstance(answer, bytes):
                    self._answering = loop.create_task(self._answer_on(answer))
                    break
                self._answers.append(answer)
            else:
                if self._waiting:
                    self._goes_on = True
                    loop.call_soon(self._go_on)
        except Exception as error:
            self._fail(error)
        self._send()
        self._read_or_not()

    def _go_on(self) -> None:
        self._goes_on = False
        self._answer()

    async def _answer_on(self, answer: Awaitable[bytes]) -> None:
        try:
            self._answers.append(await answer)
        except Exception as error:
            self._fail(error)
        finally:
            self._answering = None
        self._answer()

    def _ask(self, request: Any) -> bytes | Awaitable[bytes]:
        kind = request.WhichOneof("value")
        handler = self._handlers.get(kind or "")
        if handler is None:
            raise EngineError(f"This application does not answer {kind or 'an empty request'}.")
        answer = handler(getattr(request, kind))
        if isinstance(answer, Awaitable):
            return _framed_later(kind, answer)
        return framed(kind, answer)

    def _fail(self, error: Exception) -> None:
        log.error("The application failed", exc_info=error)
        self._waiting.clear()
        self._answers.append(framed("exception", Response(exception={"error": str(error)}).exception))
        self._send()
        self.close()
        self._on_failure(error)

    def _send(self) -> None:
        if self._answers and self._transport is not None:
            self._transport.write(b"".join(self._answers))
        self._answers.clear()


async def _framed_later(kind: str, answer: Awaitable[Any]) -> bytes:
    return framed(kind, await answer)


def framed(kind: str, message: Any) -> bytes:
    """The bytes of an answer of this kind: length and `Response`."""
    body: bytes = Response(**{kind: message}).SerializeToString()
    return _uvarint(len(body)) + body


def _uvarint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
