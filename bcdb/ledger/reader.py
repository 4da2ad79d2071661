"""Reading the ledger: transactions, outputs, lists with pages, blocks. On the primary, or on a follower of
it.

A reader never writes and decides nothing. All lists are in the order of commitment and are read no further
than the page that was asked for.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from msgspec import Struct
from rocksdict import Rdict

from bcdb.ledger.cursors import Page, decode_cursor, encode_cursor
from bcdb.ledger.merkle import Frontier
from bcdb.ledger.operations import NAMES, OPERATIONS
from bcdb.ledger.owners import Holding, OwnedOutput, holdings_of, outputs_of
from bcdb.ledger.records import (
    ID_BYTES,
    PLACE_BYTES,
    BlockRecord,
    Head,
    OutputRecord,
    Rejection,
    StoredTransaction,
    decode_block,
    decode_block_time,
    decode_head,
    decode_output,
    decode_rejection,
    output_key,
    pack_height,
    pack_place,
    prefix_end,
    unpack_place,
)
from bcdb.ledger.slices import Slices, whole
from bcdb.ledger.store import (
    META_HEAD,
    Families,
    check_identity,
    open_secondary,
    rows,
    rows_backwards,
    unreadable,
)
from bcdb.model.errors import StoreError


class AssetTransaction(Struct, frozen=True, gc=False):
    """A transaction of an asset."""

    id: bytes
    operation: str
    height: int
    position: int

    @property
    def cursor(self) -> str:
        """The cursor of a page that begins behind it."""
        return encode_cursor(pack_place(self.height, self.position))


class Reader:
    """Reads a store that is open. All ids and keys are raw bytes of 32; heights count from 1.

    Everything here raises StorageFailed when RocksDB can't read, and StoreError for a damaged record.
    """

    def __init__(self, families: Families) -> None:
        self._families = families
        self._transactions = families["transactions"]
        self._outputs = families["outputs"]
        self._blocks = families["blocks"]
        self.refresh_head()

    @property
    def head(self) -> Head:
        """The last committed block, as of the last commit (primary) or `catch_up` (follower)."""
        return self._head

    @property
    def frontier(self) -> Frontier:
        """The complete subtrees of the log at `head`."""
        return self._frontier

    def refresh_head(self) -> None:
        """Read the head again from the store."""
        raw = self._get(self._families["meta"], META_HEAD)
        if raw is None:
            raise StoreError("The ledger has no head; its making was cut short.")
        self._head, self._frontier = decode_head(raw)

    def set_head(self, head: Head, frontier: Frontier) -> None:
        """For the writer, which knows the head that it has just written."""
        self._head, self._frontier = head, frontier

    def has_transaction(self, transaction_id: bytes) -> bool:
        try:
            return transaction_id in self._transactions
        except Exception as error:  # rocksdict raises bare Exception for whatever RocksDB reports
            raise unreadable(error) from None

    def get_output(self, key: bytes) -> bytes | None:
        """The raw record of an output by its 36-byte key (the state view of the rules)."""
        return self._get(self._outputs, key)

    @staticmethod
    def _get(family: Rdict, key: bytes) -> bytes | None:
        try:
            value: bytes | None = family.get(key)
        except Exception as error:  # rocksdict raises bare Exception for whatever RocksDB reports
            raise unreadable(error) from None
        return value

    def transaction(self, transaction_id: bytes) -> StoredTransaction | None:
        raw = self._get(self._transactions, transaction_id)
        if raw is None:
            return None
        if len(raw) < PLACE_BYTES:
            raise StoreError("The record of a transaction is damaged; run `bcdb fsck`.")
        height, position = unpack_place(raw)
        return StoredTransaction(raw[PLACE_BYTES:], height, position)

    def output(self, transaction_id: bytes, index: int) -> OutputRecord | None:
        if not 0 <= index < 2**32:
            return None
        raw = self._get(self._outputs, output_key(transaction_id, index))
        return None if raw is None else decode_output(raw)

    def outputs_of(
        self,
        key: bytes,
        *,
        spent: bool | None = None,
        at_height: int | None = None,
        after: str | None = None,
        limit: int,
    ) -> Page[OwnedOutput]:
        """Outputs whose condition names `key`: unspent (False), spent (True) or all (None), oldest first.

        `limit` (from 1) bounds the page; `after` is the `next` of the page before, of this same key. With
        `at_height`, at most that of the head, as they were after that block; then a page may end early, see
        `limits.PAGE_ROWS_MAX`. Raises InvalidCursor.
        """
        return whole(self.read_outputs(key, spent=spent, at_height=at_height, after=after, limit=limit))

    def read_outputs(
        self, key: bytes, *, spent: bool | None, at_height: int | None, after: str | None, limit: int
    ) -> Slices[Page[OwnedOutput]]:
        """The same in slices; the page is good for the moment of the first."""
        owned = self._families["owned"]
        return outputs_of(owned, key, spent=spent, at_height=at_height, after=after, limit=limit)

    def read_holdings(
        self, key: bytes, *, at_height: int | None, after: str | None, limit: int
    ) -> Slices[Page[Holding]]:
        """In slices: what `key` holds of each asset, in order of their ids, at the moment of the first slice.

        `limit` (from 1) bounds the page; `after` is the `next` of the page before, of this same key. With
        `at_height`, at most that of the head, as it was after that block. Raises InvalidCursor.
        """
        return holdings_of(self._families["owned"], key, at_height=at_height, after=after, limit=limit)

    def transactions_of(
        self,
        asset_id: bytes,
        *,
        operation: str | None = None,
        newest: bool = False,
        at_height: int | None = None,
        after: str | None = None,
        limit: int,
    ) -> Page[AssetTransaction]:
        """Transactions of an asset, its CREATE first; `newest` turns the order. Raises InvalidCursor.

        With `at_height`, at most that of the head, only those up to that block.
        """
        place = None if after is None else decode_cursor(after, PLACE_BYTES)
        if operation == "CREATE":
            return self._create_of(asset_id, place, at_height)
        code = None if operation is None else OPERATIONS[operation].CODE
        items: list[AssetTransaction] = []
        for row, value in self._asset_rows(asset_id, place, newest, at_height):
            if code is not None and value[:1] != code:
                continue
            if len(items) == limit:
                return Page(items, items[-1].cursor)
            if len(row) != ID_BYTES + PLACE_BYTES or value[:1] not in NAMES:
                raise StoreError("The record of an asset's transaction is damaged; run `bcdb fsck`.")
            height, position = unpack_place(row, ID_BYTES)
            items.append(AssetTransaction(value[1:], NAMES[value[:1]], height, position))
        return Page(items, None)

    def _create_of(
        self, asset_id: bytes, place: bytes | None, at_height: int | None
    ) -> Page[AssetTransaction]:
        """An asset is the id of its CREATE: there is one at most, and no need to look through the others."""
        stored = self.transaction(asset_id)
        if stored is None or place is not None:
            return Page([], None)
        first = next(self._asset_rows(asset_id, None, False, at_height), None)
        if first is None or first[1] != OPERATIONS["CREATE"].CODE + asset_id:
            return Page([], None)
        return Page([AssetTransaction(asset_id, "CREATE", stored.height, stored.position)], None)

    def _asset_rows(
        self, asset_id: bytes, place: bytes | None, newest: bool, at_height: int | None
    ) -> Iterator[tuple[bytes, bytes]]:
        if len(asset_id) != ID_BYTES:
            raise ValueError(f"an asset id has {ID_BYTES} bytes, not {len(asset_id)}")
        assets = self._families["assets"]
        end = prefix_end(asset_id) if at_height is None else asset_id + pack_height(at_height + 1)
        if not newest:
            return rows(assets, asset_id, asset_id if place is None else asset_id + place + b"\0", end)
        return rows_backwards(assets, asset_id, end if place is None else min(end, asset_id + place))

    def block(self, height: int) -> BlockRecord | None:
        if not 0 < height < 2**63:
            return None
        raw = self._get(self._blocks, pack_height(height))
        return None if raw is None else decode_block(height, raw)

    def block_time(self, height: int) -> int:
        """The time of a committed block in ns since the epoch. Raises StoreError if there is none."""
        raw = self._get(self._blocks, pack_height(height))
        if raw is None:
            raise StoreError(f"The ledger lacks block {height}; run `bcdb fsck`.")
        return decode_block_time(height, raw)

    def blocks_from(self, height: int, limit: int) -> list[BlockRecord]:
        """Blocks from `height` upwards, at most `limit`."""
        start = pack_height(max(1, min(height, 2**63)))
        found = islice(rows(self._blocks, b"", start), limit)
        return [decode_block(int.from_bytes(row, "big"), raw) for row, raw in found]

    def rejection(self, transaction_id: bytes) -> Rejection | None:
        """Why this node rejected a transaction that it had accepted, as long as it is kept."""
        raw = self._get(self._families["status"], b"I" + transaction_id)
        return None if raw is None else decode_rejection(raw)


class SecondaryReader(Reader):
    """A reader in another process than the writer; it sees what was written by the last `catch_up`."""

    def __init__(self, families: Families, chain_id: str) -> None:
        super().__init__(families)
        self.chain_id = chain_id

    def catch_up(self) -> Head:
        """Follow the writer to where it is now, flushed or not, and return the head there.

        Costs what was written since the last call. Raises StoreError when the primary's files can't be read.
        """
        try:
            self._families.database.try_catch_up_with_primary()
        except Exception as error:  # rocksdict raises bare Exception for whatever RocksDB reports
            raise StoreError(f"The reader can't follow the ledger: {error}") from None
        self.refresh_head()
        return self._head

    def close(self) -> None:
        self._families.close()


def open_reader(path: Path, scratch_dir: Path) -> SecondaryReader:
    """Follow the ledger at `path` from another process. Raises StoreError when it can't be opened."""
    families = open_secondary(path, scratch_dir)
    try:
        return SecondaryReader(families, check_identity(families, path, None))
    except StoreError:
        families.close()
        raise
