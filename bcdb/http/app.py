"""The front of a worker: one ASGI application that answers hot routes itself and hands the rest to the
framework.

Every request ends in an answer of ours: nothing that a client sends may surface as an exception, and no
answer ever redirects because of a slash at the end.
"""

import asyncio
import logging
import time
from typing import Any, cast
from urllib.parse import quote

from bcdb.http import streams
from bcdb.http.answer import HTML, Answer, Header, Message, Receive, Scope, Send, send_answer
from bcdb.http.body import Disconnected
from bcdb.http.cors import ANY, cors_headers, preflight_headers
from bcdb.http.errors import answer_error, internal, no_such_address, refusal
from bcdb.http.fetch import ID_CHARS, fetch
from bcdb.http.framework import allowed_methods, make_framework
from bcdb.http.routes.transactions import PATH
from bcdb.http.services import Services
from bcdb.http.submit import submit
from bcdb.model.errors import BcdbError, Unavailable

log = logging.getLogger(__name__)

SUBMIT_PATHS = frozenset({PATH, PATH + "/"})
FETCH_PREFIX = PATH + "/"
FETCH_CHARS = len(FETCH_PREFIX) + ID_CHARS


class Application:
    """The ASGI application of one worker. `services` are closed by whoever made them."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._framework = make_framework(services)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._websocket(scope, receive, send)
        started = time.perf_counter()
        head: dict[bytes, bytes] = dict(scope["headers"])
        origin = head.get(b"origin")
        more = ANY if origin is None else cors_headers(origin)
        path: str = scope["path"]
        method: str = scope["method"]
        route = "unrouted"
        try:
            answer = self._admit(scope)
            if answer is not None:
                pass
            elif self._is_stream_port(scope):
                answer = streams.plain_request(scope, head) or no_such_address()
            elif method == "GET" and len(path) == FETCH_CHARS and path.startswith(FETCH_PREFIX):
                route = "fetch"
                answer = await fetch(self.services, path[-ID_CHARS:], scope["query_string"])
            elif method == "POST" and path in SUBMIT_PATHS:
                route = "submit"
                answer = await submit(self.services, scope, head, receive)
            else:
                route, answer = await self._other(scope, head, receive)
        except BcdbError as error:
            answer = answer_error(error)
        except Disconnected:
            return
        except asyncio.CancelledError:
            answer = answer_error(Unavailable("The server is stopping"))
        except Exception:
            log.exception("A request to %s failed", route)
            answer = internal()
        await send_answer(scope, send, answer, more)
        self.services.observer.answered(route, answer.status, time.perf_counter() - started)

    def _admit(self, scope: Scope) -> Answer | None:
        client = scope.get("client")
        wait_s = self.services.rate.wait_s(client[0]) if client else 0
        if wait_s:
            text = f"More than {self.services.settings.rate_limit} requests a second came from this address"
            return refusal(429, text, (b"retry-after", b"%d" % wait_s), (b"connection", b"close"))
        return None

    async def _other(self, scope: Scope, head: dict[bytes, bytes], receive: Receive) -> tuple[str, Answer]:
        """The route's template and the answer of a route that is not hot."""
        path: str = scope["path"]
        plain = streams.plain_request(scope, head)
        if plain is not None:
            return "streams", plain
        if "//" in path:
            return "unrouted", _without_doubled_slashes(path, scope["query_string"])
        return await self._ask_framework(scope, head, receive)

    async def _ask_framework(
        self, scope: Scope, head: dict[bytes, bytes], receive: Receive
    ) -> tuple[str, Answer]:
        inner = dict(scope)
        if scope["method"] == "HEAD":
            inner["method"] = "GET"
        collected = _Collected()
        await self._framework(cast(Any, inner), cast(Any, receive), cast(Any, collected))
        route = str(inner.get("path_template", "unrouted"))
        answer = collected.answer()
        if scope["method"] == "OPTIONS" and answer.status == 204:
            allow = (b"allow", allowed_methods(self._framework, scope["path"]).encode())
            answer = Answer(200, b"", HTML, (allow, *preflight_headers(head)))
        return route, answer

    def _is_stream_port(self, scope: Scope) -> bool:
        ports, server = self.services.stream_ports, scope.get("server")
        return bool(ports) and server is not None and server[1] in ports

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = self._admit(scope)
            if answer is None:
                await streams.serve_stream(self.services, scope, receive, send)
            else:
                await streams.refuse(send, answer)
        except (BcdbError, OSError) as error:
            log.info("A stream ended: %s", error)


class _Collected:
    """Takes the messages of the framework's answer, whose bodies are whole and small in number."""

    def __init__(self) -> None:
        self._status = 500
        self._headers: list[Header] = []
        self._body: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self._body.append(message.get("body", b""))

    def answer(self) -> Answer:
        own = (b"content-type", b"content-length")
        media_type = next((value for name, value in self._headers if name == own[0]), b"application/json")
        others = tuple((name, value) for name, value in self._headers if name not in own)
        return Answer(self._status, b"".join(self._body), media_type, others)


def _without_doubled_slashes(path: str, query: bytes) -> Answer:
    while "//" in path:
        path = path.replace("//", "/")
    location = quote(path, safe="/").encode() + (b"?" + quote(query, safe="=&+%").encode() if query else b"")
    return refusal(308, "There are no doubled slashes in addresses here", (b"location", location))
