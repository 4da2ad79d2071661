"""Compares a query store with the ledger, document by document, and names every difference.

What the store must hold is made anew from the blocks, as the projector made it, and compared by digest. It
only reads, must never mend anything, and goes on after a difference. The ledger itself is taken as true; its
own check is another one.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, Protocol

import msgspec

from query.documents import (
    COLLECTIONS,
    Block,
    Document,
    Place,
    Spending,
    documents,
)
from query.store import QueryStore, Stored, StoreDamaged

RANGE_DOCUMENTS_MAX = 5_000
RANGE_BYTES_MAX = 8 * 1024 * 1024
"""What is compared at a time: its blocks are in memory, with a digest for each of its documents."""
FIELDS_NAMED_MAX = 4
VALUE_CHARS_MAX = 60

Kind = Literal["missing", "extra", "different", "double", "damaged", "checkpoint", "index"]
Report = Callable[[str, int, int], None]
"""Called with what is being read (blocks, strays, indexes), how much of it is done and how much there is."""


class Difference(msgspec.Struct, frozen=True):
    """One thing in which the store is not what the ledger makes of it.

    `where` names the document, e.g. `outputs/12/3/0`: collection, height, position and output index as far
    as the collection has them; or `checkpoint`, `indexes`, a collection. `what` goes on with the sentence.
    """

    kind: Kind
    where: str
    what: str


class Truth(Protocol):
    """The ledger that the store is compared with. Nothing may be added to it meanwhile."""

    async def head(self) -> int:
        """The height of the last block, 0 if there is none."""
        ...

    async def mark(self, height: int) -> bytes | None:
        """The mark of the block at `height`, None if there is none."""
        ...

    async def blocks(self, after: int, documents_max: int, bytes_max: int) -> Sequence[Block]:
        """See `query.projector.Source.blocks`."""
        ...

    def spending(self, transaction_id: bytes, index: int) -> Spending | None:
        """What has spent an output, up to the last block."""
        ...


async def check(source: Truth, store: QueryStore, report: Report) -> AsyncIterator[Difference]:
    """All differences between `store` and the ledger `source`, up to the store's checkpoint.

    A store that is behind the ledger is no difference, nor is what a projector that was killed has written
    beyond its checkpoint, as long as it is right. Nobody may write the store meanwhile. Raises
    `StoreUnavailable` when it can't be asked at all.
    """
    head = await source.head()
    try:
        checkpoint = await store.checkpoint()
    except StoreDamaged as damage:
        yield Difference("damaged", "checkpoint", f"can't be read: {damage.text}")
        return
    if checkpoint.target > max(head, checkpoint.height):
        yield Difference(
            "checkpoint",
            "checkpoint",
            f"waits for block {checkpoint.target}, but the ledger ends at block {head}",
        )
    if checkpoint.height > head:
        yield Difference(
            "checkpoint",
            "checkpoint",
            f"is at block {checkpoint.height}, but the ledger ends at block {head}",
        )
    elif checkpoint.height and (mark := await source.mark(checkpoint.height)) != checkpoint.mark:
        yield Difference(
            "checkpoint",
            "checkpoint",
            f"has the hash {checkpoint.mark.hex()} for block {checkpoint.height}, which is "
            f"{'none' if mark is None else mark.hex()}: the store is of another ledger",
        )
    last = min(checkpoint.height, head)
    comparison = _Comparison(source, store, last)
    done = 0
    while done < last:
        blocks = await source.blocks(done, RANGE_DOCUMENTS_MAX, RANGE_BYTES_MAX)
        blocks = [block for block in blocks if block.height <= last]
        for collection in COLLECTIONS:
            async for difference in comparison.compare(collection, blocks):
                yield difference
        done = blocks[-1].height
        report("blocks", done, last)
    for number, collection in enumerate(COLLECTIONS, 1):
        async for difference in comparison.compare_beyond(collection, head):
            yield difference
        report("strays", number, len(COLLECTIONS))
    try:
        for what in await store.indexes():
            yield Difference("index", "indexes", what)
    except StoreDamaged as damage:
        yield Difference("damaged", "indexes", f"can't be read: {damage.text}")
    report("indexes", 1, 1)


class _Comparison:
    """One check: the ledger, the store, and the height `last` up to which nothing may be missing."""

    def __init__(self, source: Truth, store: QueryStore, last: int) -> None:
        self._source = source
        self._store = store
        self._last = last

    async def compare(self, collection: str, blocks: Sequence[Block]) -> AsyncIterator[Difference]:
        """The differences in what consecutive blocks make of a collection."""
        first, last = blocks[0].height, blocks[-1].height
        expected = _Expected(self, collection, blocks)
        differences: list[Difference] = []
        told = False
        try:
            async for stored in self._store.stored(collection, first, last):
                difference = expected.compare(stored)
                if difference is not None:
                    differences.append(difference)
                if len(differences) >= RANGE_DOCUMENTS_MAX:
                    for each in differences:
                        yield each
                    differences.clear()
                    told = True
        except StoreDamaged as damage:
            if len(blocks) > 1 and not told:
                # Once more, block by block: to name the one that it is about, and to read those around it.
                for block in blocks:
                    async for difference in self.compare(collection, [block]):
                        yield difference
                return
            where = f"{collection}/{first}" if first == last else f"{collection}/{first} to {last}"
            differences.append(Difference("damaged", where, f"can't be read to its end: {damage.text}"))
        else:
            differences += expected.missing()
        for each in differences:
            yield each

    async def compare_beyond(self, collection: str, head: int) -> AsyncIterator[Difference]:
        """The differences in documents above `last`, which need not be there, and in those of no block."""
        try:
            expected: _Expected | None = None
            if self._last < head:
                async for stored in self._store.stored(collection, self._last + 1, head):
                    height = self._last + 1 if stored.place is None else stored.place.height
                    if expected is None or expected.height != height:
                        expected = _Expected(self, collection, await self._source.blocks(height - 1, 1, 1))
                    difference = expected.compare(stored)
                    if difference is not None:
                        yield difference
            async for stored in self._store.strays(collection, head):
                yield _extra(collection, stored)
        except StoreDamaged as damage:
            where = f"{collection}/{self._last + 1} and above"
            yield Difference("damaged", where, f"can't be read to its end: {damage.text}")

    def made(self, collection: str, block: Block) -> Iterator[tuple[Place, Document]]:
        """The documents of a block, with all that the ledger knows of the spending of outputs."""
        return documents(collection, block, self._source.spending)

    def digests(self, collection: str, document: Document) -> tuple[bytes, ...]:
        """The digests that are right for a document; of an output that is spent after `last` two are."""
        if collection == "outputs" and (document["spent_height"] or 0) > self._last:
            return digest(document), digest({**document, "spent_height": None, "spent_by": None})
        return (digest(document),)


class _Expected:
    """What consecutive blocks make of one collection, and which of it was found in the store."""

    def __init__(self, comparison: _Comparison, collection: str, blocks: Sequence[Block]) -> None:
        self._comparison = comparison
        self._collection = collection
        self._blocks = blocks
        self._found: set[Place] = set()
        self._digests = {
            place: comparison.digests(collection, document)
            for block in blocks
            for place, document in comparison.made(collection, block)
        }

    @property
    def height(self) -> int:
        """The height of the first block."""
        return self._blocks[0].height

    def compare(self, stored: Stored) -> Difference | None:
        """What is wrong with a stored document, if anything. Remembers that it was found."""
        place = stored.place
        right = None if place is None else self._digests.get(place)
        if place is None or right is None:
            return _extra(self._collection, stored)
        if place in self._found:
            return Difference("double", _where(self._collection, place), "is there more than once")
        self._found.add(place)
        if digest(stored.document) in right:
            return None
        unlike = list(islice(_unlike(self._document(place), stored.document, ""), FIELDS_NAMED_MAX + 1))
        named = "; ".join(unlike[:FIELDS_NAMED_MAX]) + ("; and more" if unlike[FIELDS_NAMED_MAX:] else "")
        return Difference(
            "different", _where(self._collection, place), f"is not what the ledger says: {named}"
        )

    def missing(self) -> Iterator[Difference]:
        """Those that were not found."""
        for place in self._digests:
            if place not in self._found:
                what = "is missing"
                if self._collection != "blocks":
                    found = self._blocks[place.height - self.height].transactions[place.position]
                    what = f"is missing; it comes from the transaction {found.id.hex()}"
                yield Difference("missing", _where(self._collection, place), what)

    def _document(self, place: Place) -> Document:
        made = self._comparison.made(self._collection, self._blocks[place.height - self.height])
        return next(document for made_place, document in made if made_place == place)


# --- digests ----------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Drivers have numbers of their own."""
    if isinstance(value, int):
        return int(value)
    raise TypeError(f"{type(value).__name__} is no type of JSON")


