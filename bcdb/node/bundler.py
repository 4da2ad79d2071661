"""Packs durable transactions into bundles for the engine: at once while it is idle, fuller while it is busy.

A bounded number of this node's bundles is on its way at a time; what arrives meanwhile fills the next. A
transaction stays the bundler's until a block has settled it, and is offered again when its bundle got lost.
"""

import asyncio
import collections
from collections.abc import Callable, Container, Iterable, Sequence

import structlog
from msgspec import Struct

from bcdb.ledger.bundle import (
    ATTEMPT_MAX,
    ENVELOPE_BYTES_MAX,
    ITEM_OVERHEAD_BYTES,
    encode_bundle,
    opened_bytes,
)
from bcdb.model import limits
from bcdb.model.errors import BundleError
from bcdb.model.transaction import Verified
from consensus.engine import Admission, Engine, Refused, Signer

PACED_FROM = 16
"""Transactions in a bundle from which on it counts as load; a few clients that wait for commits are none."""
RESEND_S = 15.0
RESEND_HEIGHTS = 20
"""A bundle that no block has carried for so long, or for so many blocks, is offered to the engine again."""
OFFERS_MAX = 4
"""A bundle offered so often is given up; its transactions leave in another one."""
FULL_PAUSE_S = 0.1
FULL_PAUSE_S_MAX = 2.0
"""Time until a bundle is offered again to an engine that had no room or did not want it; doubled each
time."""

log = structlog.get_logger(__name__)


class Window(Struct, frozen=True):
    """How much may be on its way at a time, and how long a bundle waits for more company under load.

    `pace_s`: a block of the embedded engine costs about a millisecond here and a wake-up in every worker and
    in the projector, whatever it holds; a bundle of CometBFT costs a message to every peer. Acceptance does
    not wait for it. `compress`: what bundles have in common does not travel.
    """

    bundles: int = 1
    size_bytes: int = limits.BUNDLE_BYTES_MAX
    pace_s: float = 0.02
    compress: bool = False


