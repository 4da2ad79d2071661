"""The web server of a worker: uvicorn, with the bounds that it lacks and the reason phrases that clients
know.

Bounds are on the size of a request's headers and on how long a client may take to send a request and to read
the answer. This module touches the insides of uvicorn's protocol classes and is the only one that may.
"""

import asyncio
import contextlib
import http
import logging
import re
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS

from bcdb.http.answer import JSON, WRITE_WHOLE, Header, to_json
from bcdb.http.cors import ANY
from bcdb.http.streams import ABORT, CLOSE_GOING_AWAY
from bcdb.model import limits
from bcdb.node.settings import Settings

logger = logging.getLogger(__name__)

SWEEP_S = 2.0
DRAIN_S = int(limits.STOP_S_MAX / 2)
TOLD_HEIGHT = re.compile(r'\{"height":(\d+),')
"""How the texts of events begin."""
ASKED_HEIGHT = re.compile(r"from_height=(\d+)")
HEAD_TOO_LONG = "The headers of a request have at most {} bytes"
LINE_EXTRA_BYTES = len("OPTIONS  HTTP/1.1\r\n")
WEBSOCKET_MESSAGE_BYTES_MAX = 64 * 1024
"""What clients send on a stream means nothing, so it may not be much."""


def reason_phrase(status: int) -> str:
    """`NOT FOUND` for 404: the reference sends them in upper case and its clients compare them."""
    try:
        return http.HTTPStatus(status).phrase.upper()
    except ValueError:
        return ""


def use_reference_phrases() -> None:
    """Make uvicorn send status lines as the reference does; they come from one table of its module."""
    for status in httptools_impl.STATUS_LINE:
        httptools_impl.STATUS_LINE[status] = f"HTTP/1.1 {status} {reason_phrase(status)}\r\n".encode()


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `overdue` tells whether its client takes too long."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_since: float | None = self.loop.time()
        self._header_bytes = 0
        self._unfinished_bytes = 0
        self._progress = False
        self._discarded_bytes = 0
        self._heard_at = 0.0
        self._answered_at = 0.0
        self._unread_bytes = 0
        self._unread_since = 0.0
        self._running: RequestResponseCycle | None = None
        self._refusal: tuple[int, str] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._disconnect_cycles()
        super().connection_lost(exc)

    def _disconnect_cycles(self) -> None:
        """Nothing more can be sent: tell so to all requests, where uvicorn tells the newest only."""
        waiting = [cycle for cycle, _ in self.pipeline]
        self.pipeline.clear()
        for cycle in (self._running, self.cycle, *waiting):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self._running = None
        self._answered_at = self.loop.time()
        super().on_response_complete()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_since = self.loop.time()
        self._header_bytes = 0
        self._discarded_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._count_header(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value) + 4)
        if self._head_since is not None:
            super().on_header(name, value)  # and what comes after the body means nothing

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > limits.REQUEST_HEAD_BYTES_MAX:
            raise self._refused(431, HEAD_TOO_LONG.format(limits.REQUEST_HEAD_BYTES_MAX))

    def _refused(self, status: int, text: str) -> ValueError:
        """What a callback of the parser raises, so that the request ends in this answer."""
        self._refusal = status, text
        return ValueError(text)

    def on_chunk_header(self) -> None:
        self._progress = True

    def on_message_complete(self) -> None:
        self._progress = True
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        self._head_since = None
        self._progress = True
        if self.parser.should_upgrade() and self._should_upgrade():
            self._check_upgrade()
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            # The application takes it out again, or the scope and the cycle would keep each other alive.
            self.scope[WRITE_WHOLE] = WholeAnswer(self, self.cycle)  # type: ignore[literal-required]

    def _check_upgrade(self) -> None:
        """Refuse what the library for WebSockets would fail at without an answer."""
        if self.cycle is not None and not self.cycle.response_complete:
            raise self._refused(400, "A WebSocket cannot be asked for before earlier requests are answered")
        if len(self.headers) > MAX_NUM_HEADERS:
            raise self._refused(431, f"A WebSocket is asked for with at most {MAX_NUM_HEADERS} headers")
        longest = max(len(name) + len(value) for name, value in self.headers)
        if max(longest, len(self.url)) + LINE_EXTRA_BYTES > MAX_LINE_LENGTH:
            raise self._refused(
                431, f"The lines that ask for a WebSocket have at most {MAX_LINE_LENGTH} bytes"
            )
        if any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers):
            raise self._refused(400, "A WebSocket is asked for without a body")

    def on_body(self, body: bytes) -> None:
        self._progress = True
        if self.cycle is not None and self.cycle.response_complete:
            # The rest of a body that was refused: read on, so that the client comes to see why, but not for
            # ever.
            self._discarded_bytes += len(body)
            if self._discarded_bytes > limits.REQUEST_DISCARD_BYTES_MAX:
                self.transport.close()
            return
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._heard_at = self.loop.time()
        self._progress = False
        super().data_received(data)
        # What is unfinished is a header, a line between chunks or emptiness between requests: all are kept or
        # read for nothing.
        self._unfinished_bytes = 0 if self._progress else self._unfinished_bytes + len(data)
        if self._unfinished_bytes > limits.REQUEST_HEAD_BYTES_MAX:
            self._refuse(431, HEAD_TOO_LONG.format(limits.REQUEST_HEAD_BYTES_MAX))

    def handle_websocket_upgrade(self) -> None:
        if not self.url.isascii():
            return self.send_400_response("Invalid HTTP request received.")
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        self._refuse(*(self._refusal or (400, msg)))

    def overdue(self, now: float) -> bool:
        """Whether to drop this connection: its headers, the next piece of its body or its next request are
        long in coming, or its answers are not read."""
        unread_bytes = self.transport.get_write_buffer_size()
        if not unread_bytes or unread_bytes != self._unread_bytes:
            self._unread_bytes, self._unread_since = unread_bytes, now
        elif now - self._unread_since > limits.ANSWER_PAUSE_S_MAX:
            return True
        answering = self.cycle is not None and not self.cycle.response_complete
        if not answering:
            if self._head_since is not None:
                return now - self._head_since > limits.REQUEST_HEAD_S_MAX
            idle_s = now - self._answered_at
            return self.cycle is not None and not unread_bytes and idle_s > limits.KEEP_ALIVE_S
        return (
            self.cycle.more_body
            and not self.flow.read_paused
            and now - self._heard_at > limits.REQUEST_BODY_PAUSE_S_MAX
        )

    def _refuse(self, status: int, text: str) -> None:
        """Answer what could not be read so far as to become a request, and end the connection."""
        if self.transport.is_closing():
            return
        self._disconnect_cycles()
        if self.cycle is not None and self.cycle.scope is self.scope and self.cycle.response_started:
            return self.transport.close()
        body = to_json({"message": text, "status": status})
        headers: tuple[Header, ...] = (
            (b"content-type", JSON),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *ANY,
        )
        head = b"".join([b"%s: %s\r\n" % header for header in headers])
        self.transport.write(httptools_impl.STATUS_LINE[status] + head + b"\r\n" + body)
        self.transport.close()


