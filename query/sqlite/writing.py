"""Writing the documents of blocks into the SQLite file, with the checkpoint in the same transaction.

Either all blocks of a call are in the store, found by searches, or none is. No value of a document can make
it fail: what is no JSON is kept and indexed by its id only.
"""

import sqlite3
from collections.abc import Iterator, Sequence

from query.sqlite.searching import is_plain, strings_of
from query.store import Block, Checkpoint, Document, ProjectionGap
from query.text import terms_of


def read_checkpoint(connection: sqlite3.Connection) -> Checkpoint:
    height, mark = connection.execute("SELECT height, mark FROM checkpoint").fetchone()
    return Checkpoint(height, bytes(mark))


def project(connection: sqlite3.Connection, blocks: Sequence[Block]) -> int:
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
            last = fresh[-1]
            _insert(connection, "assets", [(block.height, block.assets) for block in fresh])
            _insert(connection, "metadata", [(block.height, block.metadata) for block in fresh])
            moved = connection.execute(
                "UPDATE checkpoint SET height = ?, mark = ? WHERE height = ?",
                (last.height, last.mark, checkpoint.height),
            )
            assert moved.rowcount == 1, "the checkpoint moves from where it was read"
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors, such as a full disk.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return fresh[-1].height if fresh else checkpoint.height


def _insert(
    connection: sqlite3.Connection, collection: str, groups: list[tuple[int, Sequence[Document]]]
) -> None:
    (newest,) = connection.execute(f"SELECT coalesce(max(number), 0) FROM {collection}").fetchone()
    connection.executemany(
        f"INSERT INTO {collection} (number, height, id, plain, body) VALUES (?, ?, ?, ?, ?)",
        _rows(newest, groups),
    )
    connection.executemany(
        f"INSERT INTO {collection}_text (rowid, terms) VALUES (?, ?)", _terms(newest, groups)
    )


def _rows(
    newest: int, groups: list[tuple[int, Sequence[Document]]]
) -> Iterator[tuple[int, int, bytes, bool, bytes]]:
    number = newest
    for height, documents in groups:
        for document in documents:
            number += 1
            yield number, height, document.id, is_plain(document.body), document.body


def _terms(newest: int, groups: list[tuple[int, Sequence[Document]]]) -> Iterator[tuple[int, str]]:
    number = newest
    for _, documents in groups:
        for document in documents:
            number += 1
            # The id is one of the strings of the document that MongoDB would index.
            yield number, terms_of([*strings_of(document.body), document.id.hex()])
