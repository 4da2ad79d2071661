"""What the SQLite file holds, to be compared with the ledger, and whether its indexes are true to it.

Documents are told as they are stored, however damaged. Indexes are derived anew from the rows and compared by
sums in which the order does not count, so that nothing grows with the store. Nothing here repairs anything.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec

from query.sqlite import rows, tables
from query.sqlite.files import BUSY_S, ERRORS, Connection, error_of
from query.sqlite.tables import BODY_TABLES, COLUMN_TYPES, TEXT_TABLES, numbers_of
from query.sqlite.writing import read_checkpoint
from query.store import Status, Stored, StoreDamaged
from query.text import terms_of

KIND = "sqlite"
PART_DOCUMENTS_MAX = 1_000
PART_BYTES_MAX = 4 * 1024 * 1024
FAULTS_MAX = 20
"""Sentences of SQLite's own check that are passed on."""
NUMBER_MIN, NUMBER_MAX = -(2**63), 2**63 - 1
_SUM = (1 << 64) - 1


def status(connection: Connection) -> Status:
    """See `QueryStore.status`."""
    checkpoint = read_checkpoint(connection)
    transactions, assets, outputs = connection.execute(
        "SELECT transactions, assets, outputs FROM checkpoint"
    ).fetchone()
    counts = {
        "transactions": transactions,
        "assets": assets,
        "metadata": transactions,
        "outputs": outputs,
        "blocks": checkpoint.height,
    }
    return Status(KIND, checkpoint.height, checkpoint.target, connection.text_search, counts)


# --- documents --------------------------------------------------------------------------------------------


class Reading(msgspec.Struct):
    """Reads the documents of a collection whose numbers are from `low` to `high`, part by part."""

    collection: str
    low: int
    high: int
    done: bool = False

    def part(self, connection: sqlite3.Connection) -> list[Stored]:
        """The next documents, none when there are no more."""
        found: list[Stored] = []
        columns, source = rows.COLUMNS[self.collection]
        number = rows.NUMBER[self.collection]
        size_bytes = 0
        if not self.done and self.low <= self.high:
            for row in connection.execute(
                f"SELECT {columns} FROM {source} WHERE {number} BETWEEN ? AND ? ORDER BY {number}",
                (self.low, self.high),
            ):
                found.extend(rows.stored_of(connection, self.collection, row))
                size_bytes += sum([len(value) for value in row if type(value) is bytes])
                self.low = row[0] + 1
                # A row that makes no document does not end a reading.
                if found and (len(found) >= PART_DOCUMENTS_MAX or size_bytes >= PART_BYTES_MAX):
                    return found
        self.done = True
        return found


def reading(collection: str, first: int, last: int) -> Reading:
    """The documents of the heights from `first` to `last`, in order of their places."""
    return Reading(collection, *numbers_of(collection, first, last))


def strays(collection: str, last: int) -> tuple[Reading, Reading]:
    """The documents that stand at no height from 1 to `last`."""
    first_number, last_number = numbers_of(collection, 1, last)
    after = max(first_number, last_number + 1)
    return Reading(collection, NUMBER_MIN, first_number - 1), Reading(collection, after, NUMBER_MAX)


# --- indexes ----------------------------------------------------------------------------------------------


def faults(connection: Connection, path: Path) -> list[str]:
    """What is wrong with the tables and their indexes, one sentence each. Raises what SQLite raises."""
    checks = [_structure(connection, path)]
    checks += [check(connection) for check in (_types, _counts, _owners, _spends, _bodies)]
    if connection.text_search:
        checks += [_terms(connection, collection) for collection in TEXT_TABLES]
        checks += [_text_structure(path, collection) for collection in TEXT_TABLES]
    found: list[str] = []
    for check in checks:
        try:
            found.extend(check)
        except ERRORS as error:
            trouble = error_of(error, path)
            if not isinstance(trouble, StoreDamaged):
                raise
            found.append(trouble.text)
        except StoreDamaged as damage:
            found.append(damage.text)
    return found


def _structure(connection: Connection, path: Path) -> Iterator[str]:
    for (sentence,) in connection.execute(f"PRAGMA integrity_check({FAULTS_MAX})"):
        if sentence != "ok":
            yield f"SQLite finds damage in {path.name}: {sentence}"


def _types(connection: Connection) -> Iterator[str]:
    for table, columns in COLUMN_TYPES.items():
        for column, expected in columns.items():
            (wrong,) = connection.execute(
                f"SELECT count(*) FROM {table} WHERE instr(?, typeof({column})) = 0", (expected,)
            ).fetchone()
            if wrong:
                yield f"{wrong} rows of the table {table} have a {column} that is no {expected}"


def _counts(connection: Connection) -> Iterator[str]:
    told = status(connection)
    counted = {
        table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("transactions", "assets", "blocks")
    }
    counted["outputs"] = sum(len(packed) for _, packed in _outputs(connection))
    for name, count in counted.items():
        if told.counts[name] != count:
            yield f"The checkpoint counts {told.counts[name]} {name}, the store has {count}"
    if 0 < told.target <= told.height:
        yield f"The checkpoint at block {told.height} says that the store is built up to {told.target} only"