class WholeAnswer:
    """Writes one whole answer with one call, where uvicorn's `send` takes two and looks at every header.

    It may be called once, instead of `send`. Names and values of headers must be fit to be sent.
    """

    __slots__ = ("_cycle", "_protocol")

    def __init__(self, protocol: BoundedProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle

    def gone(self) -> bool:
        """Whether the client has gone away."""
        return self._cycle.disconnected

    async def __call__(self, status: int, headers: list[Header], body: bytes) -> None:
        protocol, cycle = self._protocol, self._cycle
        if protocol.flow.write_paused and not cycle.disconnected:
            await protocol.flow.drain()
        if protocol.transport.is_closing():
            cycle.disconnected = True
        if cycle.disconnected:
            return
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        parts = [httptools_impl.STATUS_LINE[status]]
        for name, value in protocol.server_state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        for name, value in headers:
            if name == b"connection":
                cycle.keep_alive = False
            else:
                parts += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            parts.append(b"connection: close\r\n\r\n")
        else:
            parts.append(b"\r\n")
        if cycle.scope["method"] != "HEAD":
            parts.append(body)
        protocol.transport.write(b"".join(parts))
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            protocol.transport.close()
        cycle.on_response()


class StreamProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection, which its application can drop even while nothing can be written."""

    async def run_asgi(self) -> None:
        extensions: dict[str, Any] = self.scope["extensions"]
        extensions[ABORT] = self.transport.abort
        await super().run_asgi()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._made_at = self.loop.time()
        self._told = ""

    async def send(self, message: Any) -> None:
        self._told = message.get("text") or self._told
        await super().send(message)

    def handle_parser_exception(self) -> None:
        if self.conn.close_sent is None:  # before the handshake: there is no WebSocket to close
            self.transport.close()
        else:
            super().handle_parser_exception()

    def overdue(self, now: float) -> bool:
        """Whether to drop this connection: it has not become a WebSocket for long."""
        return not self.handshake_complete and now - self._made_at > limits.REQUEST_HEAD_S_MAX

    def shutdown(self) -> None:
        """Close it for the node stops; one that cannot be closed properly is closed nevertheless."""
        try:
            if self.handshake_complete and not self.close_sent:
                self.stop_keepalive()
                self.queue.put_nowait({"type": "websocket.disconnect", "code": CLOSE_GOING_AWAY})
                self.conn.send_close(CLOSE_GOING_AWAY, self._stop_reason())
                self.transport.write(b"".join(self.conn.data_to_send()))
            else:
                super().shutdown()
        except Exception:
            logger.debug("stream not closed properly", exc_info=True)
        self.transport.close()

    def _stop_reason(self) -> str:
        """The reason names the height of the last event, if there was one: its block may be told half."""
        told = TOLD_HEIGHT.match(self._told) or ASKED_HEIGHT.search(self.scope["query_string"].decode())
        return "the node is stopping" + (f": go on with ?from_height={told[1]}" if told else "")


class Server(uvicorn.Server):
    """A uvicorn server whose signals are the worker's business, and which drops clients that are too slow."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        """Take no more connections, finish what is being answered, then end `serve`."""
        self.should_exit = True

    async def sweep(self) -> None:
        """Look after the connections until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            now = loop.time()
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, BoundedProtocol | StreamProtocol) and connection.overdue(now):
                    connection.transport.abort()


def make_server(app: Any, settings: Settings) -> Server:
    """A server for the ASGI application `app`; sockets are given to its `serve`."""
    use_reference_phrases()
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        loop="none",
        http=BoundedProtocol,
        ws=StreamProtocol,
        ws_max_size=WEBSOCKET_MESSAGE_BYTES_MAX,
        ws_per_message_deflate=False,
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        limit_concurrency=limits.CONNECTIONS_PER_WORKER_MAX,
        timeout_keep_alive=limits.KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    return Server(config)
