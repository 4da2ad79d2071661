"""A whole node in the process of a test: ledger, engine, node service and its socket, projector, one worker.

Requests go straight into the worker's ASGI application, or over a loopback port when `serving` is used.
Nothing in it is a stand-in.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import unquote, urlencode

import msgspec

from bcdb.http.app import Application
from bcdb.http.server import make_server
from bcdb.http.services import Services
from bcdb.ledger import Ledger
from bcdb.model import limits
from bcdb.node.identity import NodeSigner, ensure_node_key
from bcdb.node.link import NodeLink
from bcdb.node.projection import LedgerSource
from bcdb.node.reading import LedgerReader
from bcdb.node.server import NodeServer
from bcdb.node.service import NodeService
from bcdb.node.settings import Settings
from bcdb.node.stores import open_store
from consensus.solo import SoloEngine
from query.projector import Projector
from tests.support.transactions import Signed

TRANSACTIONS = "/api/v1/transactions"
QUERY = "/api/v1/query"


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def next(self) -> str:
        """The address of the next page."""
        address, _, relation = self.headers["link"].partition(";")
        assert relation.strip() == 'rel="next"'
        return address.strip("<>")


class World:
    """Start with `async with`; `settings` are fields of `Settings` to change."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.settings = Settings(home=home, chain_id="test-chain", **settings)
        self._closing = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as opening:
            await self._open(opening)
            self._closing = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        settings = self.settings
        settings.make_folders()
        signer = NodeSigner(ensure_node_key(settings.node_key_path))
        self.ledger = Ledger.open(settings.ledger_path, chain_id=settings.chain_id)
        stack.callback(self.ledger.close)
        engine = SoloEngine(chain_id=settings.chain_id, signer=signer, block_bytes_max=limits.BLOCK_BYTES_MAX)
        self.node = NodeService(self.ledger, engine, signer)
        self.server = NodeServer(self.node, settings.socket_path)
        await self.node.start()
        await self.server.start()
        await self.node.start_engine()
        stack.push_async_callback(self.server.stop)
        stack.push_async_callback(self.node.drain)
        await self._project(stack)
        self.services = await Services.open(settings, "worker-0")
        stack.push_async_callback(self.services.close)
        self.app = Application(self.services)

    async def _project(self, stack: contextlib.AsyncExitStack) -> None:
        link = await NodeLink.connect(self.settings.socket_path, name="projector")
        stack.callback(link.close)
        ledger = LedgerReader.open(self.settings.ledger_path, self.settings.scratch_path("projector"), link)
        stack.callback(ledger.close)
        self.source = LedgerSource(ledger, link)
        self.store = await open_store(self.settings)
        stack.push_async_callback(self.store.close)
        self.projecting = asyncio.create_task(Projector(self.source, self.store).run())
        stack.push_async_callback(self.stop_projecting)

    async def stop_projecting(self) -> None:
        self.projecting.cancel()
        await asyncio.wait([self.projecting])

    def project_again(self) -> None:
        """Go on with what `stop_projecting` has stopped."""
        self.projecting = asyncio.create_task(Projector(self.source, self.store).run())

    # --- requests -------------------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] = b"",
        headers: Mapping[str, str] | Iterable[tuple[bytes, bytes]] = (),
        *,
        client: str = "127.0.0.1",
        query: bytes | None = None,
    ) -> Reply:
        """One request as a server would hand it on; `path` may have a query, and escapes in its path."""
        plain, _, given = path.partition("?")
        pieces = [body] if isinstance(body, bytes) else list(body)
        lines = (
            [(name.encode(), value.encode()) for name, value in headers.items()]
            if isinstance(headers, Mapping)
            else list(headers)
        )
        if isinstance(body, bytes) and body:
            lines.append((b"content-length", b"%d" % len(body)))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(plain),
            "raw_path": plain.encode(),
            "root_path": "",
            "query_string": given.encode() if query is None else query,
            "headers": lines,
            "client": (client, 50_000),
            "server": ("127.0.0.1", self.settings.port),
            "state": {},
        }
        return await self._call(scope, pieces or [b""])

    async def _call(self, scope: dict[str, Any], pieces: list[bytes]) -> Reply:
        waiting = list(pieces)
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if waiting:
                piece = waiting.pop(0)
                return {"type": "http.request", "body": piece, "more_body": bool(waiting)}
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        start, *rest = sent
        headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        return Reply(start["status"], headers, b"".join(message["body"] for message in rest))

    async def get(self, path: str, **arguments: object) -> Reply:
        return await self.request("GET", path + ("?" + urlencode(arguments) if arguments else ""))

    async def post(self, transaction: Signed | bytes, mode: str = "") -> Reply:
        raw = transaction if isinstance(transaction, bytes) else transaction.raw
        return await self.request("POST", TRANSACTIONS + (f"?mode={mode}" if mode else ""), raw)

    async def ask(self, path: str, question: Any, **arguments: object) -> Reply:
        """A question to the query store below its address, e.g. `assets`."""
        address = f"{QUERY}/{path}" + ("?" + urlencode(arguments) if arguments else "")
        raw = question if isinstance(question, bytes) else msgspec.json.encode(question)
        return await self.request("POST", address, raw)

    async def commit(self, *transactions: Signed) -> None:
        """Post and commit them one after another."""
        for transaction in transactions:
            reply = await self.post(transaction, "commit")
            assert reply.status == 202, reply

    # --- a real server --------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[int, int]]:
        """Serve on two loopback ports: that of the API and that of the streams."""
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        port, stream_port = (listener.getsockname()[1] for listener in sockets)
        self.services.stream_ports = frozenset({stream_port})
        server = make_server(self.app, self.settings)
        serving = asyncio.create_task(server.serve(sockets=sockets))
        sweeping = asyncio.create_task(server.sweep())
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield port, stream_port
        finally:
            server.stop()
            await serving
            sweeping.cancel()


def lines_of(reply: Reply) -> list[Any]:
    """The JSON of each line."""
    return [msgspec.json.decode(line) for line in reply.body.splitlines()]
