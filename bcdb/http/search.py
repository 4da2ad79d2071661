"""Full text search over assets and metadata, from the query copy that the projector keeps.

The copy lags behind the ledger for a moment; a search waits for it, but never long. It decides nothing.
"""

from pathlib import Path
from typing import Literal, NamedTuple

from bcdb.http.errors import ArgumentError, RequestError
from bcdb.model import limits
from bcdb.model.errors import Unavailable
from bcdb.node.link import NodeLink
from query.sqlite import SqliteStore
from query.store import InvalidCursor, InvalidSearch, QueryError

Kind = Literal["assets", "metadata"]
FIRST_ITEMS = 64
"""Documents read before it is known how long the documents of this answer are."""


class Found(NamedTuple):
    """A page: JSON documents, where the next one starts (None: nowhere), and the height they are good for."""

    documents: list[bytes]
    next: str | None
    height: int


class Search:
    """Asks the store at `path`, which is opened with the first search, as the projector may make it later."""

    def __init__(self, path: Path, link: NodeLink) -> None:
        self._path = path
        self._link = link
        self._store: SqliteStore | None = None

    async def find(self, kind: Kind, text: str, limit: int, after: str | None) -> Found:
        """The best matches, at most `limit`, behind the cursor `after`.

        Waits up to `limits.SEARCH_WAIT_S_MAX` for the height that the ledger has now. The page ends early
        when it has become too many bytes. Raises `RequestError` for a search that can't be answered,
        `ArgumentError` for a cursor that is none, `Unavailable`.
        """
        published = (await self._link.newest()).height
        try:
            store = self._opened()
            height = await store.wait_height(published, limits.SEARCH_WAIT_S_MAX)
            ask = store.search_assets if kind == "assets" else store.search_metadata
            documents: list[bytes] = []
            size, wanted = 0, min(limit, FIRST_ITEMS)
            while True:
                found = await ask(text, wanted, after)
                documents += [item.document for item in found]
                size += sum([len(item.document) for item in found])
                if len(found) < wanted:
                    return Found(documents, None, height)
                after = found[-1].cursor
                if len(documents) >= limit or size >= limits.PAGE_BYTES_MAX:
                    break
                room = (limits.PAGE_BYTES_MAX - size) * len(documents) // max(size, 1)
                wanted = max(1, min(limit - len(documents), room))
            more = await ask(text, 1, after)
            return Found(documents, after if more else None, height)
        except InvalidCursor as error:
            raise ArgumentError("after", error.text) from None
        except InvalidSearch as error:
            raise RequestError(400, error.text) from None
        except QueryError as error:
            raise Unavailable(error.text) from None

    async def height(self) -> int | None:
        """How far the store is, None while there is none that can be asked."""
        try:
            return await self._opened().height()
        except QueryError:
            return None

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()
            self._store = None

    def _opened(self) -> SqliteStore:
        if self._store is None:
            self._store = SqliteStore.open_reader(self._path)
        return self._store
