"""A query store in memory for the tests of who fills and who checks one: it can be broken in every way.

It answers no questions. Like a database without transactions it keeps documents of a batch whose checkpoint
was never written.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from query.documents import COLLECTIONS, Block, Document, Spending, documents
from query.store import (
    Aggregated,
    Checkpoint,
    Find,
    Found,
    Page,
    ProjectionGap,
    Status,
    Stored,
    StoreDamaged,
    StoreUnavailable,
)


class MemoryStore:
    """A `query.store.QueryStore`. `kept` are the documents by collection, in order; tests change them.

    `troubles` are raised by the next calls of `project`, the last one first, after the documents are written
    and before the checkpoint. `unreadable` are collections and heights that can't be read.
    """

    def __init__(self) -> None:
        self.kept: dict[str, list[Stored]] = {name: [] for name in COLLECTIONS}
        self.at = Checkpoint(0, b"")
        self.troubles: list[Exception] = []
        self.rebuilds: list[tuple[str, int]] = []
        self.batches: list[list[int]] = []
        self.unreadable: set[tuple[str, int]] = set()
        self.index_faults: Sequence[str] = ()
        self.damage: str | None = None

    async def checkpoint(self) -> Checkpoint:
        return self.at

    async def project(self, blocks: Sequence[Block]) -> int:
        fresh = [block for block in blocks if block.height > self.at.height]
        for expected, block in enumerate(fresh, self.at.height + 1):
            if block.height != expected:
                raise ProjectionGap(f"block {block.height} does not follow block {expected - 1}")
        self.batches.append([block.height for block in fresh])
        for block in fresh:
            self.write(block)
        if self.troubles:
            raise self.troubles.pop()
        if fresh:
            last = fresh[-1]
            self.at = Checkpoint(
                last.height, last.mark, self.at.target if self.at.target > last.height else 0
            )
        return self.at.height

    def write(self, block: Block) -> None:
        """Add what the block makes, unless it is there, and note what it spends."""
        for collection in COLLECTIONS:
            there = {stored.place for stored in self.kept[collection]}
            self.kept[collection] += [
                Stored(place, document)
                for place, document in documents(collection, block)
                if place not in there
            ]
        for transaction in block.transactions:
            for each in transaction.inputs:
                if each.fulfills is not None:
                    spent = self.output(each.fulfills.transaction_id, each.fulfills.output_index)
                    spent.update(spent_height=block.height, spent_by=transaction.id.hex())

    def output(self, transaction_id: bytes, index: int) -> Document:
        """The document of an output, to be changed in its place."""
        (found,) = [
            stored.document
            for stored in self.kept["outputs"]
            if (stored.document["transaction_id"], stored.document["output_index"])
            == (transaction_id.hex(), index)
        ]
        return found

    async def fault(self) -> str | None:
        return self.damage

    async def rebuild(self, reason: str, target: int) -> None:
        self.rebuilds.append((reason, target))
        self.kept = {name: [] for name in COLLECTIONS}
        self.at = Checkpoint(0, b"", target)
        self.damage = None

    async def status(self) -> Status:
        counts = {name: len(kept) for name, kept in self.kept.items()}
        return Status("memory", self.at.height, self.at.target, False, counts)

    async def stored(self, collection: str, first: int, last: int) -> AsyncIterator[Stored]:
        for stored in list(self.kept[collection]):
            if stored.place is not None and first <= stored.place.height <= last:
                if (collection, stored.place.height) in self.unreadable:
                    raise StoreDamaged("its page is torn")
                yield stored

    async def strays(self, collection: str, last: int) -> AsyncIterator[Stored]:
        for stored in list(self.kept[collection]):
            if stored.place is None or not 1 <= stored.place.height <= last:
                yield stored

    async def indexes(self) -> Sequence[str]:
        return self.index_faults

    async def height(self) -> int:
        if self.at.height < self.at.target:
            raise StoreUnavailable("The query store is being built")
        return self.at.height

    async def wait_height(self, height: int, timeout_s: float) -> int:
        raise AssertionError("a check asks no questions")

    async def search_assets(self, text: str, limit: int, after: str | None = None) -> list[Found]:
        raise AssertionError("a check asks no questions")

    async def search_metadata(self, text: str, limit: int, after: str | None = None) -> list[Found]:
        raise AssertionError("a check asks no questions")

    async def find(self, question: Find) -> Page:
        raise AssertionError("a check asks no questions")

    async def aggregate(self, collection: str, pipeline: Sequence[Mapping[str, Any]]) -> Aggregated:
        raise AssertionError("a check asks no questions")

    async def close(self) -> None:
        pass


class MemoryLedger:
    """Blocks in memory as a `query.projector.Source` and a `query.checking.Truth`; nothing comes after."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.chain = list(blocks)

    async def head(self) -> int:
        return len(self.chain)

    async def mark(self, height: int) -> bytes | None:
        return self.chain[height - 1].mark if height <= len(self.chain) else None

    async def blocks(self, after: int, documents_max: int, bytes_max: int) -> Sequence[Block]:
        return list(self._some(after, documents_max))

    def _some(self, after: int, documents_max: int) -> Iterator[Block]:
        for block in self.chain[after:]:
            yield block
            documents_max -= block.documents
            if documents_max <= 0:
                return

    def spending(self, transaction_id: bytes, index: int) -> Spending | None:
        return self._spent.get((transaction_id, index))

    @cached_property
    def _spent(self) -> dict[tuple[bytes, int], Spending]:
        return {
            (each.fulfills.transaction_id, each.fulfills.output_index): Spending(block.height, transaction.id)
            for block in self.chain
            for transaction in block.transactions
            for each in transaction.inputs
            if each.fulfills is not None
        }
