"""The ledger as a consensus engine sees it: `consensus.engine.Application` over bundles.

It judges bundles, never single transactions, and remembers what was verified under the exact bytes, never
under an id that somebody claims. Nothing is written before `commit`, and `commit` returns only when it is
durable.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from bcdb.ledger import BlockHeader, Invalid, Ledger, Outcome
from bcdb.ledger.bundle import decode_bundle
from bcdb.ledger.crashpoints import reach
from bcdb.model import limits
from bcdb.model.errors import BundleError
from bcdb.model.transaction import Verified
from bcdb.node.verifiers import Result, Verifiers
from consensus.engine import (
    AppInfo,
    Block,
    CheckResult,
    Committed,
    EngineError,
    Finalized,
    Genesis,
    InitResult,
    Proposal,
    TxResult,
)

APP_VERSION = 1
CODE_BUNDLE = 1
"""Not a bundle of this chain, or one with a transaction that is invalid by itself."""
CODE_SETTLED = 2
"""Nothing in the bundle can still change anything."""
RESULT_BYTES = {"committed": b"\x00", "duplicate": b"\x01", "rejected": b"\x02"}
"""A bundle's result data has one of these for each of its transactions, in order."""
BUNDLES_BYTES_MAX = 4 * limits.BLOCK_BYTES_MAX


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


class Opened:
    """A bundle that was looked into: its bodies, and one result for each once they are verified."""

    __slots__ = ("bodies", "results", "task")

    def __init__(self, bodies: Sequence[bytes]) -> None:
        self.bodies = bodies
        self.results: Sequence[Result] | None = None
        self.task: asyncio.Task[None] | None = None

    @property
    def is_valid(self) -> bool:
        """Verified, every transaction valid by itself, and not more signatures than a bundle may have."""
        results = self.results
        if results is None:
            return False
        signatures = 0
        for result in results:
            if not isinstance(result, Verified):
                return False
            signatures += result.signatures
        return signatures <= limits.BUNDLE_SIGNATURES_MAX


