"""Follows committed blocks into a query store, from the store's checkpoint onwards and for ever.

It trusts nothing but the checkpoint that the store keeps together with its documents: after a crash at any
point it goes on there, with no block left out and none taken twice. It must never hold up whoever makes the
blocks.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from query.documents import Block
from query.store import Checkpoint, ProjectionGap, QueryStore, StoreDamaged, StoreUnavailable

log = logging.getLogger(__name__)

BATCH_S = 0.2
"""Time that one batch should take in the store; a block is found at most about two batches after its commit.
"""
GATHER_S = 0.02
"""Batches begin at most this often while they are small: a block of ten in a batch of its own costs twice as
much. The first block after a rest is taken at once."""
BATCH_DOCUMENTS_FIRST = 2_000
BATCH_DOCUMENTS_MIN = 200
BATCH_DOCUMENTS_MAX = 16_000
"""A transaction makes four documents or so: at this size a batch has some thousands of them, and what is paid
for a batch as a whole no longer counts."""
BATCH_BYTES_MAX = 16 * 1024 * 1024
"""Bodies of transactions in one batch. While the store works on one the next is read, so twice as many are in
memory, or three times when few documents are that long."""
IDLE_S_MAX = 1.0
"""Without a new block the store is looked after this often."""
RETRY_S_MIN = 0.1
RETRY_S_MAX = 5.0
REBUILT_AGAIN_S = 60.0
"""A store that must be rebuilt again within this time waits first: its disk may be failing."""


class Source(Protocol):
    """Where committed blocks come from. Its errors end the projector."""

    async def head(self) -> int:
        """The height of the last committed block, 0 if there is none."""
        ...

    async def mark(self, height: int) -> bytes | None:
        """The mark of the committed block at `height` (from 1), None if there is none."""
        ...

    async def blocks(self, after: int, documents_max: int, bytes_max: int) -> Sequence[Block]:
        """The committed blocks that follow the height `after`, in order, none left out.

        As many as stay within the bounds, at least one if there is one.
        """
        ...

    async def wait(self, height: int, timeout_s: float) -> None:
        """Return once the block at `height` is committed, or when the time is over."""
        ...


class Progress(msgspec.Struct, frozen=True):
    """What one batch did: the height the store has now, what was added, the time it took in seconds."""

    height: int
    transactions: int
    documents: int
    seconds: float


class _Wanted(Exception):
    """The store must be made anew, though nothing is wrong with it. `reason` is what the log says."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Projector:
    """Moves blocks from `source` to `store`.

    `rebuild_request`: when this file appears the store is rebuilt, and the file is removed as soon as the old
    documents are gone. `on_progress` is told about every batch, `on_rebuild` the reason of every rebuild,
    `on_trouble` what the store said each time that it failed; they must not block.
    """

    def __init__(
        self,
        source: Source,
        store: QueryStore,
        *,
        rebuild_request: Path | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        on_rebuild: Callable[[str], None] = lambda reason: None,
        on_trouble: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._source = source
        self._store = store
        self._request = rebuild_request
        self._on_progress = on_progress
        self._on_rebuild = on_rebuild
        self._on_trouble = on_trouble
        self._batch_documents = BATCH_DOCUMENTS_FIRST
        self._rebuilt_at: float | None = None
        self._ahead: asyncio.Task[Sequence[Block]] | None = None

    async def run(self) -> None:
        """Project until cancelled or until the source fails. Trouble with the store is logged, and passes."""
        try:
            await self._run()
        finally:
            if self._ahead is not None:
                self._ahead.cancel()
                await asyncio.gather(self._ahead, return_exceptions=True)

    async def _run(self) -> None:
        retry_s = RETRY_S_MIN
        while True:
            try:
                height = await self._resume()
                while True:
                    height = await self._step(height)
                    retry_s = RETRY_S_MIN
            except _Wanted as wanted:
                await self._drop_ahead()
                await self._rebuild(wanted.reason)
            except StoreDamaged as damage:
                await self._drop_ahead()
                await self._pause_between_rebuilds(damage.text)
                await self._rebuild(damage.text)
            except ProjectionGap as gap:
                await self._drop_ahead()
                self._on_trouble(gap.text)
                log.warning("%s; going on from its checkpoint", gap.text)
                await asyncio.sleep(RETRY_S_MIN)
            except StoreUnavailable as trouble:
                await self._drop_ahead()
                self._on_trouble(trouble.text)
                log.warning("%s; trying again in %.1f s", trouble.text, retry_s)
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, RETRY_S_MAX)

    async def _resume(self) -> int:
        """The height to go on from, once the store holds the beginning of this ledger and nothing else."""
        head = await self._source.head()
        self._look_for_request()
        checkpoint: Checkpoint = await self._store.checkpoint()
        if checkpoint.height:
            mark = await self._source.mark(checkpoint.height)
            if mark is None:
                raise StoreDamaged(
                    f"The query store is at block {checkpoint.height}, which the ledger does not have"
                )
            if mark != checkpoint.mark:
                raise StoreDamaged(
                    f"The query store is at block {checkpoint.height} of another ledger; if another node"
                    " writes to it too, give each node a database of its own"
                )
        elif any((await self._store.status()).counts.values()):
            # What is left of a first batch. Nothing tells of which ledger it was.
            raise StoreDamaged("The query store holds documents, but no block as a whole")
        elif head and not checkpoint.target:
            # Half of a ledger must not answer as if it were all of it.
            raise _Wanted(f"it is empty, and the ledger has {head} blocks")
        if checkpoint.target > max(head, checkpoint.height):
            raise StoreDamaged(
                f"The query store waits for block {checkpoint.target}, which the ledger does not have"
            )
        log.info("projecting from height %d", checkpoint.height)
        return checkpoint.height

    async def _step(self, height: int) -> int:
        """Project what there is now, or wait for more; the height of the store after that."""
        self._look_for_request()
        fault = await self._store.fault()
        if fault is not None:
            raise StoreDamaged(fault)
        blocks = await self._next(height)
        if not blocks:
            await self._source.wait(height + 1, IDLE_S_MAX)
            return height
        assert blocks[0].height == height + 1, "a source leaves no block out"
        documents = sum([block.documents for block in blocks])
        transactions = sum([len(block.transactions) for block in blocks])
        # The store works in a thread or in another process: the next blocks are read and decoded meanwhile.
        self._ahead = asyncio.create_task(self._read(blocks[-1].height))
        start = time.perf_counter()
        height = await self._store.project(blocks)
        seconds = time.perf_counter() - start
        self._adapt(documents, seconds)
        self._on_progress(Progress(height, transactions, documents, seconds))
        if seconds < GATHER_S and documents < self._batch_documents // 2:
            await asyncio.sleep(GATHER_S - seconds)
        return height

    async def _next(self, height: int) -> Sequence[Block]:
        """The blocks that follow `height`: those read ahead, and if they are few the ones that came since."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return await self._read(height)
        blocks = await ahead
        if not blocks or blocks[0].height != height + 1:
            return await self._read(height)
        if sum([block.documents for block in blocks]) < self._batch_documents // 2:
            return [*blocks, *await self._read(blocks[-1].height)]
        return blocks

    async def _read(self, after: int) -> Sequence[Block]:
        return await self._source.blocks(after, self._batch_documents, BATCH_BYTES_MAX)

    async def _drop_ahead(self) -> None:
        """Forget what was read ahead, but not that the source has failed."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.cancel()
            await asyncio.wait([ahead])
            if not ahead.cancelled():
                ahead.result()

    def _adapt(self, documents: int, seconds: float) -> None:
        """Batches that keep the store busy for `BATCH_S`: large ones are cheap, but found late."""
        if seconds > BATCH_S and documents:
            wanted = int(documents * BATCH_S / seconds)
        elif documents >= self._batch_documents // 2:
            wanted = self._batch_documents * 2
        else:
            return
        self._batch_documents = max(BATCH_DOCUMENTS_MIN, min(wanted, BATCH_DOCUMENTS_MAX))

    # --- rebuilding -----------------------------------------------------------------------------------------

    def _look_for_request(self) -> None:
        if self._request is not None and self._request.exists():
            raise _Wanted("it was asked for")

    async def _pause_between_rebuilds(self, reason: str) -> None:
        now = time.monotonic()
        if self._rebuilt_at is not None and now - self._rebuilt_at < REBUILT_AGAIN_S:
            log.warning("%s; it was rebuilt just now, waiting %.0f s", reason, RETRY_S_MAX)
            await asyncio.sleep(RETRY_S_MAX)
        self._rebuilt_at = now

    async def _rebuild(self, reason: str) -> None:
        try:
            await self._store.rebuild(reason, await self._source.head())
        except StoreUnavailable as trouble:
            self._on_trouble(trouble.text)
            log.warning("%s; trying again in %.1f s", trouble.text, RETRY_S_MAX)
            await asyncio.sleep(RETRY_S_MAX)
            return
        self._on_rebuild(reason)
        self._forget_request()

    def _forget_request(self) -> None:
        """Remove the file of the request: it has been done, whatever the rebuild was for."""
        if self._request is None:
            return
        try:
            self._request.unlink(missing_ok=True)
        except OSError as error:
            # To look at it again would mean to rebuild for ever.
            log.error(
                "The file %s can't be removed (%s); no request to rebuild is taken until the next start",
                self._request,
                error.strerror,
            )
            self._request = None
