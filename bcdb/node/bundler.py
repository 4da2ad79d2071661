"""Packs durable transactions into bundles for the engine: at once while it is idle, fuller while it is busy.

One bundle of this node is on its way at a time; what arrives meanwhile fills the next. A transaction stays
the bundler's until a block has settled it, and is offered again when its bundle got lost.
"""

import asyncio
import collections
from collections.abc import Callable, Container, Iterable, Sequence

import structlog

from bcdb.ledger.bundle import ENVELOPE_BYTES_MAX, ITEM_OVERHEAD_BYTES, encode_bundle
from bcdb.model import limits
from bcdb.model.errors import BundleError
from bcdb.model.transaction import Verified
from consensus.engine import Admission, Engine, Refused, Signer

PACE_S = 0.02
"""Under load a bundle follows the one before it no sooner, unless it is full. A block costs about a
millisecond here and a wake-up in every worker and in the projector, whatever it holds. Acceptance does not
wait for it."""
PACED_FROM = 16
"""Transactions in a bundle from which on it counts as load; a few clients that wait for commits are none."""
RESEND_S = 15.0
"""A bundle that no block has carried for so long is offered to the engine again."""
FULL_PAUSE_S = 0.1
"""Time until a bundle is offered again to an engine that had no room or did not want it."""

log = structlog.get_logger(__name__)


class Bundler:
    """The queue of durable transactions in front of `engine`.

    `pending` holds the ids that are not settled yet (the ledger's); `remember(raw, transactions)` is told of
    each bundle before the engine sees it; `failed(error)` gets what the engine raises apart from a refusal.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        chain_id: str,
        signer: Signer,
        pending: Container[bytes],
        remember: Callable[[bytes, Sequence[Verified]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._engine = engine
        self._chain_id = chain_id
        self._signer = signer
        self._pending = pending
        self._remember = remember
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._queue: collections.deque[Verified] = collections.deque()
        self._flight: bytes | None = None
        self._flight_items: Sequence[Verified] = ()
        self._planned = False
        self._next_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._offering: asyncio.Task[None] | None = None
        self._stopped = False

    def add(self, items: Iterable[Verified]) -> None:
        """Queue transactions, each accepted and durable."""
        self._queue.extend(items)
        self._plan()

    def block_committed(self, txs: Sequence[bytes]) -> None:
        """A block is durable. If it carried or settled what is on its way, the next bundle can go."""
        flight = self._flight
        if flight is None:
            self._plan()
            return
        left = [item for item in self._flight_items if item.id in self._pending]
        if flight not in txs and left:
            return
        self._land(left)

    def stop(self) -> None:
        """Send nothing more. What is queued is in the write-ahead log and is found again at the next
        start.
        """
        self._stopped = True
        self._cancel_timer()

    # --- one bundle's way -----------------------------------------------------------------------------------

    def _plan(self) -> None:
        """Make a bundle in the next turn of the loop, after the answers of this turn have been written.

        Under load it waits for its time, unless there is enough for a full one.
        """
        if self._planned or self._flight is not None or not self._queue or self._stopped:
            return
        self._planned = True
        if self._loop.time() >= self._next_s or len(self._queue) >= limits.BUNDLE_TRANSACTIONS_MAX:
            self._loop.call_soon(self._send_next)
        else:
            self._loop.call_at(self._next_s, self._send_next)

    def _send_next(self) -> None:
        self._planned = False
        if self._flight is not None or self._stopped:
            return
        items = self._take()
        if not items:
            if self._queue:  # the limits see to it that the largest transaction fits; never stall in silence
                self._failed(BundleError(f"Transaction {self._queue[0].id.hex()} fits no bundle"))
            return
        try:
            raw = encode_bundle(
                self._chain_id, self._signer.public_key, [item.body for item in items], self._signer.sign
            )
        except BundleError as error:
            self._failed(error)
            return
        self._remember(raw, items)
        self._next_s = self._loop.time() + PACE_S if len(items) >= PACED_FROM else 0.0
        self._flight, self._flight_items = raw, items
        self._offer()

    def _take(self) -> list[Verified]:
        """The next transactions that still wait, as many as one bundle may hold."""
        queue, pending = self._queue, self._pending
        items: list[Verified] = []
        size, signatures = ENVELOPE_BYTES_MAX, 0
        while queue and len(items) < limits.BUNDLE_TRANSACTIONS_MAX:
            item = queue[0]
            size += len(item.body) + ITEM_OVERHEAD_BYTES
            signatures += item.signatures
            if size > limits.BUNDLE_BYTES_MAX or signatures > limits.BUNDLE_SIGNATURES_MAX:
                break
            queue.popleft()
            if item.id in pending:
                items.append(item)
        return items

    def _offer(self) -> None:
        self._cancel_timer()
        if self._flight is not None and not self._stopped:
            self._offering = self._loop.create_task(self._offer_once(self._flight))

    async def _offer_once(self, raw: bytes) -> None:
        try:
            admission = await self._engine.submit(raw)
        except Refused as refusal:
            log.warning("the engine refused a bundle", code=refusal.code, text=refusal.text)
            admission = Admission.FULL
        except Exception as error:
            self._failed(error)
            return
        if self._flight == raw and not self._stopped:
            self._cancel_timer()
            pause_s = FULL_PAUSE_S if admission is Admission.FULL else RESEND_S
            self._timer = self._loop.call_later(pause_s, self._offer)

    def _land(self, left: list[Verified]) -> None:
        self._cancel_timer()
        self._flight, self._flight_items = None, ()
        self._queue.extendleft(reversed(left))
        self._plan()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
