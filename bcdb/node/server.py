"""The node's local socket: one connection for each worker, frames in, frames out.

Output is bounded: a worker that does not read is cut off, and so is one that sends what can't be read.
Nothing that happens on one connection may stop another.
"""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import cast

import structlog

from bcdb.model import limits
from bcdb.model.errors import BcdbError
from bcdb.node import protocol
from bcdb.node.protocol import ProtocolError
from bcdb.node.published import PublishedHeight, published_path
from bcdb.node.service import NodeService

CLOSE_S_MAX = 2.0
"""How long a stopping node waits for its workers to read their last answers."""

log = structlog.get_logger(__name__)


class Connection(asyncio.Protocol):
    """The node's end of one worker's link."""

    def __init__(self, server: "NodeServer") -> None:
        self._server = server
        self._service = server.service
        self._loop = asyncio.get_running_loop()
        self._splitter = protocol.FrameSplitter()
        self._transport: asyncio.Transport | None = None
        self._output: list[bytes | bytearray] = []
        self._open = False
        self._joined = False
        self._verifies = False
        self.name = "unnamed"

    # --- output ---------------------------------------------------------------------------------------------

    def send(self, message: protocol.ToWorker) -> None:
        """Queue a message. Never raises: what can't be sent costs this connection only."""
        try:
            self.send_frame(protocol.encode(message))
        except ProtocolError as error:
            self.cut(error.text)

    def send_frame(self, frame: bytes | bytearray) -> None:
        """Queue a whole frame; all of one turn of the loop leave in one write."""
        if not self._output:
            self._loop.call_soon(self.write_out)
        self._output.append(frame)

    def write_out(self) -> None:
        output, self._output = self._output, []
        if not output or not self._open or self._transport is None:
            return
        self._transport.write(output[0] if len(output) == 1 else b"".join(output))
        if self._transport.get_write_buffer_size() > limits.LINK_OUTPUT_BYTES_MAX:
            self.cut(f"it has left more than {limits.LINK_OUTPUT_BYTES_MAX} bytes unread")

    def unread_bytes(self) -> int:
        """What this worker has not read yet, as far as this process knows."""
        if not self._open or self._transport is None:
            return 0
        return self._transport.get_write_buffer_size() + sum(map(len, self._output))

    def cut(self, reason: str) -> None:
        """End this connection at once."""
        if self._open and self._transport is not None:
            log.warning("a link was cut off", link=self.name, reason=reason)
            self._transport.abort()
            self._leave()

    def close(self) -> None:
        if self._open and self._transport is not None:
            self.write_out()
            self._transport.close()

    # --- asyncio --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._open = True
        if len(self._server.connections) >= limits.LINKS_MAX:
            self.cut(f"there are {limits.LINKS_MAX} links already")
            return
        self._server.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._leave()

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._splitter.feed(data):
                self._receive(protocol.decode_to_node(frame))
                if not self._open:
                    return
        except ProtocolError as error:
            self.cut(error.text)
        except Exception:
            log.exception("a frame could not be handled", link=self.name)
            self.cut("a frame of it could not be handled")

    def _leave(self) -> None:
        if not self._open:
            return
        self._open = False
        self._server.connections.discard(self)
        if self._verifies:
            self._service.verifiers.leave(self.send)
        if self._joined:
            self._service.leave(self)

    # --- input ----------------------------------------------------------------------------------------------

    def _receive(self, message: protocol.ToNode) -> None:
        service = self._service
        if not self._joined:
            self._greet(message)
            return
        match message:
            case protocol.Submit():
                service.submit(self, message)
            case protocol.Await(number, transaction_id):
                service.wait_settled(self, number, transaction_id)
            case protocol.Forget(number):
                service.forget(self, number)
            case protocol.AskStatus(number, transaction_id):
                service.status(self, number, transaction_id)
            case protocol.AskInfo(number):
                service.info(self, number)
            case protocol.VerifyResult():
                service.verifiers.answer(self.send, message)
            case protocol.Hello():
                raise ProtocolError("A link says hello once")

    def _greet(self, message: protocol.ToNode) -> None:
        if not isinstance(message, protocol.Hello):
            raise ProtocolError("The first frame of a link is its hello")
        if message.version != protocol.VERSION:
            text = f"The worker speaks version {message.version} of the protocol, the node {protocol.VERSION}"
            raise ProtocolError(text)
        self.name, self._joined = message.name, True
        self._service.join(self)
        if message.verifies:
            self._verifies = True
            self._service.verifiers.join(self.send)


class NodeServer:
    """Listens at `socket_path`, which only this user can open."""

    def __init__(self, service: NodeService, socket_path: Path) -> None:
        self.service = service
        self.connections: set[Connection] = set()
        self._path = socket_path
        self._server: asyncio.Server | None = None
        self._height: PublishedHeight | None = None

    async def start(self) -> None:
        """Bind the socket; one that a killed node left is replaced. Raises `BcdbError`.

        The caller holds the ledger's lock, so no living node can be the owner of what is replaced.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._path.parent.stat().st_uid != os.getuid():
                raise BcdbError(
                    f"The folder {self._path.parent} of the node's socket belongs to another user."
                )
            self._path.unlink(missing_ok=True)
            self._height = PublishedHeight(published_path(self._path), writes=True)
            self._height.value = self.service.published.height
            self.service.on_published = self._share_height
            old_mask = os.umask(0o177)
            try:
                loop = asyncio.get_running_loop()
                self._server = await loop.create_unix_server(lambda: Connection(self), str(self._path))
            finally:
                os.umask(old_mask)
        except OSError as error:
            raise BcdbError(f"The node can't listen at {self._path}: {error}") from None

    def _share_height(self, height: int) -> None:
        assert self._height is not None, "the service publishes to a server that was started"
        self._height.value = height

    async def stop(self) -> None:
        """Close all links once their workers have read what was sent, or after a while without that."""
        if self._server is not None:
            self._server.close()
        deadline = asyncio.get_running_loop().time() + CLOSE_S_MAX
        while any(connection.unread_bytes() for connection in self.connections):
            if asyncio.get_running_loop().time() >= deadline:
                break
            await asyncio.sleep(0.01)
        for connection in tuple(self.connections):
            connection.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
