"""Pages of full text search over assets and metadata, from the copy that the projector keeps.

How long a page may become is decided here; the order and the meaning of a search are the store's.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from bcdb.http.questions import Questions
from bcdb.model import limits
from query.store import QueryStore

Kind = Literal["assets", "metadata"]
FIRST_ITEMS = 64
"""Documents read before it is known how long the documents of this answer are."""


class Found(NamedTuple):
    """A page: JSON documents, where the next one starts (None: nowhere), and the height they are good for."""

    documents: list[bytes]
    next: str | None
    height: int


async def search(
    questions: Questions,
    kind: Kind,
    text: str,
    limit: int,
    after: str | None,
    min_height: int | None,
    gone: Callable[[], bool],
) -> Found:
    """The best matches, at most `limit`, behind the cursor `after`.

    The page ends early when it has become too many bytes. Waits and raises as `Questions.ask` does.
    """

    async def find(store: QueryStore, height: int) -> Found:
        return await _find(store, height, kind, text, limit, after)

    return await questions.ask("search", find, min_height, gone)


async def _find(
    store: QueryStore, height: int, kind: Kind, text: str, limit: int, after: str | None
) -> Found:
    ask = store.search_assets if kind == "assets" else store.search_metadata
    documents: list[bytes] = []
    size, wanted = 0, min(limit, FIRST_ITEMS)
    is_first = after is None
    while True:
        found = await ask(text, wanted, after)
        if found and not documents:
            # Later pages show what the first one could see, whatever the store has by now.
            height = max(height, found[0].height) if is_first else found[0].height
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