class LedgerApplication:
    """`Application` over `ledger`.

    `written()` is called after each write that must become durable, `durable(mark)` waits until it is, and
    `committed(outcome, txs)` is told of every durable block, with the consensus transactions it was made of.
    """

    def __init__(
        self,
        ledger: Ledger,
        verifiers: Verifiers,
        *,
        written: Callable[[], None],
        durable: Callable[[int], Awaitable[None]],
        committed: Callable[[Outcome, Sequence[bytes]], None],
    ) -> None:
        self._ledger = ledger
        self._verifiers = verifiers
        self._written = written
        self._durable = durable
        self._committed = committed
        self._opened: dict[bytes, Opened] = {}
        self._opened_bytes = 0
        self._remembered = VerifiedCache(
            entries_max=limits.VERIFIED_CACHE_ENTRIES_MAX, bytes_max=limits.VERIFIED_CACHE_BYTES_MAX
        )
        self._outcome: Outcome | None = None
        self._block_txs: tuple[bytes, ...] = ()

    def remember(self, bundle: bytes, transactions: Sequence[Verified]) -> None:
        """This node made `bundle` of transactions that it has verified: they need no second look."""
        opened = Opened([verified.body for verified in transactions])
        opened.results = transactions
        self._keep(bundle, opened)
        for verified in transactions:
            self._remembered.put(verified)

    # --- the calls of the engine ----------------------------------------------------------------------------

    def info(self) -> AppInfo:
        head = self._ledger.head
        return AppInfo(head.height, head.app_hash, APP_VERSION, head.block_hash, head.time_ns)

    async def init_chain(self, genesis: Genesis) -> InitResult:
        if genesis.chain_id != self._ledger.chain_id:
            text = f"The engine begins chain {genesis.chain_id!r}, the ledger is of {self._ledger.chain_id!r}"
            raise EngineError(text)
        return InitResult(self._ledger.head.app_hash, genesis.validators)

    def check(self, tx: bytes, *, recheck: bool) -> CheckResult:
        opened = self._opened.get(tx)
        if opened is None:
            try:
                opened = self._open(tx)
            except BundleError as error:
                return CheckResult(CODE_BUNDLE, error.text)
        if opened.results is None:
            if opened.task is None:
                opened.task = asyncio.get_running_loop().create_task(self._verify(opened))
            return CheckResult()
        if not opened.is_valid:
            return CheckResult(CODE_BUNDLE, "The bundle has a transaction that is invalid by itself")
        if recheck and self._is_settled(opened):
            return CheckResult(CODE_SETTLED, "All transactions of the bundle are committed")
        return CheckResult()

    def prepare(self, proposal: Proposal) -> tuple[bytes, ...]:
        chosen, size = [], 0
        for tx in proposal.txs:
            opened = self._opened.get(tx)
            if opened is None or not opened.is_valid or self._is_settled(opened):
                continue
            if size + len(tx) > proposal.bytes_max:
                break
            chosen.append(tx)
            size += len(tx)
        return tuple(chosen)

    async def process(self, block: Block) -> bool:
        for tx in block.txs:
            try:
                opened = self._opened.get(tx) or self._open(tx)
            except BundleError:
                return False
            await self._verify(opened)
            if not opened.is_valid:
                return False
        return True

    async def finalize(self, block: Block) -> Finalized:
        bundles: list[Sequence[Result] | None] = []
        for tx in block.txs:
            try:
                opened = self._opened.get(tx) or self._open(tx)
            except BundleError:
                bundles.append(None)
                continue
            await self._verify(opened)
            bundles.append(opened.results)
        transactions: list[Verified | Invalid] = []
        for results in bundles:
            transactions += _as_transactions(results)
        header = BlockHeader(block.height, block.time_ns, block.proposer, block.hash)
        outcome = self._ledger.apply(header, transactions)
        self._outcome, self._block_txs = outcome, block.txs
        return Finalized(_tx_results(bundles, outcome), outcome.app_hash)

    async def commit(self) -> Committed:
        outcome, txs = self._outcome, self._block_txs
        if outcome is None:
            raise EngineError("The engine commits before it has finalized a block")
        self._outcome, self._block_txs = None, ()
        mark = self._ledger.commit(outcome)
        self._written()
        await self._durable(mark)
        for tx in txs:
            self._forget(tx)
        reach("node-before-publish")
        self._committed(outcome, txs)
        reach("node-after-publish")
        return Committed()

    # --- bundles that were looked into ----------------------------------------------------------------------

    def _open(self, tx: bytes) -> Opened:
        opened = Opened(decode_bundle(tx, self._ledger.chain_id).transactions)
        self._keep(tx, opened)
        return opened

    def _keep(self, tx: bytes, opened: Opened) -> None:
        self._forget(tx)
        self._opened[tx] = opened
        self._opened_bytes += len(tx)
        while self._opened_bytes > BUNDLES_BYTES_MAX:
            self._forget(next(iter(self._opened)))

    def _forget(self, tx: bytes) -> None:
        if self._opened.pop(tx, None) is not None:
            self._opened_bytes -= len(tx)

    async def _verify(self, opened: Opened) -> None:
        """Fill `opened.results` from memory, and through the pool for what is not remembered."""
        if opened.results is not None:
            return
        results: list[Result | None] = [self._remembered.get(body) for body in opened.bodies]
        unknown = [at for at, result in enumerate(results) if result is None]
        if unknown:
            found = await self._verifiers.verify([opened.bodies[at] for at in unknown])
            for at, result in zip(unknown, found, strict=True):
                results[at] = result
                if isinstance(result, Verified):
                    self._remembered.put(result)
        opened.results = [result for result in results if result is not None]

    def _is_settled(self, opened: Opened) -> bool:
        committed = self._ledger.reader.has_transaction
        return opened.results is not None and all(
            isinstance(result, Verified) and committed(result.id) for result in opened.results
        )


def _as_transactions(results: Sequence[Result] | None) -> list[Verified | Invalid]:
    if results is None:
        return []
    return [result if isinstance(result, Verified) else Invalid(b"", result) for result in results]


def _tx_results(bundles: Sequence[Sequence[Result] | None], outcome: Outcome) -> tuple[TxResult, ...]:
    """One result for each bundle: code 0 and its map, or `CODE_BUNDLE` for what is no bundle at all."""
    codes = b"".join([RESULT_BYTES[result.status] for result in outcome.results])
    results, start = [], 0
    for transactions in bundles:
        if transactions is None:
            results.append(TxResult(CODE_BUNDLE, b""))
            continue
        results.append(TxResult(0, codes[start : start + len(transactions)]))
        start += len(transactions)
    return tuple(results)