class _Flight:
    """A bundle on its way."""

    __slots__ = ("attempt", "height", "items", "offering", "offers", "pause_s", "size_bytes", "timer")

    def __init__(self, items: Sequence[Verified], size_bytes: int, attempt: int, height: int) -> None:
        self.items = items
        self.size_bytes = size_bytes
        self.attempt = attempt
        self.height = height
        """Blocks seen when it was offered last."""
        self.offers = 0
        self.pause_s = FULL_PAUSE_S
        self.timer: asyncio.TimerHandle | None = None
        self.offering: asyncio.Task[None] | None = None


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
        window: Window | None = None,
    ) -> None:
        self._engine = engine
        self._chain_id = chain_id
        self._signer = signer
        self._pending = pending
        self._remember = remember
        self._failed = failed
        self._window = window or Window()
        self._loop = asyncio.get_running_loop()
        self._queue: collections.deque[Verified] = collections.deque()
        self._again: collections.deque[tuple[int, list[Verified]]] = collections.deque()
        """What was bundled in vain, with the attempt that comes next: it leaves before the queue."""
        self._flights: dict[bytes, _Flight] = {}
        self._flights_bytes = 0
        self._blocks = 0
        self._planned = False
        self._next_s = 0.0
        self._begun = False
        self._stopped = False

    @property
    def in_flight(self) -> int:
        """Bundles on their way."""
        return len(self._flights)

    def begin(self) -> None:
        """The engine takes bundles from now on."""
        self._begun = True
        self._plan()

    def add(self, items: Iterable[Verified]) -> None:
        """Queue transactions, each accepted and durable."""
        self._queue.extend(items)
        self._plan()

    def block_committed(self, txs: Sequence[bytes]) -> None:
        """A block is durable. What it carried or settled has landed; what waits for too long is offered
        again."""
        self._blocks += 1
        carried = set(txs) if self._flights else ()
        catching_up = bool(self._flights) and self._engine.condition.is_catching_up
        for raw, flight in tuple(self._flights.items()):
            if raw in carried or not any(item.id in self._pending for item in flight.items):
                self._queue.extendleft(reversed(self._land(raw, flight)))
            elif self._blocks - flight.height >= RESEND_HEIGHTS and not catching_up:
                self._offer(raw, flight)
        self._plan()

    def engine_restarted(self) -> None:
        """The engine may have lost what it was given."""
        for raw, flight in tuple(self._flights.items()):
            flight.offers = 0
            self._offer(raw, flight)

    def stop(self) -> None:
        """Send nothing more. What is queued is in the write-ahead log and is found again at the next
        start.
        """
        self._stopped = True
        for flight in self._flights.values():
            _cancel_timer(flight)

    # --- one bundle's way -----------------------------------------------------------------------------------

    def _plan(self) -> None:
        """Make a bundle in the next turn of the loop, after the answers of this turn have been written.

        Under load it waits for its time, unless there is enough for a full one.
        """
        if self._planned or self._stopped or not self._begun:
            return
        if not (self._queue or self._again) or not self._has_room():
            return
        self._planned = True
        if self._loop.time() >= self._next_s or len(self._queue) >= limits.BUNDLE_TRANSACTIONS_MAX:
            self._loop.call_soon(self._send_next)
        else:
            self._loop.call_at(self._next_s, self._send_next)

    def _has_room(self) -> bool:
        """The largest bundle must always fit an empty window."""
        flights, window = len(self._flights), self._window
        if flights == 0:
            return True
        return flights < window.bundles and (
            self._flights_bytes + limits.BUNDLE_BYTES_MAX <= window.size_bytes
        )

    def _send_next(self) -> None:
        self._planned = False
        if self._stopped or not self._has_room():
            return
        attempt, items = self._take()
        if not items:
            if self._queue:  # the limits see to it that the largest transaction fits; never stall in silence
                self._failed(BundleError(f"Transaction {self._queue[0].id.hex()} fits no bundle"))
            return
        bodies = [item.body for item in items]
        try:
            raw = encode_bundle(
                self._chain_id,
                self._signer.public_key,
                bodies,
                self._signer.sign,
                attempt=attempt,
                compress=self._window.compress,
            )
        except BundleError as error:
            self._failed(error)
            return
        self._remember(raw, items)
        is_paced = self._window.bundles > 1 or len(items) >= PACED_FROM
        self._next_s = self._loop.time() + self._window.pace_s if is_paced else 0.0
        flight = _Flight(items, opened_bytes(raw, bodies), attempt, self._blocks)
        self._flights[raw] = flight
        self._flights_bytes += flight.size_bytes
        self._offer(raw, flight)
        self._plan()

    def _take(self) -> tuple[int, list[Verified]]:
        """The next transactions that still wait, as many as one bundle may hold, and their attempt."""
        while self._again:
            attempt, left = self._again.popleft()
            left = [item for item in left if item.id in self._pending]
            if left:
                return attempt, left
        queue, pending = self._queue, self._pending
        items: list[Verified] = []
        size, signatures = ENVELOPE_BYTES_MAX + ITEM_OVERHEAD_BYTES, 0
        while queue and len(items) < limits.BUNDLE_TRANSACTIONS_MAX:
            item = queue[0]
            if item.id in pending:  # the rest has been settled by the bundles of others
                size += len(item.body) + ITEM_OVERHEAD_BYTES
                signatures += item.signatures
                if size > limits.BUNDLE_BYTES_MAX or signatures > limits.BUNDLE_SIGNATURES_MAX:
                    break
                items.append(item)
            queue.popleft()
        return 0, items

    def _offer(self, raw: bytes, flight: _Flight) -> None:
        _cancel_timer(flight)
        if self._stopped or self._flights.get(raw) is not flight:
            return
        if flight.offering is not None and not flight.offering.done():
            return
        if self._engine.condition.is_catching_up:
            # The blocks that pass now were made before, and what is offered waits here until all are there.
            flight.offers = 0
        if flight.offers >= OFFERS_MAX:
            log.warning("a bundle is made anew", transactions=len(flight.items), offers=flight.offers)
            attempt = min(flight.attempt + 1, ATTEMPT_MAX)
            self._again.append((attempt, self._land(raw, flight)))
            self._plan()
            return
        # While no block is made at all, nothing speaks against the bundle.
        counts = flight.offers == 0 or self._blocks > flight.height
        flight.height = self._blocks
        flight.offering = self._loop.create_task(self._offer_once(raw, flight, counts))

    async def _offer_once(self, raw: bytes, flight: _Flight, counts: bool) -> None:
        try:
            admission = await self._engine.submit(raw)
        except Refused as refusal:
            if flight.pause_s == FULL_PAUSE_S:  # once, and not each time until it is taken
                log.warning("the engine refused a bundle", code=refusal.code, text=refusal.text)
            admission = Admission.FULL
        except Exception as error:
            self._failed(error)
            return
        if self._flights.get(raw) is not flight or self._stopped:
            return
        if admission is Admission.FULL:
            pause_s = flight.pause_s
            flight.pause_s = min(pause_s * 2, FULL_PAUSE_S_MAX)
        else:
            pause_s, flight.pause_s = RESEND_S, FULL_PAUSE_S
            flight.offers += counts
        _cancel_timer(flight)
        flight.timer = self._loop.call_later(pause_s, self._offer, raw, flight)

    def _land(self, raw: bytes, flight: _Flight) -> list[Verified]:
        """A bundle is not on its way any more. Gives what of it is not settled."""
        _cancel_timer(flight)
        del self._flights[raw]
        self._flights_bytes -= flight.size_bytes
        return [item for item in flight.items if item.id in self._pending]


def _cancel_timer(flight: _Flight) -> None:
    if flight.timer is not None:
        flight.timer.cancel()
        flight.timer = None
