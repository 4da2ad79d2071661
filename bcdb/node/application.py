"""The ledger as a consensus engine sees it: `consensus.engine.Application` over bundles.

It judges bundles, never single transactions (see `pool`). Nothing is written before `commit`, and `commit`
returns only when it is durable. What decides a block depends on the block and the committed state alone,
never on who is a member here or what waits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from bcdb.ledger import BlockHeader, Invalid, Ledger, Outcome
from bcdb.ledger.bundle import UnknownVersion
from bcdb.ledger.crashpoints import reach
from bcdb.ledger.slices import Slices
from bcdb.model import limits
from bcdb.model.errors import BundleError
from bcdb.model.transaction import Verified
from bcdb.node.chain import check_app_state
from bcdb.node.pool import BundlePool, NotTaken, Opened
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

log = structlog.get_logger(__name__)

APP_VERSION = 1
CODE_BUNDLE = 1
"""Not a bundle of this chain, or one with a transaction that is invalid by itself."""
CODE_SETTLED = 2
"""Nothing in the bundle can still change anything."""
CODE_NOT_TAKEN = 3
"""The submitter is no member here, or has too much waiting. Another node may see that differently."""
QUOTA_BYTES_ALONE = 64 * 1024 * 1024
"""What may wait of a submitter where nobody says otherwise."""
PREPARE_WAIT_S = 0.2
"""What has just arrived is verified in some milliseconds; a block without it would be made for nothing."""
RESULT_BYTES = {"committed": b"\x00", "duplicate": b"\x01", "rejected": b"\x02"}
"""A bundle's result data has one of these for each of its transactions, in order."""


class LedgerApplication:
    """`Application` over `ledger`.

    `written()` is called after each write that must become durable, `durable(mark)` waits until it is, and
    `committed(outcome, txs)` is told of every durable block, with the consensus transactions it was made of.
    `quota_bytes(key)` tells how much of a submitter may wait here (see `pool`). `base_height`: where the
    engine's chain begins; it has no block up to it.
    """

    def __init__(
        self,
        ledger: Ledger,
        verifiers: Verifiers,
        *,
        written: Callable[[], None],
        durable: Callable[[int], Awaitable[None]],
        committed: Callable[[Outcome, Sequence[bytes]], None],
        quota_bytes: Callable[[bytes], int | None] = lambda submitter: QUOTA_BYTES_ALONE,
        base_height: int = 0,
    ) -> None:
        self._ledger = ledger
        self._written = written
        self._durable = durable
        self._committed = committed
        self._base_height = base_height
        self.pool = BundlePool(ledger, verifiers, quota_bytes)
        self._outcome: Outcome | None = None
        self._block_txs: tuple[bytes, ...] = ()

    # --- the calls of the engine ----------------------------------------------------------------------------

    def info(self) -> AppInfo:
        head = self._ledger.head
        height = 0 if head.height <= self._base_height else head.height
        return AppInfo(height, head.app_hash, APP_VERSION, head.block_hash, head.time_ns)

    async def init_chain(self, genesis: Genesis) -> InitResult:
        head = self._ledger.head
        if genesis.chain_id != self._ledger.chain_id:
            text = f"The engine begins chain {genesis.chain_id!r}, the ledger is of {self._ledger.chain_id!r}"
            raise EngineError(text)
        if genesis.app_state:
            check_app_state(genesis.app_state, genesis.initial_height, head)
        return InitResult(head.app_hash, genesis.validators)

    def check(self, tx: bytes, *, recheck: bool) -> CheckResult:
        try:
            opened = self.pool.admit(tx)
        except BundleError as error:
            return CheckResult(CODE_BUNDLE, error.text)
        except NotTaken as error:
            return CheckResult(CODE_NOT_TAKEN, error.text)
        if opened.results is None:
            return CheckResult()
        if not opened.is_valid:
            self.pool.forget(tx)
            return CheckResult(CODE_BUNDLE, "The bundle has a transaction that is invalid by itself")
        if recheck:
            self.pool.watch(opened)
        if not self.pool.has_effect(opened):
            self.pool.forget(tx)
            return CheckResult(CODE_SETTLED, "Nothing in the bundle can be committed any more")
        return CheckResult()

    async def prepare(self, proposal: Proposal) -> tuple[bytes, ...]:
        offered = [(tx, opened) for tx in proposal.txs if (opened := self.pool.get(tx)) is not None]
        await self.pool.verify_within(PREPARE_WAIT_S, [opened for _, opened in offered])
        chosen: list[bytes] = []
        size = transactions = signatures = 0
        for tx, opened in offered:
            if not opened.is_valid or not self.pool.has_effect(opened):
                continue
            size += opened.size
            transactions += len(opened.bodies)
            signatures += opened.signatures
            if (
                size > proposal.bytes_max
                or transactions > limits.BLOCK_TRANSACTIONS_MAX
                or signatures > limits.BLOCK_SIGNATURES_MAX
            ):
                break
            chosen.append(tx)
        return tuple(chosen)

    async def process(self, block: Block) -> bool:
        bundles: list[Opened] = []
        size = transactions = signatures = 0
        if sum(map(len, block.txs)) > limits.BLOCK_BYTES_MAX:
            return _reject(block, "It has more bytes than a block may have")
        for tx in block.txs:
            try:
                opened = self.pool.open(tx)
            except BundleError as error:
                return _reject(block, error.text)
            bundles.append(opened)
            size += opened.size
            transactions += len(opened.bodies)
            # Before the next one is opened: what is small on its way may be large here.
            if transactions > limits.BLOCK_TRANSACTIONS_MAX or size > limits.BLOCK_BYTES_MAX:
                return _reject(block, "It has more transactions or bytes than a block may have")
            await asyncio.sleep(0)
        await self.pool.verify_all(bundles)
        for opened in bundles:
            if not opened.is_valid:
                return _reject(block, "It has a transaction that is invalid by itself")
            signatures += opened.signatures
            if signatures > limits.BLOCK_SIGNATURES_MAX:
                return _reject(block, "It has more signatures than a block may have")
        return True

    async def finalize(self, block: Block) -> Finalized:
        found: list[Opened | None] = []
        for tx in block.txs:
            try:
                found.append(self.pool.open(tx))
            except UnknownVersion as error:
                # Two thirds found it good: anything else would part this ledger from theirs.
                raise EngineError(
                    f"Block {block.height} is of a newer bcdb: {error.text}. Use the version of the others."
                ) from None
            except BundleError:
                found.append(None)
            await asyncio.sleep(0)
        await self.pool.verify_all([opened for opened in found if opened is not None])
        bundles = [None if opened is None else opened.results for opened in found]
        transactions: list[Verified | Invalid] = []
        for results in bundles:
            transactions += _as_transactions(results)
        header = BlockHeader(block.height, block.time_ns, block.proposer, block.hash)
        outcome = await _pausing(self._ledger.applying(header, transactions))
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
        self.pool.settle(outcome, txs)
        reach("node-before-publish")
        self._committed(outcome, txs)
        reach("node-after-publish")
        return Committed()


async def _pausing(slices: Slices[Outcome]) -> Outcome:
    """What the slices lead to; others of the event loop get their turn in the pauses."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        await asyncio.sleep(0)


def _reject(block: Block, reason: str) -> bool:
    log.warning("a proposal is rejected", height=block.height, proposer=block.proposer.hex(), reason=reason)
    return False


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
