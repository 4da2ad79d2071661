"""What belongs to a key, now or after an earlier block: its outputs one by one, or summed up by asset.

Everything is read from the index `owned`, whose rows never change their place; an output belongs to the state
at a height if it was made at or before it and not spent at or before it. Nothing here reads the outputs
themselves, and nothing is kept for the past but these rows.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from struct import error as PackingError

from msgspec import Struct
from rocksdict import Rdict

from bcdb.ledger.cursors import Page, decode_cursor, encode_cursor
from bcdb.ledger.records import (
    ID_BYTES,
    KEY_BYTES,
    OWNED_PLACE_BYTES,
    SPENT,
    UNSPENT,
    pack_height,
    unpack_owned,
    unpack_owned_place,
    unpack_owned_spent,
)
from bcdb.ledger.slices import SLICE_ROWS, Slices
from bcdb.ledger.store import rows
from bcdb.model import limits
from bcdb.model.errors import StoreError

Rows = Iterator[tuple[bytes, bytes]]


class OwnedOutput(Struct, frozen=True, gc=False):
    """An output of a key, and where its transaction stands. `spent`: at the height that was asked for."""

    transaction_id: bytes
    output_index: int
    spent: bool
    height: int
    position: int


class Holding(Struct, frozen=True, gc=False):
    """What a key holds of an asset: the sum of the amounts of its unspent outputs, and their number."""

    asset_id: bytes
    amount: int
    outputs: int


def outputs_of(
    owned: Rdict, key: bytes, *, spent: bool | None, at_height: int | None, after: str | None, limit: int
) -> Slices[Page[OwnedOutput]]:
    """A page of the outputs whose condition names `key`, oldest first; see `Reader.outputs_of`.

    The page ends early when `limits.PAGE_ROWS_MAX` rows were looked at, even if none was found among them.
    """
    start = b"" if after is None else decode_cursor(after, OWNED_PLACE_BYTES) + b"\0"
    # What is spent now was unspent once; what is unspent now was never spent.
    if spent:
        found = _rows(owned, key, SPENT, start, at_height)
    elif spent is False and at_height is None:
        found = _rows(owned, key, UNSPENT, start, None)
    else:
        found = _merged(
            _rows(owned, key, UNSPENT, start, at_height), _rows(owned, key, SPENT, start, at_height)
        )
    items: list[OwnedOutput] = []
    last = b""
    for seen, (row, value) in enumerate(found, 1):
        is_spent = _is_spent(row, value, at_height)
        place = row[-OWNED_PLACE_BYTES:]
        if spent is None or is_spent == spent:
            if len(items) == limit:
                return Page(items, encode_cursor(last))
            last = place
            height, position, index = unpack_owned_place(place)
            items.append(OwnedOutput(value[:ID_BYTES], index, is_spent, height, position))
        if seen == limits.PAGE_ROWS_MAX:
            return Page(items, encode_cursor(place))
        if not seen % SLICE_ROWS:
            yield
    return Page(items, None)


def holdings_of(
    owned: Rdict, key: bytes, *, at_height: int | None, after: str | None, limit: int
) -> Slices[Page[Holding]]:
    """A page of what `key` holds, by asset; see `Reader.holdings`.

    Costs what the key has outputs, with `at_height` what it ever had. However many assets these are, no more
    than two pages of sums and a slice of rows are held in memory.
    """
    start = b"" if after is None else decode_cursor(after, ID_BYTES)
    # Both are begun before the first pause: an output that is spent later stays in the one it is in now.
    unspent = _begun(_rows(owned, key, UNSPENT, b"", at_height))
    spent: Rows = iter(()) if at_height is None else _begun(_rows(owned, key, SPENT, b"", at_height))
    sums = _Sums(start, limit)
    seen = 0
    try:
        while some := list(islice(unspent, SLICE_ROWS)):
            sums.add([(asset_id, amount) for _, asset_id, amount in [unpack_owned(row[1]) for row in some]])
            seen += len(some)
            if not seen % SLICE_ROWS:
                yield
        while some := list(islice(spent, SLICE_ROWS)):
            assert at_height is not None
            past = [unpack_owned_spent(row[1]) for row in some]
            sums.add([(asset_id, amount) for _, asset_id, amount, height in past if height > at_height])
            seen += len(some)
            if seen >= SLICE_ROWS:
                yield
    except PackingError:
        raise _damaged() from None
    if sums.are_many():
        yield
    return sums.page()


class _Sums:
    """Sums and counts of the `limit + 1` least assets after `start`, from shares that come in any order."""

    def __init__(self, start: bytes, limit: int) -> None:
        self._start = start
        self._limit = limit
        self._last: bytes | None = None
        """Assets after this one can't be on the page any more."""
        self._sums: dict[bytes, list[int]] = {}

    def add(self, shares: Iterable[tuple[bytes, int]]) -> None:
        """Take in some (asset, amount)."""
        sums, start, last = self._sums, self._start, self._last
        get = sums.get
        for asset_id, amount in shares:
            known = get(asset_id)
            if known is not None:
                known[0] += amount
                known[1] += 1
            elif asset_id > start and (last is None or asset_id <= last):
                sums[asset_id] = [amount, 1]
        if len(sums) > 2 * (self._limit + 1):
            kept = sorted(sums)[: self._limit + 1]
            self._last = kept[-1]
            self._sums = {asset_id: sums[asset_id] for asset_id in kept}

    def are_many(self) -> bool:
        """Whether to make a page of them takes as long as to read a slice."""
        return len(self._sums) >= SLICE_ROWS

    def page(self) -> Page[Holding]:
        ids = sorted(self._sums)
        items = [Holding(asset_id, *self._sums[asset_id]) for asset_id in ids[: self._limit]]
        return Page(items, encode_cursor(items[-1].asset_id) if len(ids) > self._limit else None)


def _rows(owned: Rdict, key: bytes, state: bytes, start: bytes, at_height: int | None) -> Rows:
    """The rows of a key in one state, from the place `start`, of outputs that were made by `at_height`."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    prefix = key + state
    end = b"" if at_height is None else prefix + pack_height(at_height + 1)
    return rows(owned, prefix, prefix + start, end)


def _begun(found: Rows) -> Rows:
    """The same rows, which from now on are those that there are now."""
    first = next(found, None)
    return iter(()) if first is None else chain((first,), found)


def _is_spent(row: bytes, value: bytes, at_height: int | None) -> bool:
    """Whether the output of a row is spent, as of a height."""
    if row[KEY_BYTES : KEY_BYTES + 1] == UNSPENT:
        return False
    if at_height is None:
        return True
    try:
        _, _, _, spent_height = unpack_owned_spent(value)
    except PackingError:
        raise _damaged() from None
    return bool(spent_height <= at_height)


def _merged(left: Rows, right: Rows) -> Rows:
    """Two lists of rows that are each in order of place, as one."""
    first, second = next(left, None), next(right, None)
    while first is not None and second is not None:
        if first[0][-OWNED_PLACE_BYTES:] < second[0][-OWNED_PLACE_BYTES:]:
            yield first
            first = next(left, None)
        else:
            yield second
            second = next(right, None)
    for one, rest in ((first, left), (second, right)):
        if one is not None:
            yield one
            yield from rest


def _damaged() -> StoreError:
    return StoreError("A row of the outputs of a key is damaged; run `bcdb fsck`.")
