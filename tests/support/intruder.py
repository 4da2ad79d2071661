"""A validator in a traitor's hands: the home of a node, run in this process with an application that cheats.

Its CometBFT is the real one and obeys it: it proposes whatever a test wants, and takes into its mempool what
no honest node would, so that it is passed on to all peers. What others have decided it applies like everybody
else.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from bcdb.cli.home import locked
from bcdb.ledger import Ledger
from bcdb.ledger.bundle import encode_bundle
from bcdb.model.keys import KeyPair, decode_key
from bcdb.node.application import LedgerApplication
from bcdb.node.identity import NodeSigner
from bcdb.node.keyfile import read_key_file
from bcdb.node.ordering import make_ordering
from bcdb.node.settings import read_settings
from bcdb.node.verifiers import Verifiers
from consensus.engine import Admission, Block, CheckResult, Proposal
from tests.support.cometbft import program
from tests.support.transactions import Signed

START_S_MAX = 60.0
CALL_S_MAX = 60.0

A = TypeVar("A")
Txs = tuple[bytes, ...]


class Traitor(LedgerApplication):
    """`plan`: what it proposes when it is its turn, one after the other; then it is honest again. `proposed`:
    what it has proposed of it. `decided`: the bundles of all blocks. `admits`: whether it takes anything."""

    plan: collections.deque[Txs]
    proposed: list[Txs]
    decided: list[Txs]
    admits = False

    async def prepare(self, proposal: Proposal) -> Txs:
        if not self.plan:
            return await super().prepare(proposal)
        self.proposed.append(self.plan.popleft())
        return self.proposed[-1]

    async def process(self, block: Block) -> bool:
        return block.txs in self.proposed or await super().process(block)

    def check(self, tx: bytes, *, recheck: bool) -> CheckResult:
        return CheckResult() if self.admits else super().check(tx, recheck=recheck)


class Intruder:
    """Runs `home`, whose node must not run, as a context: with a thread and an event loop of its own."""

    def __init__(self, home: Path) -> None:
        self._settings = read_settings(home, {"cometbft": program()}, {})
        self.pair: KeyPair = read_key_file(self._settings.node_key_path)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="intruder")
        self._life: asyncio.Task[None] | None = None
        self._begun: asyncio.Future[None] = self._loop.create_future()
        self._stopping = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._wait(self._begin(), START_S_MAX)
        except BaseException:
            self._finish()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._wait(self._end(), CALL_S_MAX)
        finally:
            self._finish()

    # --- what a test does -----------------------------------------------------------------------------------

    def propose(self, *plans: Txs) -> None:
        """Propose each of these in one of the next turns."""
        self.application.plan.extend(plans)

    def offer(self, txs: Sequence[bytes]) -> list[Admission]:
        """Put these into its own mempool, from which they go to all peers."""

        async def all_of_them() -> list[Admission]:
            return [await self._engine.submit(tx) for tx in txs]

        return self._wait(all_of_them(), CALL_S_MAX)

    # --- in the thread of its own ---------------------------------------------------------------------------

    async def _begin(self) -> None:
        self._life = asyncio.create_task(self._live())
        await asyncio.wait({self._life, self._begun}, return_when=asyncio.FIRST_COMPLETED)
        if self._life.done():
            self._life.result()

    async def _live(self) -> None:
        self._settings.make_folders()
        with locked(self._settings):
            ledger = Ledger.open(self._settings.ledger_path, chain_id=self._settings.chain_id)
            try:
                await self._order(ledger)
            finally:
                ledger.close()

    async def _order(self, ledger: Ledger) -> None:
        async def durable(mark: int) -> None:
            await asyncio.to_thread(ledger.flush)

        ordering = make_ordering(self._settings, ledger, NodeSigner(self.pair))
        assert ordering.quota_bytes is not None
        application = self.application = Traitor(
            ledger,
            Verifiers(),
            written=lambda: None,
            durable=durable,
            committed=lambda outcome, txs: application.decided.append(tuple(txs)),
            quota_bytes=ordering.quota_bytes,
            base_height=ordering.base_height,
        )
        application.plan, application.proposed, application.decided = collections.deque(), [], []
        self._engine = ordering.engine
        await self._engine.start(application)
        self._begun.set_result(None)
        await self._engine.run()

    async def _end(self) -> None:
        assert self._life is not None, "it has begun"
        self._engine.stop()
        await self._life

    def _wait(self, work: Coroutine[Any, Any, A], s_max: float) -> A:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(s_max)

    def _finish(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_S_MAX)
        self._loop.close()


class Mempool:
    """The mempool of a node that runs, through the RPC of its CometBFT: what a process of its user can do."""

    def __init__(self, home: Path) -> None:
        socket = read_settings(home, {}, {}).rpc_socket_path
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://engine", timeout=CALL_S_MAX
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def offer(self, tx: bytes) -> int:
        """The code of CheckTx."""
        code: int = self._call("broadcast_tx_sync", tx=base64.b64encode(tx).decode())["code"]
        return code

    def waiting(self) -> tuple[int, int]:
        """How much waits: bundles and bytes."""
        told = self._call("num_unconfirmed_txs")
        return int(told["total"]), int(told["total_bytes"])

    def _call(self, method: str, **parameters: str) -> dict[str, Any]:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        answer = self._client.post("/", json=body).json()
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result


def bundle(chain_id: str, submitter: KeyPair, *transactions: Signed | bytes) -> bytes:
    """A bundle of whatever these are."""
    bodies = [found if isinstance(found, bytes) else found.raw for found in transactions]
    return encode_bundle(chain_id, decode_key(submitter.public_key), bodies, submitter.sign)
