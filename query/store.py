"""The contract between what writes documents into a query store and what asks them: types, errors, bounds.

A store is a projection: it may lag, be dropped and be rebuilt, and it must never be silently wrong, nor ever
decide whether a transaction is valid. Nothing here knows which database is behind it.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

SEARCH_CHARS_MAX = 1_024
"""Length of a search text."""
SEARCH_LIMIT_MAX = 10_000
"""Documents that one search returns at most; the next ones come with `after`."""
SEARCH_S_MAX = 5.0
"""Time that one search may take in the store."""


class QueryError(Exception):
    """Root of all errors of a query store. `text` is a sentence for a person."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class InvalidSearch(QueryError):
    """The question itself can't be answered: it is too long or wants too much."""


class InvalidCursor(QueryError):
    """The cursor of a search was not made by this store."""


class SearchTimeout(QueryError):
    """The search is too broad to be answered within `SEARCH_S_MAX`."""


class StoreUnavailable(QueryError):
    """The store is missing, being rebuilt, or in trouble with its disk. Ask again later."""


class StoreDamaged(StoreUnavailable):
    """What the store has on its disk is not what it wrote: nothing of it may be trusted."""


class ProjectionGap(QueryError):
    """The blocks handed to `project` do not go on where the store's checkpoint ends."""


class Document(msgspec.Struct, frozen=True, gc=False):
    """One JSON value to keep and index: `id` is the 32 bytes of its transaction, `body` the value's JSON
    text.
    """

    id: bytes
    body: bytes


class Block(msgspec.Struct, frozen=True, gc=False):
    """The documents of one committed block, in the order of its transactions.

    `mark` (at most 64 bytes) tells this block from any other that another ledger may have at the same height:
    its hash. `assets` are the data of the assets that the block creates, `metadata` those of all
    transactions.
    """

    height: int
    mark: bytes
    assets: Sequence[Document] = ()
    metadata: Sequence[Document] = ()


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """How far a store is: the last block it holds. Height 0 with an empty mark: nothing is in it."""

    height: int
    mark: bytes


class Found(msgspec.Struct, frozen=True, gc=False):
    """One answer of a search.

    `id`: the transaction, 64 hex digits. `document`: JSON bytes as the HTTP interface answers them,
    `{"data":…,"id":"…"}` for an asset and `{"metadata":…,"id":"…"}` for metadata.
    `cursor`: give it as `after` to go on behind this one.
    """

    id: str
    document: bytes
    cursor: str


class QueryStore(Protocol):
    """What every store offers, to the projector that fills it and to the workers that ask it."""

    async def height(self) -> int:
        """The height of the last block whose documents can be found. Raises `StoreUnavailable`."""
        ...

    async def wait_height(self, height: int, timeout_s: float) -> int:
        """Wait until the store holds the block at `height`, at most `timeout_s`; the height it then has.

        Raises `StoreUnavailable` if there is no store that could be asked when the time is over.
        """
        ...

    async def checkpoint(self) -> Checkpoint:
        """The last block that the store holds."""
        ...

    async def project(self, blocks: Sequence[Block]) -> int:
        """Add the documents of consecutive blocks and move the checkpoint, all or nothing; the new height.

        Blocks that the store holds already are passed over. Raises `ProjectionGap` if the others do not go on
        where it ends, `StoreDamaged`, `StoreUnavailable`; then nothing has changed.
        """
        ...

    async def fault(self) -> str | None:
        """Why this store must be rebuilt, as far as it or a reader has noticed; None if it needn't."""
        ...

    async def rebuild(self, reason: str) -> None:
        """Drop everything and start again at height 0. Raises `StoreUnavailable`."""
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

    async def close(self) -> None:
        """Give back files and threads; the store can't be used any more."""
        ...
