"""The provenance of an asset as JSON, as a graph for Graphviz, and as a table for spreadsheets.

Each shape is made movement by movement, so a page may end behind any of them. Nothing that an app can choose
freely stands in a picture or a table: ids, keys, numbers, times and names of operations only.
"""

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from msgspec import Struct

from bcdb.http.answer import JSON, to_json
from bcdb.http.documents import HexId, OutputReference, Time
from bcdb.ledger import Reader
from bcdb.ledger.history import History, Movement
from bcdb.ledger.slices import Slices
from bcdb.ledger.times import rfc3339
from bcdb.model import limits
from bcdb.model.transaction import Link

DOT = b"text/vnd.graphviz; charset=utf-8"
CSV = b"text/csv; charset=utf-8; header=present"
KEYS_SHOWN_MAX = 20
"""Keys of one cell or label; an output may have a thousand, and a cell only some 32,000 characters."""
SHORT_ID_CHARS = 8
SLICE_RECORDS = 400
"""Inputs, outputs and transactions that are read between two pauses: some milliseconds."""

COLUMNS = (
    "height",
    "position",
    "time",
    "transaction_id",
    "operation",
    "from",
    "to",
    "amount",
    "output_index",
    "spent_height",
    "spent_by",
)


class Given(Struct, frozen=True, gc=False):
    """An input: whose it was, which output it spends, and how much that was; null in what makes an asset."""

    owners_before: list[str]
    fulfills: OutputReference | None
    amount: str | None


class Taken(Struct, frozen=True, gc=False):
    """An output: whose it is, how much, and what has spent it by then, null while nothing has."""

    output_index: int
    public_keys: list[str]
    amount: str
    spent_height: int | None
    spent_by: HexId | None


class Moved(Struct, frozen=True, gc=False):
    """A transaction of the asset, when it was committed, what it took from whom and gave to whom."""

    id: HexId
    operation: str
    height: int
    position: int
    time: Time
    inputs: list[Given]
    outputs: list[Taken]


class Provenance(Struct, frozen=True):
    """The custody of an asset after the block `height`: its transactions in order."""

    asset_id: HexId
    height: int
    transactions: list[Moved]


class Shape(ABC):
    """How movements are written. `media_type` is that of the whole."""

    media_type: bytes

    def __init__(self, asset_id: bytes, height: int) -> None:
        self.asset_id = asset_id.hex()
        self.height = height

    @abstractmethod
    def movement(self, movement: Movement, time_ns: int) -> bytes:
        """One movement."""

    @abstractmethod
    def whole(self, movements: Sequence[bytes]) -> bytes:
        """All that was asked for."""


class AsJson(Shape):
    """See `Provenance`."""

    media_type = JSON

    def movement(self, movement: Movement, time_ns: int) -> bytes:
        return to_json(
            Moved(
                movement.id.hex(),
                movement.operation,
                movement.height,
                movement.position,
                rfc3339(time_ns),
                [
                    Given(
                        given.owners_before,
                        None if (link := given.fulfills) is None else _reference(link),
                        None if given.amount is None else str(given.amount),
                    )
                    for given in movement.inputs
                ],
                [
                    Taken(
                        taken.output_index,
                        list(taken.public_keys),
                        str(taken.amount),
                        taken.spent_height,
                        None if taken.spent_by is None else taken.spent_by.hex(),
                    )
                    for taken in movement.outputs
                ],
            )
        )

    def whole(self, movements: Sequence[bytes]) -> bytes:
        head = b'{"asset_id":"%b","height":%d,"transactions":[' % (self.asset_id.encode(), self.height)
        # Copied once only: it may be long.
        pieces = [piece for movement in movements for piece in (b",", movement)]
        return b"".join((head, *pieces[1:], b"]}"))


