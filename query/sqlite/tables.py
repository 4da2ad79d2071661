"""The tables of the SQLite file: what columns they have, and how values are packed into them.

A row of `transactions` serves the collections `transactions`, `metadata` and `outputs`: documents are put
together when they are asked for, because they are written far more often. Nothing here may fail on any
committed transaction.
"""

import sqlite3
import zlib
from collections.abc import Callable, Sequence

import msgspec

from query import text
from query.documents import Input, Output, Place

LAYOUT_VERSION = 2
TEXT_TABLES = {"assets": "assets_text", "metadata": "metadata_text"}
"""The full text index of a collection."""
BODY_TABLES = {"assets": ("assets", "data"), "metadata": ("transactions", "metadata")}
"""The table and column with the app's JSON text of a collection."""

POSITION_BITS = 24
POSITIONS_MAX = 1 << POSITION_BITS
HEIGHT_MAX = (1 << 63 - POSITION_BITS) - 1
"""Transactions are numbered by their place, so that the order of rows is the order of commitment."""
ID_KEY_BYTES = 8
"""Of ids only so much is in an index; whoever looks one up compares the whole id too."""
OWNER_KEY_CHARS = 8
"""Of keys in base58 only the last characters are in the table `owners`; whoever looks one up compares it."""

INDEX_PAGE_BYTES = 8000
"""Size of a leaf of the full text index; it and its row fit one page."""
INDEX_MERGE_SEGMENTS = 16
"""Segments of a level before they are merged. A tenth cheaper than the default, 4; searches do not notice."""
INDEX_HASH_BYTES = 16 * 1024 * 1024
"""Terms that are gathered in memory before a segment is written."""

# `asset` is NULL where it is the transaction's own id. `plain` and `sum` are those of the JSON text in the
# row: see `is_plain` and `sum_of`. `by` is the number of the transaction that spends. The checkpoint counts
# the documents, so that nobody has to.
_TABLES = f"""
CREATE TABLE transactions (number INTEGER PRIMARY KEY, id BLOB, operation BLOB, asset BLOB, inputs BLOB,
    outputs BLOB, plain INTEGER, sum INTEGER, metadata BLOB);
CREATE INDEX transactions_id ON transactions (substr(id, 1, {ID_KEY_BYTES}));
CREATE INDEX transactions_asset ON transactions (substr(asset, 1, {ID_KEY_BYTES})) WHERE asset IS NOT NULL;
CREATE TABLE assets (number INTEGER PRIMARY KEY, id BLOB, plain INTEGER, sum INTEGER, data BLOB);
CREATE TABLE owners (owner BLOB, number INTEGER, output_index INTEGER,
    PRIMARY KEY (owner, number, output_index)) WITHOUT ROWID;
CREATE TABLE spends (number INTEGER, output_index INTEGER, by INTEGER,
    PRIMARY KEY (number, output_index)) WITHOUT ROWID;
CREATE TABLE blocks (height INTEGER PRIMARY KEY, time BLOB, hash BLOB, app_hash BLOB, proposer BLOB,
    transactions INTEGER);
CREATE TABLE checkpoint (height INTEGER NOT NULL, mark BLOB NOT NULL, target INTEGER NOT NULL,
    transactions INTEGER NOT NULL, assets INTEGER NOT NULL, outputs INTEGER NOT NULL);
"""

COLUMN_TYPES = {
    "transactions": {
        "id": "blob",
        "operation": "blob",
        "asset": "blob or null",
        "inputs": "blob",
        "outputs": "blob",
        "plain": "integer",
        "sum": "integer",
        "metadata": "blob",
    },
    "assets": {"id": "blob", "plain": "integer", "sum": "integer", "data": "blob"},
    "owners": {"owner": "blob", "number": "integer", "output_index": "integer"},
    "spends": {"number": "integer", "output_index": "integer", "by": "integer"},
    "blocks": {
        "time": "blob",
        "hash": "blob",
        "app_hash": "blob",
        "proposer": "blob",
        "transactions": "integer",
    },
}
"""What SQLite must say of the values in a column: it would keep any, and miss those of another type."""


