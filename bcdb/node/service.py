"""What the node process does for its workers: accept, answer when durable, publish blocks, tell how things
ended.

One event loop and no locks. Every answer, refusals and statuses too, waits for the flush that covers all it
rests on; a height is told to workers only when it is durable, and before anyone is told what is in it.
"""

import asyncio
import base64
import collections
import resource
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from bcdb.ledger import Head, Ledger, Outcome, trace
from bcdb.ledger.crashpoints import reach
from bcdb.model import limits
from bcdb.model.errors import BcdbError, StorageFailed, Unavailable
from bcdb.model.transaction import Verified
from bcdb.node import protocol
from bcdb.node.application import LedgerApplication
from bcdb.node.bundler import Bundler, Window
from bcdb.node.flusher import Flusher
from bcdb.node.protocol import LocalStatus, NodeInfo, Refusal, Settled
from bcdb.node.verifiers import Verifiers
from consensus.engine import Engine, Signer

STOPPING = Unavailable("The node is stopping")
log = structlog.get_logger(__name__)


class Client(Protocol):
    """One connected worker, as `server.Connection` has it."""

    def send(self, message: protocol.ToWorker) -> None: ...

    def send_frame(self, frame: bytes | bytearray) -> None: ...

    def cut(self, reason: str) -> None: ...


class _Held:
    """An answer that waits for the flush of `mark`, and the transactions that are durable with it."""

    __slots__ = ("accepted", "client", "mark", "message")

    def __init__(
        self, mark: int, client: Client, message: protocol.ToWorker, accepted: Sequence[Verified] = ()
    ) -> None:
        self.mark = mark
        self.client = client
        self.message = message
        self.accepted = accepted


