"""Follows committed blocks into a query store, from the store's checkpoint onwards and for ever.

It trusts nothing but the checkpoint that the store keeps together with its documents: after a crash at any
point it goes on there, with no block left out and none taken twice. It must never hold up whoever makes the
blocks.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from query.store import Block, Checkpoint, ProjectionGap, QueryStore, StoreDamaged, StoreUnavailable

log = logging.getLogger(__name__)

BATCH_S = 0.2
"""Time that one batch should take in the store; a block is found at most about two batches after its commit.
"""
GATHER_S = 0.02
"""Batches begin at most this often while they are small: a block of ten in a batch of its own costs twice as
much. The first block after a rest is taken at once."""
BATCH_DOCUMENTS_MIN = 100
BATCH_DOCUMENTS_MAX = 10_000
BATCH_BYTES_MAX = 16 * 1024 * 1024
IDLE_S_MAX = 1.0
"""Without a new block the store is looked after this often."""
RETRY_S_MIN = 0.1
RETRY_S_MAX = 5.0
REBUILT_AGAIN_S = 60.0
"""A store that must be rebuilt again within this time waits first: its disk may be failing."""


class Source(Protocol):
    """Where committed blocks come from. Its errors end the projector."""

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
    """What one batch did: the height the store has now, the documents added, the time it took in seconds."""

    height: int
    documents: int
    seconds: float


class Projector:
    """Moves blocks from `source` to `store`. `on_progress` is told about every batch; it must not block."""

    def __init__(
        self,
        source: Source,
        store: QueryStore,
        *,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._source = source
        self._store = store
        self._on_progress = on_progress
        self._batch_documents = 1_000
        self._rebuilt_at: float | None = None

    async def run(self) -> None:
        """Project until cancelled or until the source fails. Trouble with the store is logged, and passes."""
        retry_s = RETRY_S_MIN
        while True:
            try:
                height = await self._resume()
                while True:
                    height = await self._step(height)
                    retry_s = RETRY_S_MIN
            except StoreDamaged as damage:
                await self._rebuild(damage.text)
            except ProjectionGap as gap:
                log.warning("%s; going on from its checkpoint", gap.text)
                await asyncio.sleep(RETRY_S_MIN)
            except StoreUnavailable as trouble:
                log.warning("%s; trying again in %.1f s", trouble.text, retry_s)
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, RETRY_S_MAX)

    async def _resume(self) -> int:
        """The height to go on from. Raises `StoreDamaged` if the store holds blocks of another ledger."""
        checkpoint: Checkpoint = await self._store.checkpoint()
        if checkpoint.height:
            mark = await self._source.mark(checkpoint.height)
            if mark != checkpoint.mark:
                raise StoreDamaged(
                    f"The query store is at block {checkpoint.height} of another ledger"
                    if mark is not None
                    else f"The query store is at block {checkpoint.height}, which the ledger does not have"
                )
        log.info("projecting from height %d", checkpoint.height)
        return checkpoint.height

    async def _step(self, height: int) -> int:
        """Project what there is now, or wait for more; the height of the store after that."""
        fault = await self._store.fault()
        if fault is not None:
            raise StoreDamaged(fault)
        blocks = await self._source.blocks(height, self._batch_documents, BATCH_BYTES_MAX)
        if not blocks:
            await self._source.wait(height + 1, IDLE_S_MAX)
            return height
        assert blocks[0].height == height + 1, "a source leaves no block out"
        documents = sum(len(block.assets) + len(block.metadata) for block in blocks)
        start = time.perf_counter()
        height = await self._store.project(blocks)
        seconds = time.perf_counter() - start
        self._adapt(documents, seconds)
        self._on_progress(Progress(height, documents, seconds))
        if seconds < GATHER_S and documents < self._batch_documents // 2:
            await asyncio.sleep(GATHER_S - seconds)
        return height

    def _adapt(self, documents: int, seconds: float) -> None:
        """Batches that keep the store busy for `BATCH_S`: large ones are cheap, but found late."""
        if seconds > BATCH_S and documents:
            wanted = int(documents * BATCH_S / seconds)
        elif documents >= self._batch_documents // 2:
            wanted = self._batch_documents * 2
        else:
            return
        self._batch_documents = max(BATCH_DOCUMENTS_MIN, min(wanted, BATCH_DOCUMENTS_MAX))

    async def _rebuild(self, reason: str) -> None:
        now = time.monotonic()
        if self._rebuilt_at is not None and now - self._rebuilt_at < REBUILT_AGAIN_S:
            log.warning("%s; it was rebuilt just now, waiting %.0f s", reason, RETRY_S_MAX)
            await asyncio.sleep(RETRY_S_MAX)
        self._rebuilt_at = now
        try:
            await self._store.rebuild(reason)
        except StoreUnavailable as trouble:
            log.warning("%s; trying again in %.1f s", trouble.text, RETRY_S_MAX)
            await asyncio.sleep(RETRY_S_MAX)
