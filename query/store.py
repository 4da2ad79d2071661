"""The contract between what writes documents into a query store and what asks them: types and bounds.

A store is a projection: it may lag, be dropped and be rebuilt, and it must never be silently wrong, nor ever
decide whether a transaction is valid. Nothing here knows which database is behind it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from query.documents import Block, Document, Place, Spending
from query.errors import (
    InvalidCursor,
    InvalidSearch,
    ProjectionGap,
    QueryError,
    SearchTimeout,
    StoreDamaged,
    StoreUnavailable,
)
from query.filters import Filter
from query.sorting import Sort

SEARCH_CHARS_MAX = 1_024
"""Length of a search text."""
SEARCH_LIMIT_MAX = 10_000
"""Documents that one question returns at most; the next ones come with `after`."""
SEARCH_S_MAX = 5.0
"""Time that one question may take in the store."""
PAGE_BYTES_MAX = 16 * 1024 * 1024
"""A page of `find` ends early when its documents have passed this; an aggregation that does is refused."""
SKIP_MAX = 100_000
"""How far pages reach in an order of the caller's own choice; the order of commitment has no such bound."""


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """How far a store is: the last block it holds. Height 0 with an empty mark: nothing is in it.

    Below the height `target` it is being built, and questions are refused with `StoreUnavailable`.
    """

    height: int
    mark: bytes
    target: int = 0


class Status(msgspec.Struct, frozen=True):
    """What `bcdb query status` shows: the kind of store, its checkpoint, and its documents by collection.

    `text_search`: whether it offers `search_assets` and `search_metadata`.
    """

    kind: str
    height: int
    target: int
    text_search: bool
    counts: Mapping[str, int]


class Found(msgspec.Struct, frozen=True, gc=False):
    """One answer of a search.

    `id`: the transaction, 64 hex digits. `document`: JSON bytes as the HTTP interface answers them,
    `{"data":…,"id":"…"}` for an asset and `{"metadata":…,"id":"…"}` for metadata.
    `cursor`: give it as `after` to go on behind this one. `height`: no page of this search shows a document
    above it.
    """

    id: str
    document: bytes
    cursor: str
    height: int


class Find(msgspec.Struct, frozen=True):
    """A question for documents of one collection.

    `fields`: the paths to answer, or with `exclude` those to leave out; empty means all. `sort`: empty means
    the order of commitment. `limit` is from 1. `after`: the `next` of the page before, of this same question.
    """

    collection: str
    filter: Filter
    fields: tuple[tuple[str, ...], ...] = ()
    exclude: bool = False
    sort: Sort = ()
    limit: int = 100
    after: str | None = None


class Page(msgspec.Struct, frozen=True):
    """Documents as JSON bytes, the height that they are good for, and where to go on (None: nowhere).

    No document above `height` is in it, on the later pages of one question too. What is told of the spending
    of outputs may be newer.
    """

    documents: Sequence[bytes]
    height: int
    next: str | None


class Aggregated(msgspec.Struct, frozen=True):
    """The documents that an aggregation makes, as JSON bytes, and the height that they are good for."""

    documents: Sequence[bytes]
    height: int


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A document as a store holds it. `place` is None for one that can't have been made by the projector."""

    place: Place | None
    document: Document


class QueryStore(Protocol):
    """What every store offers, to the projector that fills it and to the workers that ask it."""

    # --- for whoever asks; below the checkpoint's target all but `status` raise `StoreUnavailable` ---

    async def height(self) -> int:
        """The height of the last block whose documents can be found. Raises `StoreUnavailable`."""
        ...

    async def wait_height(self, height: int, timeout_s: float) -> int:
        """Wait until the store holds the block at `height`, at most `timeout_s`; the height it then has.

        Raises `StoreUnavailable` if there is no store that could be asked when the time is over.
        """
        ...

    async def status(self) -> Status:
        """How far it is and how much it holds. Raises `StoreUnavailable`."""
        ...

    async def search_assets(self, text: str, limit: int, after: str | None = None) -> list[Found]:
        """The assets whose strings match `text` (the language of `query.text`), best first.

        At most `limit` of them, behind the one whose cursor is `after`. Raises `InvalidCursor`,
        `InvalidSearch`, `SearchTimeout`, `StoreUnavailable`.
        """
        ...

    async def search_metadata(self, text: str, limit: int, after: str | None = None) -> list[Found]:
        """The same for the metadata of transactions."""
        ...

    async def find(self, question: Find) -> Page:
        """A page of documents. Raises as `search_assets` does."""
        ...

    async def aggregate(self, collection: str, pipeline: Sequence[Mapping[str, Any]]) -> Aggregated:
        """What a pipeline that `query.pipelines.check` has let through makes of a collection.

        Raises `InvalidSearch` (a store may not offer this at all), `SearchTimeout`, `StoreUnavailable`.
        """
        ...

    # --- for the projector ---

    async def checkpoint(self) -> Checkpoint:
        """The last block that the store holds."""
        ...

    async def project(self, blocks: Sequence[Block]) -> int:
        """Add the documents of consecutive blocks, then move the checkpoint; the new height.

        Blocks that the store holds already are passed over. Raises `ProjectionGap` if the others do not go on
        where it ends, `StoreDamaged`, `StoreUnavailable`; then the checkpoint has not moved, and to project
        the same blocks again makes good what was left undone.
        """
        ...

    async def fault(self) -> str | None:
        """Why this store must be rebuilt, as far as it or a reader has noticed; None if it needn't."""
        ...

    async def rebuild(self, reason: str, target: int) -> None:
        """Drop everything and start again at height 0; no question is answered before the height `target`.

        Raises `StoreUnavailable`.
        """
        ...

    # --- for `bcdb fsck --store` ---

    def stored(self, collection: str, first: int, last: int) -> AsyncIterator[Stored]:
        """All documents of a collection from the height `first` to `last`, in order of their places.

        Whole, as they are stored: also fields that no document should have. Raises `StoreUnavailable`.
        """
        ...

    def strays(self, collection: str, last: int) -> AsyncIterator[Stored]:
        """The documents of a collection that stand at no height from 1 to `last`."""
        ...

    async def indexes(self) -> Sequence[str]:
        """What is wrong with the indexes over the documents, one sentence each. May take long."""
        ...

    async def close(self) -> None:
        """Give back files, threads and connections; the store can't be used any more."""
        ...


__all__ = [
    "PAGE_BYTES_MAX",
    "SEARCH_CHARS_MAX",
    "SEARCH_LIMIT_MAX",
    "SEARCH_S_MAX",
    "SKIP_MAX",
    "Aggregated",
    "Block",
    "Checkpoint",
    "Find",
    "Found",
    "InvalidCursor",
    "InvalidSearch",
    "Page",
    "Place",
    "ProjectionGap",
    "QueryError",
    "QueryStore",
    "SearchTimeout",
    "Spending",
    "Status",
    "StoreDamaged",
    "StoreUnavailable",
    "Stored",
]