class AsDot(Shape):
    """A directed graph: a box for each transaction, an edge for each output to what spent it, and an ellipse
    with the owners for what nothing has spent.

    An edge stands with the transaction that made the output, so the graphs of all pages together are the
    graph of all.
    """

    media_type = DOT

    def movement(self, movement: Movement, time_ns: int) -> bytes:
        name = movement.id.hex()
        about = (
            f"{movement.operation} {name[:SHORT_ID_CHARS]}",
            f"block {movement.height}, position {movement.position}",
            rfc3339(time_ns),
        )
        lines = [f"  {quoted(name)} [label={quoted(*about)}];"]
        for taken in movement.outputs:
            owners = shown(taken.public_keys)
            if taken.spent_by is not None:
                to, label = quoted(taken.spent_by.hex()), quoted(str(taken.amount), *owners)
            else:
                to, label = quoted(f"{name}:{taken.output_index}"), quoted(str(taken.amount))
                lines.append(f"  {to} [shape=ellipse, label={quoted(*owners)}];")
            lines.append(f"  {quoted(name)} -> {to} [label={label}];")
        return "\n".join(lines).encode()

    def whole(self, movements: Sequence[bytes]) -> bytes:
        title = quoted(f"Asset {self.asset_id}", f"after block {self.height}")
        head = (
            "digraph provenance {\n"
            f'  graph [rankdir=LR, labelloc=t, label={title}, fontname="sans-serif"];\n'
            '  node [shape=box, fontname="sans-serif"];\n'
            '  edge [fontname="sans-serif"];'
        )
        return b"\n".join((head.encode(), *movements, b"}\n"))


class AsCsv(Shape):
    """A table (RFC 4180) with a row for each output: who got how much from whom, when, and what became of it.

    `from` names all who gave to the transaction, for in it their shares became one. No cell can be taken for
    a formula: none begins with anything but a letter or a digit, as no text in it is chosen by an app.
    """

    media_type = CSV

    def movement(self, movement: Movement, time_ns: int) -> bytes:
        owners = dict.fromkeys(owner for given in movement.inputs for owner in given.owners_before)
        start = (
            movement.height,
            movement.position,
            rfc3339(time_ns),
            movement.id.hex(),
            movement.operation,
            " ".join(shown(list(owners))),
        )
        return table(
            (
                *start,
                " ".join(shown(taken.public_keys)),
                taken.amount,
                taken.output_index,
                taken.spent_height,
                taken.spent_by and taken.spent_by.hex(),
            )
            for taken in movement.outputs
        )

    def whole(self, movements: Sequence[bytes]) -> bytes:
        return b"".join((table((COLUMNS,)), *movements))


SHAPES: dict[str, type[Shape]] = {"json": AsJson, "dot": AsDot, "csv": AsCsv}


def read_page(
    reader: Reader, asset_id: bytes, shape: Shape, after: str | None, limit: int
) -> Slices[tuple[bytes, str | None]]:
    """In slices: a page of the provenance after the block `shape.height`, and the cursor of the next one.

    It has at most `limit` transactions and ends early when it has become too many bytes. Raises
    `InvalidCursor`, `StoreError`.
    """
    history = History(reader, shape.height)
    movements: list[bytes] = []
    size = read = time_ns = height = 0
    while True:
        page = reader.transactions_of(
            asset_id, at_height=shape.height, after=after, limit=min(SLICE_RECORDS, limit - len(movements))
        )
        for number, item in enumerate(page.items, 1):
            if item.height != height:
                height, time_ns = item.height, reader.block_time(item.height)
            movement = history.movement(item)
            records = 1 + len(movement.inputs) + len(movement.outputs)
            if records >= SLICE_RECORDS:
                # One with a thousand outputs takes some milliseconds to read, and some more to write.
                yield
            movements.append(shape.movement(movement, time_ns))
            size += len(movements[-1])
            read += records
            if size >= limits.PAGE_BYTES_MAX:
                after = item.cursor if number < len(page.items) or page.next is not None else None
                return shape.whole(movements), after
            if read >= SLICE_RECORDS:
                read = 0
                yield
        after = page.next
        if after is None or len(movements) == limit:
            return shape.whole(movements), after


def _reference(link: Link) -> OutputReference:
    return OutputReference(link.transaction_id, link.output_index)


def quoted(*lines: str) -> str:
    """Lines of text as a quoted string of Graphviz."""
    return '"' + "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"'


def shown(public_keys: Sequence[str]) -> list[str]:
    """The first keys, and how many more there are."""
    more = len(public_keys) - KEYS_SHOWN_MAX
    return [*public_keys[:KEYS_SHOWN_MAX], *([f"and {more} more"] if more > 0 else [])]


def table(rows: Iterable[Iterable[object]]) -> bytes:
    """Rows as CSV, an empty cell for None."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