_encode = msgspec.json.Encoder(order="deterministic", enc_hook=_plain).encode
_decode = msgspec.json.decode
_NOT_JSON = (TypeError, ValueError, OverflowError, RecursionError)


def digest(document: Document) -> bytes:
    """The SHA-256 of a document as JSON with sorted keys; integers and floats differ, also of one value.

    Empty for what is no JSON: a database may hold dates or bytes, and must not pass them off as text.
    """
    try:
        text = _encode(document)
        if _decode(text) != document:
            return b""
    except _NOT_JSON:
        return b""
    return hashlib.sha256(text).digest()


# --- sentences --------------------------------------------------------------------------------------------


def _where(collection: str, place: Place) -> str:
    parts = [collection, str(place.height)]
    if collection != "blocks":
        parts.append(str(place.position))
    if collection == "outputs":
        parts.append(str(place.index))
    return "/".join(parts)


def _extra(collection: str, stored: Stored) -> Difference:
    where = f"{collection}/?" if stored.place is None else _where(collection, stored.place)
    return Difference("extra", where, f"is in the store, but not in the ledger: {_shown(stored.document)}")


def _unlike(expected: Any, seen: Any, path: str) -> Iterator[str]:
    """Sentences about where two values differ, as deep inside as they still resemble each other."""
    if isinstance(expected, dict) and isinstance(seen, dict):
        for key in [*expected, *(key for key in seen if key not in expected)]:
            below = f"{path}.{key}" if path else str(key)
            if key not in seen:
                yield f"`{below}` is missing, it should be {_shown(expected[key])}"
            elif key not in expected:
                yield f"`{below}` should not be there, it is {_shown(seen[key])}"
            else:
                yield from _unlike(expected[key], seen[key], below)
    elif isinstance(expected, list) and isinstance(seen, list) and len(expected) == len(seen):
        for index, (one, other) in enumerate(zip(expected, seen, strict=True)):
            yield from _unlike(one, other, f"{path}.{index}")
    elif _text(expected) != _text(seen):
        yield f"`{path}` is {_shown(seen)}, it should be {_shown(expected)}"


def _text(value: Any) -> str:
    try:
        text = _encode(value)
        if _decode(text) == value:
            return text.decode()
    except _NOT_JSON:
        pass
    return f"a {type(value).__name__}"


def _shown(value: Any) -> str:
    text = _text(value)
    return text if len(text) <= VALUE_CHARS_MAX else f"{text[:VALUE_CHARS_MAX]}…"
