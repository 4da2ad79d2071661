"""HTTP/1.1 to one server of this machine, as lean as the way of a write wants it: POST a body, get a body.

A request is one write, and connections are kept for the next one. What general clients do beside that cost
more than everything else that is done for a bundle here. Knows nothing of what is asked.
"""

import asyncio
import time
from pathlib import Path
from typing import cast

import httptools

CONNECTIONS_MAX = 32
IDLE_S_MAX = 5.0
"""CometBFT closes a connection that is silent for 10 s; one that it may be about to close is not used."""
HEADERS_BYTES_MAX = 64 * 1024


class ChannelError(Exception):
    """The server can't be reached, or what it answers is no HTTP. Says what happened."""


class AnswerTooLong(Exception):
    """The answer has more bytes than the caller wants."""


class Channel:
    """Connections to `address`: a Unix socket's path, or a host and a port. Requests may run at once."""

    def __init__(self, address: Path | tuple[str, int]) -> None:
        self._address = address
        self._idle: list[_Connection] = []
        self._room = asyncio.Semaphore(CONNECTIONS_MAX)

    async def post(self, body: bytes, *, bytes_max: int) -> bytes:
        """The body of the answer, whatever its status. Raises `ChannelError`, `AnswerTooLong`.

        It waits for as long as the server likes; a caller that gives up ends the connection.
        """
        async with self._room:
            connection = self._kept() or await self._open()
            try:
                answer = await connection.post(body, bytes_max)
            except BaseException:
                connection.close()
                raise
            if connection.is_open:
                connection.since_s = time.monotonic()
                self._idle.append(connection)
            return answer

    def close(self) -> None:
        """Close what is not in use. May be called again, and posting goes on to work."""
        while self._idle:
            self._idle.pop().close()

    def _kept(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and time.monotonic() - connection.since_s < IDLE_S_MAX:
                return connection
            connection.close()
        return None

    async def _open(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            if isinstance(self._address, Path):
                _, made = await loop.create_unix_connection(_Connection, str(self._address))
            else:
                _, made = await loop.create_connection(_Connection, *self._address)
        except OSError as error:
            raise ChannelError(error.strerror or type(error).__name__) from error
        return made


class _Connection(asyncio.Protocol):
    """One connection, with at most one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._bytes_max = 0
        self._headers_bytes = 0
        self._content = bytearray()
        self._parser = httptools.HttpResponseParser(self)
        self.since_s = 0.0

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def post(self, body: bytes, bytes_max: int) -> bytes:
        if self._transport is None:
            raise ChannelError("the connection was closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._bytes_max = bytes_max
        self._headers_bytes = 0
        self._content = bytearray()
        self._parser = httptools.HttpResponseParser(self)
        head = (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        self._transport.write(head + body)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- the transport's side -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._fail(ChannelError("the connection was closed"))

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            # Nothing was asked.
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ChannelError(f"the answer is no HTTP: {error}"))
        if self._headers_bytes > HEADERS_BYTES_MAX or len(self._content) > self._bytes_max:
            self._fail(AnswerTooLong())

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.close()

    # --- the parser's side ----------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers_bytes += len(name) + len(value)

    def on_body(self, part: bytes) -> None:
        if len(self._content) <= self._bytes_max:
            self._content += part

    def on_message_complete(self) -> None:
        if len(self._content) > self._bytes_max:
            return
        if not self._parser.should_keep_alive():
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(bytes(self._content))