def format_of(text_search: bool) -> int:
    """`user_version` of a file: terms depend on the version of the text rules as rows do on the tables."""
    return LAYOUT_VERSION * 1000 + (text.VERSION if text_search else 0)


FORMATS = {format_of(False): False, format_of(True): True}
"""The formats that this program reads, and whether they come with text search."""


def create(connection: sqlite3.Connection, *, text_search: bool, target: int) -> None:
    """Make all tables in an empty file, within the transaction that is open."""
    for statement in _TABLES.split(";\n"):
        connection.execute(statement)
    connection.execute("INSERT INTO checkpoint VALUES (0, x'', ?, 0, 0, 0)", (target,))
    for name in TEXT_TABLES.values() if text_search else ():
        # Terms come ready-made, separated by blanks, with nothing in them that this tokenizer would cut at.
        connection.execute(f"CREATE VIRTUAL TABLE {name} USING fts5(terms, content='', tokenize='ascii')")
        for option, value in (
            ("pgsz", INDEX_PAGE_BYTES),
            ("automerge", INDEX_MERGE_SEGMENTS),
            ("hashsize", INDEX_HASH_BYTES),
        ):
            connection.execute(f"INSERT INTO {name}({name}, rank) VALUES (?, ?)", (option, value))


# --- numbers ----------------------------------------------------------------------------------------------


def number_of(height: int, position: int = 0) -> int:
    """The number of a transaction."""
    return height << POSITION_BITS | position


def place_of(collection: str, number: int) -> Place:
    """The place of a transaction, or of a block: its number is its height."""
    if collection == "blocks":
        return Place(number)
    return Place(number >> POSITION_BITS, number & (POSITIONS_MAX - 1))


def numbers_of(collection: str, first: int, last: int) -> tuple[int, int]:
    """The least and the greatest number that documents of the heights from `first` to `last` have; 1 and 0 if
    there are no such heights.
    """
    first, last = max(first, 0), min(last, HEIGHT_MAX)
    if first > last:
        return 1, 0
    if collection == "blocks":
        return first, last
    return number_of(first), number_of(last, POSITIONS_MAX - 1)


# --- what stands in a row ---------------------------------------------------------------------------------

_pack = msgspec.msgpack.Encoder().encode
unpack_inputs: Callable[[bytes], list[tuple[list[str], tuple[bytes, int] | None]]] = msgspec.msgpack.Decoder(
    list[tuple[list[str], tuple[bytes, int] | None]]
).decode
unpack_outputs: Callable[[bytes], list[tuple[int, list[str], str]]] = msgspec.msgpack.Decoder(
    list[tuple[int, list[str], str]]
).decode
decode_json = msgspec.json.decode
sum_of = zlib.crc32
"""A checksum of the JSON text in a row: it tells `1e5` from `1E5`, which no comparison of values does."""


def pack_inputs(inputs: Sequence[Input]) -> bytes:
    """Inputs as they stand in a row."""
    return _pack(
        [
            (
                each.owners_before,
                None if (spent := each.fulfills) is None else (spent.transaction_id, spent.output_index),
            )
            for each in inputs
        ]
    )


def pack_outputs(outputs: Sequence[Output]) -> bytes:
    """Outputs as they stand in a row."""
    return _pack([(each.amount, each.public_keys, each.condition) for each in outputs])


def owner_key(public_key: str) -> bytes:
    """What the table `owners` knows of a key."""
    return public_key[-OWNER_KEY_CHARS:].encode("utf-8", "surrogatepass")


def is_plain(body: bytes) -> bool:
    """Whether the strings of a JSON text stand in it as they are: no escapes, no accents."""
    return body.isascii() and not (b"\\" in body or b"^" in body or b"`" in body)


def strings_of(body: bytes) -> list[str]:
    """The strings of a JSON text, none if it can't be read."""
    try:
        return text.strings_in(decode_json(body))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []
