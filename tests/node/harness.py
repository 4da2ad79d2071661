"""A node inside the test's own process, with doors to what tests want to slow down or break."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from bcdb.ledger import Ledger
from bcdb.model import limits
from bcdb.model.keys import KeyPair
from bcdb.node.identity import NodeSigner
from bcdb.node.link import NodeLink
from bcdb.node.server import Connection, NodeServer
from bcdb.node.service import NodeService
from consensus.solo import SoloEngine

CHAIN = "test-chain"
node_pair = KeyPair.from_seed(b"n" * 32)


class GatedLedger(Ledger):
    """A ledger whose flushes wait while `gate` is shut, and fail when `flush_error` is set."""

    gate: threading.Event
    flush_begun: threading.Event
    flush_error: Exception | None = None

    def flush(self) -> int:
        self.flush_begun.set()
        assert self.gate.wait(30), "a test left the gate shut"
        if self.flush_error is not None:
            raise self.flush_error
        return super().flush()

    def shut(self) -> None:
        """From now on no flush begins; one that runs is not held."""
        self.gate.clear()


def open_gated(path: Path) -> GatedLedger:
    ledger = Ledger.open(path, chain_id=CHAIN)
    ledger.__class__ = GatedLedger
    assert isinstance(ledger, GatedLedger)
    ledger.gate, ledger.flush_begun = threading.Event(), threading.Event()
    ledger.gate.set()
    return ledger


class Node:
    """The parts of a running node, and links to it."""

    def __init__(self, folder: Path, ledger: GatedLedger) -> None:
        self.folder = folder
        self.ledger = ledger
        signer = NodeSigner(node_pair)
        self.engine = SoloEngine(chain_id=CHAIN, signer=signer, block_bytes_max=limits.BLOCK_BYTES_MAX)
        self.service = NodeService(ledger, self.engine, signer)
        self.socket_path = folder / "node.sock"
        self.server = NodeServer(self.service, self.socket_path)
        self.links: list[NodeLink] = []

    async def link(self, name: str = "worker", *, verifies: bool = False) -> NodeLink:
        link = await NodeLink.connect(self.socket_path, name=name, verifies=verifies)
        self.links.append(link)
        return link

    def connection(self, name: str) -> Connection:
        """The node's end of the link of this name."""
        return next(found for found in self.server.connections if found.name == name)

    def abandon(self) -> None:
        """Cut the engine off in the middle of what it does, as a kill would."""
        task = self.service._engine_task
        assert task is not None
        task.cancel()


@contextlib.asynccontextmanager
async def running_node(folder: Path) -> AsyncIterator[Node]:
    """A node on `folder`, with its ledger in `folder/ledger`; stopped at the end, whatever happened to it."""
    ledger = open_gated(folder / "ledger")
    node = Node(folder, ledger)
    await node.service.start()
    await node.server.start()
    await node.service.start_engine()
    try:
        yield node
    finally:
        ledger.gate.set()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(10):
                await node.service.drain()
        for link in node.links:
            link.close()
        await node.server.stop()
        ledger.close()