class NodeService:
    """The ledger and the engine behind the socket.

    `base_height` and `quota_bytes` are the application's, `window` the bundler's: see there. `failure` is
    done, with the error, as soon as the node can't go on; nothing is accepted from then on.
    """

    def __init__(
        self,
        ledger: Ledger,
        engine: Engine,
        signer: Signer,
        *,
        base_height: int = 0,
        window: Window | None = None,
        quota_bytes: Callable[[bytes], int | None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._ledger = ledger
        self._engine = engine
        self._signer = signer
        self.verifiers = Verifiers()
        self._flusher = Flusher(ledger, on_covered=self._on_covered, on_failure=self._fail)
        self._application = LedgerApplication(
            ledger,
            self.verifiers,
            written=self._flusher.request,
            durable=self._flusher.durable,
            committed=self._on_committed,
            base_height=base_height,
            **({} if quota_bytes is None else {"quota_bytes": quota_bytes}),
        )
        self._bundler = Bundler(
            engine,
            chain_id=ledger.chain_id,
            signer=signer,
            pending=ledger.pending,
            remember=self._remember,
            failed=self._fail,
            window=window,
        )
        engine.on_restart = self._engine_restarted
        self.failure: asyncio.Future[BaseException] = self._loop.create_future()
        self.published: Head = ledger.head
        self.on_published: Callable[[int], None] = lambda height: None
        self._clients: set[Client] = set()
        self._arrived: list[tuple[Client, protocol.Submit]] = []
        self._held: collections.deque[_Held] = collections.deque()
        self._waiters: dict[bytes, list[tuple[Client, int]]] = {}
        self._waiting_for: dict[tuple[Client, int], bytes] = {}
        self._refusing: BcdbError | None = None
        self._engine_task: asyncio.Task[None] | None = None
        self._started_s = time.monotonic()
        self._accepted = self._committed = self._rejected = 0

    @property
    def flushes(self) -> int:
        """Flushes since the start."""
        return self._flusher.flushes

    @property
    def waiting(self) -> int:
        """Workers' waits for an outcome that are open."""
        return len(self._waiting_for)

    # --- life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make durable what the write-ahead log had. From now on transactions are accepted."""
        self._flusher.start()
        await self._flusher.durable(self._ledger.mark)
        self._bundler.add([entry.verified for entry in self._ledger.pending.values()])
        self._started_s = time.monotonic()

    async def start_engine(self) -> None:
        """Start the engine; what is pending goes to it. Raises what the engine raises."""
        await self._engine.start(self._application)
        self._engine_task = self._loop.create_task(self._engine.run())
        self._engine_task.add_done_callback(self._engine_ended)
        self._bundler.begin()

    async def drain(self) -> None:
        """Take nothing more; finish the flush and the block that are under way, and send their answers."""
        self._accept_arrived()
        self._refusing = self._refusing or STOPPING
        self._bundler.stop()
        self._engine.stop()
        if self._engine_task is not None:
            await asyncio.wait([self._engine_task])
        if not self.failure.done():
            await self._flusher.durable(self._ledger.mark)
        self._flusher.stop()

    def _engine_restarted(self) -> None:
        self._application.pool.engine_restarted()
        self._bundler.engine_restarted()

    def _engine_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """The node can't go on: whoever waits is told so, and nothing that waited counts as durable."""
        if self.failure.done():
            return
        self._refusing = gone = Unavailable("The node has failed and is ending; ask again when it is back")
        self.failure.set_result(error)
        self._bundler.stop()
        if isinstance(error, StorageFailed):
            self._flusher.fail(error)
        arrived, self._arrived = self._arrived, []
        for client, submit in arrived:
            client.send(_all_refused(submit, gone))
        held, self._held = self._held, collections.deque()
        for answer in held:
            match answer.message:
                case protocol.Answered(first, count):
                    refusals = [Refusal(offset, gone.name, gone.text) for offset in range(count)]
                    answer.client.send(protocol.Answered(first, count, refusals))
                case protocol.StatusAnswer(number) | protocol.SettledAnswer(number):
                    answer.client.send(protocol.Declined(number, gone.name, gone.text))
        for waiter, number in tuple(self._waiting_for):
            waiter.send(protocol.Declined(number, gone.name, gone.text))
        self._waiters, self._waiting_for = {}, {}

    # --- workers come and go --------------------------------------------------------------------------------

    def join(self, client: Client) -> None:
        self._clients.add(client)
        client.send(protocol.Welcome(protocol.VERSION, self._ledger.chain_id, self.published))

    def leave(self, client: Client) -> None:
        """Forget a worker. What it submitted stays: it is the client's, not the worker's."""
        self._clients.discard(client)
        for waiter, number in [key for key in self._waiting_for if key[0] is client]:
            self.forget(waiter, number)

    # --- requests -------------------------------------------------------------------------------------------

    def submit(self, client: Client, message: protocol.Submit) -> None:
        """Take transactions; what arrives in one turn of the loop is accepted with one write."""
        if self._refusing is not None:
            client.send(_all_refused(message, self._refusing))
            return
        if not self._arrived:
            self._loop.call_soon(self._accept_arrived)
        self._arrived.append((client, message))

    def wait_settled(self, client: Client, number: int, transaction_id: bytes) -> None:
        """Answer with `SettledAnswer` once the id is settled and its block published."""
        self._accept_arrived()
        if self._refusing is not None and self.failure.done():
            client.send(protocol.Declined(number, self._refusing.name, self._refusing.text))
            return
        settled = self._settled(transaction_id)
        if settled is not None:
            self._answer(client, protocol.SettledAnswer(number, settled))
        elif len(self._waiting_for) >= limits.LINK_REQUESTS_MAX:
            self._answer(client, protocol.SettledAnswer(number, Settled("pending")))
        else:
            self._waiters.setdefault(transaction_id, []).append((client, number))
            self._waiting_for[client, number] = transaction_id

    def forget(self, client: Client, number: int) -> None:
        transaction_id = self._waiting_for.pop((client, number), None)
        if transaction_id is not None:
            waiters = self._waiters[transaction_id]
            waiters.remove((client, number))
            if not waiters:
                del self._waiters[transaction_id]

    def status(self, client: Client, number: int, transaction_id: bytes) -> None:
        """Answer with `StatusAnswer`: as of the published height, and of what is durable."""
        self._accept_arrived()
        settled = self._settled(transaction_id)
        if settled is None:
            status = LocalStatus("pending")
        elif settled.status == "unknown":
            status = LocalStatus("unknown")
        else:
            name, text = settled.name, settled.text
            status = LocalStatus(settled.status, name, text, settled.height, settled.position)
        self._answer(client, protocol.StatusAnswer(number, status))

    def info(self, client: Client, number: int) -> None:
        self._accept_arrived()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        condition = self._engine.condition
        client.send(
            protocol.InfoAnswer(
                number,
                NodeInfo(
                    chain_id=self._ledger.chain_id,
                    engine=self._engine.name,
                    node_key=base64.b64encode(self._signer.public_key).decode(),
                    height=self.published.height,
                    pending_count=len(self._ledger.pending),
                    pending_bytes=self._ledger.pending_bytes,
                    validators=[
                        (base64.b64encode(validator.public_key).decode(), validator.power)
                        for validator in self._engine.validators
                    ],
                    uptime_s=time.monotonic() - self._started_s,
                    cpu_s=usage.ru_utime + usage.ru_stime,
                    links=len(self._clients),
                    flushes=self._flusher.flushes,
                    accepted=self._accepted,
                    committed=self._committed,
                    rejected=self._rejected,
                    in_flight=self._bundler.in_flight,
                    engine_trouble=condition.text,
                    peers=condition.peers,
                    catching_up=condition.is_catching_up,
                    is_validator=condition.is_validator,
                    app_hash=self.published.app_hash,
                ),
            )
        )

    # --- accepting ------------------------------------------------------------------------------------------

    def _accept_arrived(self) -> None:
        """Accept all that has arrived. A submit that makes the ledger raise costs its own link only."""
        arrived, self._arrived = self._arrived, []
        if not arrived:
            return
        try:
            self._accept(arrived)
        except StorageFailed as error:
            self._arrived = arrived
            self._fail(error)
        except Exception:
            log.exception("accepting failed", submits=len(arrived))
            if len(arrived) == 1:
                arrived[0][0].cut("its transactions could not be accepted")
            else:  # the ledger took none of them: find out whose it was
                for one in arrived:
                    self._arrived.append(one)
                    self._accept_arrived()

    def _accept(self, arrived: list[tuple[Client, protocol.Submit]]) -> None:
        ledger = self._ledger
        if len(arrived) == 1:
            items: Sequence[Verified] = arrived[0][1].items
        else:
            items = [item for _, submit in arrived for item in submit.items]
        results = ledger.accept(items)
        mark, start = ledger.mark, 0
        for client, submit in arrived:
            count = len(submit.items)
            accepted: Sequence[Verified] = submit.items
            refusals: list[Refusal] = []
            own = results[start : start + count]
            start += count
            if any(own):
                refusals = [
                    Refusal(offset, error.name, error.text)
                    for offset, error in enumerate(own)
                    if error is not None
                ]
                accepted = [item for item, error in zip(accepted, own, strict=True) if error is None]
            self._accepted += len(accepted)
            self._hold(_Held(mark, client, protocol.Answered(submit.first, count, refusals), accepted))
        if mark > self._flusher.covered:
            self._flusher.request()

    def _answer(self, client: Client, message: protocol.ToWorker) -> None:
        self._hold(_Held(self._ledger.mark, client, message))

    def _hold(self, answer: _Held) -> None:
        if answer.mark <= self._flusher.covered:
            self._release(answer)
        else:
            self._held.append(answer)

    def _on_covered(self, mark: int) -> None:
        held = self._held
        while held and held[0].mark <= mark:
            self._release(held.popleft())
        # Two turns on, the answers have left this process.
        self._loop.call_soon(self._loop.call_soon, reach, "node-after-answer")

    def _release(self, answer: _Held) -> None:
        reach("node-before-answer")
        answer.client.send(answer.message)
        if answer.accepted:
            if trace.enabled:
                for item in answer.accepted:
                    trace.answered(item.id)
            self._bundler.add(answer.accepted)

    # --- blocks ---------------------------------------------------------------------------------------------

    def _remember(self, bundle: bytes, transactions: Sequence[Verified]) -> None:
        self._application.pool.remember(bundle, self._signer.public_key, transactions)

    def _on_committed(self, outcome: Outcome, txs: Sequence[bytes]) -> None:
        """A block is durable: tell the height first, then those who wait for what is in it."""
        self.published = outcome.head
        self.on_published(outcome.head.height)
        self._committed += len(outcome.committed)
        trace.published(outcome.head.height)
        frame = protocol.encode(protocol.Published(outcome.head))
        for client in tuple(self._clients):
            client.send_frame(frame)
        for rejection in outcome.settled.values():
            self._rejected += rejection is not None
        if self._waiters:
            self._wake(outcome)
        self._bundler.block_committed(txs)

    def _wake(self, outcome: Outcome) -> None:
        height = outcome.head.height
        for position, transaction in enumerate(outcome.committed):
            if transaction.id in self._waiters:
                self._tell(transaction.id, Settled("committed", height, position))
        for transaction_id, rejection in outcome.settled.items():
            if rejection is not None and transaction_id in self._waiters:
                settled = Settled("rejected", rejection.height, 0, rejection.name, rejection.text)
                self._tell(transaction_id, settled)

    def _tell(self, transaction_id: bytes, settled: Settled) -> None:
        for client, number in self._waiters.pop(transaction_id):
            del self._waiting_for[client, number]
            client.send(protocol.SettledAnswer(number, settled))

    def _settled(self, transaction_id: bytes) -> Settled | None:
        """How the id ended, as far as it is published; None while it is pending, or its block not
        published.
        """
        ledger = self._ledger
        if transaction_id in ledger.pending:
            return None
        stored = ledger.reader.transaction(transaction_id)
        if stored is not None:
            if stored.height > self.published.height:
                return None
            return Settled("committed", stored.height, stored.position)
        rejection = ledger.rejection(transaction_id)
        if rejection is None:
            return Settled("unknown")
        if rejection.height > self.published.height:
            return None
        return Settled("rejected", rejection.height, 0, rejection.name, rejection.text)


def _all_refused(submit: protocol.Submit, error: BcdbError) -> protocol.Answered:
    count = len(submit.items)
    refusals = [Refusal(offset, error.name, error.text) for offset in range(count)]
    return protocol.Answered(submit.first, count, refusals)
