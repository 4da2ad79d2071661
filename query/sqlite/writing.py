"""Writing the documents of blocks into the SQLite file, with the checkpoint in the same transaction.

Either all blocks of a call are in the store, found by searches, or none is. No value of a document can make
it fail: what is no JSON is kept and indexed by its id only.
"""

import sqlite3
from collections.abc import Sequence

from query.sqlite.tables import (
    ID_KEY_BYTES,
    POSITIONS_MAX,
    TEXT_TABLES,
    is_plain,
    number_of,
    owner_key,
    pack_inputs,
    pack_outputs,
    strings_of,
    sum_of,
)
from query.store import Block, Checkpoint, ProjectionGap, StoreDamaged
from query.text import terms_of

_SPEND = (
    "INSERT OR REPLACE INTO spends SELECT number, ?, ? FROM transactions"
    f" WHERE substr(id, 1, {ID_KEY_BYTES}) = ? AND id = ?"
)


def read_checkpoint(connection: sqlite3.Connection) -> Checkpoint:
    """Raises `StoreDamaged` if it can't be one, and what SQLite raises."""
    height, mark, target = connection.execute("SELECT height, mark, target FROM checkpoint").fetchone()
    if type(height) is not int or type(mark) is not bytes or type(target) is not int or height < 0:
        raise StoreDamaged("The query store has a checkpoint that can't be read")
    return Checkpoint(height, mark, target)


def project(connection: sqlite3.Connection, blocks: Sequence[Block], *, text_search: bool = True) -> int:
    """Add consecutive blocks and give the new height. Raises `ProjectionGap`, and what SQLite raises."""
    # The checkpoint is read under the write lock: a second writer, which should not be, can't make doubles.
    connection.execute("BEGIN IMMEDIATE")
    try:
        checkpoint = read_checkpoint(connection)
        fresh = [block for block in blocks if block.height > checkpoint.height]
        for expected, block in enumerate(fresh, checkpoint.height + 1):
            if block.height != expected:
                raise ProjectionGap(f"The next block of the query store is {expected}, not {block.height}")
        if fresh:
            rows = _Rows(text_search)
            for block in fresh:
                rows.add(block)
            rows.insert(connection)
            last = fresh[-1]
            moved = connection.execute(
                # A store that has been built forgets how far that was.
                "UPDATE checkpoint SET height = ?1, mark = ?2, target = iif(target <= ?1, 0, target),"
                " transactions = transactions + ?3, assets = assets + ?4, outputs = outputs + ?5"
                " WHERE height = ?6",
                (
                    last.height,
                    last.mark,
                    len(rows.transactions),
                    len(rows.assets),
                    rows.outputs,
                    checkpoint.height,
                ),
            )
            assert moved.rowcount == 1, "the checkpoint moves from where it was read"
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors, such as a full disk.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return fresh[-1].height if fresh else checkpoint.height


class _Rows:
    """The rows of some blocks, by table, in the order in which the tables keep them where that is cheap."""

    def __init__(self, text_search: bool) -> None:
        self.transactions: list[tuple[object, ...]] = []
        self.assets: list[tuple[object, ...]] = []
        self.outputs = 0
        self._blocks: list[tuple[object, ...]] = []
        self._owners: list[tuple[bytes, int, int]] = []
        self._spends: list[tuple[int, int, bytes, bytes]] = []
        self._terms: dict[str, list[tuple[int, str]]] = (
            {collection: [] for collection in TEXT_TABLES} if text_search else {}
        )

    def add(self, block: Block) -> None:
        transactions = block.transactions
        assert len(transactions) <= POSITIONS_MAX, "a block has fewer transactions than its bytes allow"
        self._blocks.append(
            (
                block.height,
                block.time.encode(),
                block.mark,
                block.app_hash,
                block.proposer,
                len(transactions),
            )
        )
        add_transaction, add_owner = self.transactions.append, self._owners.append
        for number, found in enumerate(transactions, number_of(block.height)):
            identifier, metadata, outputs = found.id, found.metadata, found.outputs
            add_transaction(
                (
                    number,
                    identifier,
                    found.operation.encode(),
                    None if found.asset_id == identifier else found.asset_id,
                    pack_inputs(found.inputs),
                    pack_outputs(outputs),
                    is_plain(metadata),
                    sum_of(metadata),
                    metadata,
                )
            )
            if found.asset is not None:
                asset = found.asset
                self.assets.append((number, identifier, is_plain(asset), sum_of(asset), asset))
            for index, output in enumerate(outputs):
                for key in output.public_keys:
                    add_owner((owner_key(key), number, index))
            for each in found.inputs:
                spent = each.fulfills
                if spent is not None:
                    source = spent.transaction_id
                    self._spends.append((spent.output_index, number, source[:ID_KEY_BYTES], source))
            self.outputs += len(outputs)
            if self._terms:
                # The id is one of the strings of the document that MongoDB would index.
                name = identifier.hex()
                self._terms["metadata"].append((number, terms_of([*strings_of(metadata), name])))
                if found.asset is not None:
                    self._terms["assets"].append((number, terms_of([*strings_of(found.asset), name])))

    def insert(self, connection: sqlite3.Connection) -> None:
        insert = connection.executemany
        insert("INSERT INTO transactions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", self.transactions)
        insert("INSERT INTO assets VALUES (?, ?, ?, ?, ?)", self.assets)
        # The same key may stand twice in one output.
        insert("INSERT OR IGNORE INTO owners VALUES (?, ?, ?)", sorted(self._owners))
        insert(_SPEND, self._spends)
        insert("INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?)", self._blocks)
        for collection, terms in self._terms.items():
            insert(f"INSERT INTO {TEXT_TABLES[collection]} (rowid, terms) VALUES (?, ?)", terms)