def _outputs(connection: Connection) -> Iterator[tuple[int, list[tuple[int, list[str], str]]]]:
    """The outputs of each transaction; those that can't be read are for `stored` to tell."""
    for number, packed in connection.execute("SELECT number, outputs FROM transactions"):
        try:
            yield number, tables.unpack_outputs(packed)
        except rows.UNREADABLE:
            continue


def _owners(connection: Connection) -> Iterator[str]:
    # A key may stand twice in one output, but not in the table.
    expected = (
        (key, number, index)
        for number, outputs in _outputs(connection)
        for index, (_, public_keys, _) in enumerate(outputs)
        for key in {tables.owner_key(public_key) for public_key in public_keys}
    )
    if _sum(expected) != _sum(connection.execute("SELECT owner, number, output_index FROM owners")):
        yield "The table owners does not have the keys of all outputs, or has others"


def _spends(connection: Connection) -> Iterator[str]:
    if _sum(_expected_spends(connection)) != _sum(
        connection.execute("SELECT number, output_index, by FROM spends")
    ):
        yield "The table spends does not have what all inputs spend, or has more"


def _expected_spends(connection: Connection) -> Iterator[tuple[int, int, int]]:
    find = f"SELECT number FROM transactions WHERE substr(id, 1, {tables.ID_KEY_BYTES}) = ? AND id = ?"
    for by, packed in connection.execute("SELECT number, inputs FROM transactions"):
        try:
            inputs = tables.unpack_inputs(packed)
        except rows.UNREADABLE:
            continue
        for _, spent in inputs:
            if spent is not None:
                source, index = spent
                for (number,) in connection.execute(find, (source[: tables.ID_KEY_BYTES], source)):
                    yield number, index, by


def _bodies(connection: Connection) -> Iterator[str]:
    for table, column in BODY_TABLES.values():
        wrong = 0
        for body, plain, checksum in connection.execute(f"SELECT {column}, plain, sum FROM {table}"):
            if type(body) is bytes:
                wrong += tables.is_plain(body) != plain or tables.sum_of(body) != checksum
        if wrong:
            yield f"{wrong} rows of the table {table} have a {column} that is not what was written"


def _terms(connection: Connection, collection: str) -> Iterator[str]:
    table, (documents, column) = TEXT_TABLES[collection], BODY_TABLES[collection]
    terms_sum = sizes_sum = words = count = 0
    for number, identifier, body in connection.execute(f"SELECT number, id, {column} FROM {documents}"):
        if type(body) is not bytes or type(identifier) is not bytes:
            continue
        terms = terms_of([*tables.strings_of(body), identifier.hex()]).split()
        terms_sum += sum([hash((term, number, offset)) for offset, term in enumerate(terms)])
        sizes_sum += hash((number, len(terms)))
        words += len(terms)
        count += 1
    # A table of SQLite's own that shows every word of the index.
    connection.execute(f"CREATE VIRTUAL TABLE temp.instances USING fts5vocab(main, {table}, instance)")
    try:
        shown = _sum(connection.execute("SELECT term, doc, offset FROM temp.instances"))
    finally:
        connection.execute("DROP TABLE temp.instances")
    if shown != (words, terms_sum & _SUM):
        yield f"The full text index of {collection} does not have the words of its documents"
    sizes = (
        (number, *_varints(size))
        for number, size in connection.execute(f"SELECT id, sz FROM {table}_docsize")
    )
    (averages,) = connection.execute(f"SELECT block FROM {table}_data WHERE id = 1").fetchone() or (b"",)
    if _sum(sizes) != (count, sizes_sum & _SUM) or _varints(averages) != ([count, words] if count else []):
        yield f"The full text index of {collection} does not have the lengths of its documents"


def _varints(raw: object) -> list[int]:
    """Numbers as SQLite writes them: seven bits a byte, most significant first. Eight bytes at most here."""
    found, value = [], 0
    for byte in raw if type(raw) is bytes else b"":
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            found.append(value)
            value = 0
    return found


def _text_structure(path: Path, collection: str) -> Iterator[str]:
    """FTS5's own check, which it offers only to those who might write."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw", uri=True, timeout=BUSY_S, isolation_level=None
    )
    table = TEXT_TABLES[collection]
    try:
        connection.execute("BEGIN")
        connection.execute(f"INSERT INTO {table}({table}) VALUES ('integrity-check')")
        connection.execute("ROLLBACK")
    except ERRORS as error:
        if not isinstance(error_of(error, path), StoreDamaged):
            raise
        yield f"SQLite finds damage in the full text index of {collection}: {error}"
    finally:
        connection.close()


def _sum(items: Iterable[tuple[object, ...]]) -> tuple[int, int]:
    """Tells one set of tuples from another, whatever their order. Good within one process."""
    count = total = 0
    for item in items:
        count += 1
        total += hash(item)
    return count, total & _SUM
