"""The documents that the rows of the SQLite file stand for.

Nothing here may trust what a row holds, as a byte on the disk may have changed: a value that can't be what
the projector wrote is damage, never an answer.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import msgspec

from query.documents import ID_BYTES, Document
from query.sqlite.tables import (
    POSITION_BITS,
    POSITIONS_MAX,
    decode_json,
    place_of,
    sum_of,
    unpack_inputs,
    unpack_outputs,
)
from query.store import Place, Stored, StoreDamaged

Row = tuple[Any, ...]
Reader = Callable[[Row], Any]
Spent = tuple[int, str | None]
"""Height and id of the transaction that spends an output; the id is None if the store does not know it."""

UNREADABLE = (msgspec.MsgspecError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)
"""What a reader raises on a value that the projector can't have written."""

COLUMNS = {
    "transactions": (
        "t.number, t.id, t.operation, t.asset, t.inputs, b.time",
        f"transactions t LEFT JOIN blocks b ON b.height = t.number >> {POSITION_BITS}",
    ),
    "assets": ("t.number, t.id, t.sum, t.data", "assets t"),
    "metadata": ("t.number, t.id, t.sum, t.metadata", "transactions t"),
    "outputs": ("t.number, t.id, t.asset, t.outputs", "transactions t"),
    "blocks": ("t.height, t.time, t.hash, t.app_hash, t.proposer, t.transactions", "blocks t"),
}
"""What is read of a collection's rows, and from where. The first column is the number of the place."""

NUMBER = {name: columns.partition(",")[0] for name, (columns, _) in COLUMNS.items()}
"""The column with the number."""

_SPENDS = (
    f"SELECT s.output_index, s.by >> {POSITION_BITS}, t.id FROM spends s"
    " LEFT JOIN transactions t ON t.number = s.by WHERE s.number = ?"
)


def _hex(column: int, length: int | None = ID_BYTES) -> Reader:
    def read(row: Row) -> str:
        value = row[column]
        if type(value) is not bytes or (length is not None and len(value) != length):
            raise ValueError
        return value.hex()

    return read


def _text(column: int) -> Reader:
    def read(row: Row) -> str:
        value = row[column]
        if type(value) is not bytes:
            raise ValueError
        return value.decode()

    return read


def _int(column: int) -> Reader:
    def read(row: Row) -> int:
        value = row[column]
        if type(value) is not int:
            raise ValueError
        return value

    return read


def _body(row: Row) -> Any:
    if sum_of(row[3]) != row[2]:
        raise ValueError
    return decode_json(row[3])


def _asset_id(column: int) -> Reader:
    own, other = _hex(1), _hex(column)

    def read(row: Row) -> Any:
        return own(row) if row[column] is None else other(row)

    return read


def _inputs(row: Row) -> list[Document]:
    return [
        {
            "fulfills": None
            if spent is None
            else {"output_index": spent[1], "transaction_id": spent[0].hex()},
            "owners_before": owners,
        }
        for owners, spent in unpack_inputs(row[4])
    ]


def _height(row: Row) -> Any:
    return row[0] >> POSITION_BITS


def _position(row: Row) -> Any:
    return row[0] & (POSITIONS_MAX - 1)


READERS: Mapping[str, Mapping[str, Reader]] = {
    "transactions": {
        "id": _hex(1),
        "operation": _text(2),
        "asset_id": _asset_id(3),
        "height": _height,
        "position": _position,
        "time": _text(5),
        "inputs": _inputs,
    },
    "assets": {"id": _hex(1), "height": _height, "position": _position, "data": _body},
    "metadata": {"id": _hex(1), "height": _height, "position": _position, "metadata": _body},
    "blocks": {
        "height": _int(0),
        "time": _text(1),
        "hash": _hex(2, None),
        "app_hash": _hex(3, None),
        "proposer": _hex(4, None),
        "transactions": _int(5),
    },
}
"""How the fields of a document are read from a row. The outputs of a row make documents of their own."""

_output_id, _output_asset_id = _hex(1), _asset_id(2)


def documents_of(
    connection: sqlite3.Connection, collection: str, row: Row, keys: Collection[str] | None = None
) -> Iterator[tuple[Place, Document]]:
    """The documents that a row makes, with their places; of outputs only those with one of `keys`.

    Raises `StoreDamaged` if they can't be read.
    """
    try:
        if collection == "outputs":
            yield from _outputs(connection, row, keys)
        else:
            found = {field: read(row) for field, read in READERS[collection].items()}
            yield place_of(collection, row[0]), found
    except UNREADABLE as error:
        raise StoreDamaged(f"The query store has a row of {collection} that can't be read") from error


def _outputs(
    connection: sqlite3.Connection, row: Row, keys: Collection[str] | None
) -> Iterator[tuple[Place, Document]]:
    spends: dict[int, Spent] | None = None
    place = place_of("outputs", row[0])
    transaction_id, asset_id = _output_id(row), _output_asset_id(row)
    for index, (amount, public_keys, condition) in enumerate(unpack_outputs(row[3])):
        if keys is not None and not any(key in keys for key in public_keys):
            continue
        if spends is None:
            spends = spends_of(connection, row[0])
        height, by = spends.get(index, (None, None))
        if height is not None and by is None:
            raise ValueError
        yield (
            Place(place.height, place.position, index),
            {
                "transaction_id": transaction_id,
                "output_index": index,
                "asset_id": asset_id,
                "amount": amount,
                "public_keys": public_keys,
                "condition": condition,
                "height": place.height,
                "position": place.position,
                "spent_height": height,
                "spent_by": by,
            },
        )


def spends_of(connection: sqlite3.Connection, number: int) -> dict[int, Spent]:
    """What has been spent of the outputs of a transaction, by output index."""
    return {
        index: (height, None if by is None else by.hex())
        for index, height, by in connection.execute(_SPENDS, (number,))
    }


def stored_of(connection: sqlite3.Connection, collection: str, row: Row) -> Iterator[Stored]:
    """The same as they are, however damaged: what can't be read stands in a field of its own, as it is."""
    try:
        for place, document in documents_of(connection, collection, row):
            yield Stored(place if place.height > 0 else None, document)
    except StoreDamaged:
        yield _broken(collection, row)


def _broken(collection: str, row: Row) -> Stored:
    document: Document = {}
    for field, read in READERS.get(collection, {}).items():
        try:
            document[field] = read(row)
        except UNREADABLE:
            document[f"{field} (unreadable)"] = None
    if collection == "outputs":
        document = {"outputs (unreadable)": repr(row[1:])}
    place = place_of(collection, row[0])
    return Stored(place if place.height > 0 else None, document)
