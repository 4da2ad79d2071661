"""The bundles that this node has looked into: those that wait for a block, and those that it met in one.

A bundle is decoded and verified once, whoever brings it and however often. What waits is bounded by a quota
for each submitter, so that no member can fill the mempool of another; what only passes by is bounded in
bytes. Whether a bundle can still change anything is known from memory once it has been asked about.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from bcdb.ledger import Ledger, Outcome
from bcdb.ledger.bundle import decode_bundle, opened_bytes, peek_submitter
from bcdb.ledger.records import output_key
from bcdb.model import limits
from bcdb.model.errors import BcdbError
from bcdb.model.transaction import Verified
from bcdb.node.verifiers import Result, Verifiers

PASSING_BYTES_MAX = 4 * limits.BLOCK_BYTES_MAX
FORGOTTEN_AFTER_HEIGHTS = 4
"""A bundle that waits is asked about after every block. One that was not for so long is not in the mempool
any more."""


class NotTaken(BcdbError):
    """A bundle of somebody who is no member, or who has too much waiting here already."""


class Opened:
    """A bundle that was looked into: its bodies, and one result for each once they are verified."""

    # `size`: see `bundle.opened_bytes`.
    __slots__ = (
        "alive",
        "bodies",
        "raw",
        "results",
        "seen_height",
        "signatures",
        "size",
        "submitter",
        "task",
        "waits",
    )

    def __init__(self, raw: bytes, submitter: bytes, bodies: Sequence[bytes]) -> None:
        self.raw = raw
        self.submitter = submitter
        self.bodies = bodies
        self.size = opened_bytes(raw, bodies)
        self.results: Sequence[Result] | None = None
        self.signatures = -1
        """Of all its transactions; -1 while they are not verified, or when one is invalid by itself."""
        self.task: asyncio.Task[None] | None = None
        self.waits = False
        """Whether it counts against its submitter's quota."""
        self.seen_height = 0
        self.alive: set[bytes] | None = None
        """Ids of its transactions that may still be committed; None until somebody has asked."""

    @property
    def is_valid(self) -> bool:
        """Verified, every transaction valid by itself, and not more signatures than a bundle may have."""
        return 0 <= self.signatures <= limits.BUNDLE_SIGNATURES_MAX

    def set_results(self, results: Sequence[Result]) -> None:
        self.results = results
        count = 0
        for result in results:
            if not isinstance(result, Verified):
                return
            count += result.signatures
        self.signatures = count


class VerifiedCache:
    """Transactions that passed verification, under their exact bytes.

    It lives no longer than this process, so all entries are of one version of the limits. Bounded in entries
    and bytes; the oldest leave first, and are verified again when they are met again.
    """

    def __init__(self, *, entries_max: int, bytes_max: int) -> None:
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        # The body itself is the key: a third of the time of a SHA-256 of it, and it is held anyway.
        self._entries: dict[bytes, Verified] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, verified: Verified) -> None:
        entries = self._entries
        if verified.body in entries:
            return
        entries[verified.body] = verified
        self._bytes += len(verified.body)
        while len(entries) > self._entries_max or self._bytes > self._bytes_max:
            self._bytes -= len(entries.pop(next(iter(entries))).body)

    def get(self, body: bytes) -> Verified | None:
        return self._entries.get(body)


class BundlePool:
    """The bundles by their exact bytes.

    `quota_bytes(key)`: how much of this submitter (raw key) may wait here, None if nothing of it is taken.
    """

    def __init__(
        self, ledger: Ledger, verifiers: Verifiers, quota_bytes: Callable[[bytes], int | None]
    ) -> None:
        self._ledger = ledger
        self._verifiers = verifiers
        self._quota_bytes = quota_bytes
        self._opened: dict[bytes, Opened] = {}
        self._passing: dict[bytes, None] = {}
        """Those that do not wait, the oldest first."""
        self._passing_bytes = 0
        self._usage: dict[bytes, tuple[int, int]] = {}
        """Bundles and bytes that wait, by submitter."""
        self._holders: dict[bytes, _Watched] = {}
        """By id: the transactions of watched bundles that may still be committed."""
        self._rivals: dict[bytes, dict[bytes, None]] = {}
        """Key of an output → ids of those transactions that want to spend it, in order."""
        self._remembered = VerifiedCache(
            entries_max=limits.VERIFIED_CACHE_ENTRIES_MAX, bytes_max=limits.VERIFIED_CACHE_BYTES_MAX
        )

    def usage(self, submitter: bytes) -> tuple[int, int]:
        """Bundles and bytes of this submitter that wait here."""
        return self._usage.get(submitter, (0, 0))

    def get(self, tx: bytes) -> Opened | None:
        return self._opened.get(tx)

    def remember(self, tx: bytes, submitter: bytes, transactions: Sequence[Verified]) -> None:
        """This node made the bundle `tx` of transactions that it has verified: they need no second look."""
        bodies = [verified.body for verified in transactions]
        opened = Opened(tx, submitter, bodies)
        opened.set_results(transactions)
        self.forget(tx)
        self._keep(opened)
        for verified in transactions:
            self._remembered.put(verified)

    def open(self, tx: bytes) -> Opened:
        """Look into a bundle that a proposal or a block has brought. Raises `BundleError`."""
        opened = self._opened.get(tx)
        if opened is None:
            bundle = decode_bundle(tx, self._ledger.chain_id)
            opened = Opened(tx, bundle.submitter, bundle.transactions)
            self._keep(opened)
        return opened

    def admit(self, tx: bytes) -> Opened:
        """Look into a bundle that shall wait here; it is verified in the pool from now on.

        The submitter is looked at before anything that costs. Raises `BundleError`, `NotTaken`.
        """
        opened = self._opened.get(tx)
        if opened is None or not opened.waits:
            submitter = peek_submitter(tx, self._ledger.chain_id) if opened is None else opened.submitter
            self._check_quota(submitter, len(tx))
            opened = self.open(tx)
            self._check_quota(submitter, opened.size)
            self._passing_bytes -= opened.size if self._passing.pop(tx, 0) is None else 0
            opened.waits = True
            bundles, size = self.usage(opened.submitter)
            self._usage[opened.submitter] = (bundles + 1, size + opened.size)
        opened.seen_height = self._ledger.head.height
        if opened.results is None and not self._recall(opened):
            self._begin(opened)
        return opened

    def forget(self, tx: bytes) -> None:
        opened = self._opened.pop(tx, None)
        if opened is None:
            return
        if opened.waits:
            self._stop_waiting(opened)
        elif self._passing.pop(tx, 0) is None:
            self._passing_bytes -= opened.size
        self._unwatch(opened)

    async def verify_all(self, bundles: Sequence[Opened]) -> None:
        """Return once all of these are verified; the work on all of them begins at once."""
        await self.verify_within(None, bundles)
        for opened in bundles:
            await self.verify(opened)

    async def verify(self, opened: Opened) -> None:
        """Return once `opened.results` is there: from memory, and through the pool for what is not
        remembered."""
        while opened.results is None:
            await asyncio.shield(self._begin(opened))

    async def verify_within(self, seconds: float | None, bundles: Iterable[Opened]) -> None:
        """Return once all of these are verified, or after a while with some of them."""
        tasks = [self._begin(opened) for opened in bundles if opened.results is None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    def has_effect(self, opened: Opened) -> bool:
        """Whether a transaction of a verified bundle may still be committed."""
        if opened.alive is not None:
            return bool(opened.alive)
        is_dead = self._ledger.is_dead
        return any(isinstance(result, Verified) and not is_dead(result) for result in opened.results or ())

    def watch(self, opened: Opened) -> None:
        """From now on `has_effect` of this verified bundle is known from memory."""
        if opened.alive is not None:
            return
        is_dead = self._ledger.is_dead
        opened.alive = set()
        for result in opened.results or ():
            if isinstance(result, Verified) and result.id not in opened.alive and not is_dead(result):
                opened.alive.add(result.id)
                watched = self._holders.get(result.id)
                if watched is None:
                    watched = self._holders[result.id] = _Watched(result)
                    for key in watched.keys:
                        self._rivals.setdefault(key, {})[result.id] = None
                watched.bundles.append(opened)

    def engine_restarted(self) -> None:
        """The mempool is empty: nothing waits any more. What was verified stays remembered."""
        for tx in [tx for tx, opened in self._opened.items() if opened.waits]:
            self.forget(tx)

    def settle(self, outcome: Outcome, txs: Iterable[bytes]) -> None:
        """A block is committed: its bundles need no more attention, and others may have nothing left to
        do."""
        for tx in txs:
            self.forget(tx)
        if self._holders:
            for transaction in outcome.committed:
                self._bury(transaction.id)
            for key, winner in outcome.spent.items():
                for loser in tuple(self._rivals.get(key, ())):
                    if loser != winner:
                        self._bury(loser)
        oldest = outcome.head.height - FORGOTTEN_AFTER_HEIGHTS
        for tx in [tx for tx, opened in self._opened.items() if opened.waits and opened.seen_height < oldest]:
            self.forget(tx)

    # --- quotas and bounds ----------------------------------------------------------------------------------

    def _check_quota(self, submitter: bytes, size: int) -> None:
        quota_bytes = self._quota_bytes(submitter)
        if quota_bytes is None:
            raise NotTaken(f"The submitter {submitter.hex()} is no member of this node's network")
        bundles, waiting = self.usage(submitter)
        if bundles >= limits.SUBMITTER_BUNDLES_MAX:
            raise NotTaken(f"{bundles} bundles of this submitter wait already, and that is the limit")
        if waiting + size > quota_bytes:
            raise NotTaken(f"{waiting} bytes of this submitter wait already; its quota is {quota_bytes}")

    def _keep(self, opened: Opened) -> None:
        self._opened[opened.raw] = opened
        self._pass(opened)

    def _pass(self, opened: Opened) -> None:
        """It does not wait; it stays as long as there is room."""
        self._passing[opened.raw] = None
        self._passing_bytes += opened.size
        while self._passing_bytes > PASSING_BYTES_MAX:
            self.forget(next(iter(self._passing)))

    # --- verification ---------------------------------------------------------------------------------------

    def _begin(self, opened: Opened) -> asyncio.Task[None]:
        if opened.task is None or opened.task.done():
            opened.task = asyncio.get_running_loop().create_task(self._fill(opened))
        return opened.task

    def _recall(self, opened: Opened) -> bool:
        """Whether all transactions of the bundle are remembered."""
        found = [self._remembered.get(body) for body in opened.bodies]
        results = [result for result in found if result is not None]
        if len(results) == len(found):
            opened.set_results(results)
        return opened.results is not None

    async def _fill(self, opened: Opened) -> None:
        results: list[Result | None] = [self._remembered.get(body) for body in opened.bodies]
        unknown = [at for at, result in enumerate(results) if result is None]
        if unknown:
            found = await self._verifiers.verify([opened.bodies[at] for at in unknown])
            for at, result in zip(unknown, found, strict=True):
                results[at] = result
                if isinstance(result, Verified):
                    self._remembered.put(result)
        opened.set_results([result for result in results if result is not None])
        if opened.waits and not (opened.is_valid and self.has_effect(opened)):
            # Somebody may have sent an old bundle of this member again; that shall not cost its quota.
            self._stop_waiting(opened)
            self._pass(opened)

    # --- what can still be committed ------------------------------------------------------------------------

    def _bury(self, transaction_id: bytes) -> None:
        watched = self._holders.get(transaction_id)
        if watched is not None:
            for opened in watched.bundles:
                if opened.alive is not None:
                    opened.alive.discard(transaction_id)
            self._drop(watched)

    def _unwatch(self, opened: Opened) -> None:
        """What has no other holder is not looked for any more."""
        alive, opened.alive = opened.alive, None
        for transaction_id in alive or ():
            watched = self._holders[transaction_id]
            watched.bundles = [holder for holder in watched.bundles if holder is not opened]
            if not watched.bundles:
                self._drop(watched)

    def _drop(self, watched: "_Watched") -> None:
        transaction_id = watched.verified.id
        del self._holders[transaction_id]
        for key in watched.keys:
            rivals = self._rivals[key]
            rivals.pop(transaction_id, None)
            if not rivals:
                del self._rivals[key]

    def _stop_waiting(self, opened: Opened) -> None:
        opened.waits = False
        bundles, size = self._usage.pop(opened.submitter)
        if bundles > 1:
            self._usage[opened.submitter] = (bundles - 1, size - opened.size)


class _Watched:
    """A transaction that may still be committed, and the bundles in which it waits."""

    __slots__ = ("bundles", "keys", "verified")

    def __init__(self, verified: Verified) -> None:
        self.verified = verified
        # A set, as nothing keeps a transaction that waits from naming an output twice.
        spent = (output_key(spend.transaction_id, spend.output_index) for spend in verified.spends)
        self.keys = tuple(dict.fromkeys(spent))
        self.bundles: list[Opened] = []
