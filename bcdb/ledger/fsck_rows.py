"""The second way of fsck: every row that is stored must be there for a reason, and say the same as its
source.

Here are the rows too many, the rows left behind, and the families that are this node's own (`wal`, `status`).
Yields plain (where, what) pairs, family by family; like all of fsck it must never write.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache

from msgspec import DecodeError, Struct
from msgspec.json import Decoder

from bcdb.ledger.merkle import STORED_LEVEL_MIN, unpack_node_key
from bcdb.ledger.operations import OPERATIONS
from bcdb.ledger.pending import decode_entry
from bcdb.ledger.reader import Reader
from bcdb.ledger.records import (
    ID_BYTES,
    KEY_BYTES,
    OWNED_KEY_BYTES,
    PLACE_BYTES,
    SPENT,
    UNSPENT,
    decode_output,
    decode_rejection,
    output_key,
    owned_value,
    pack_height,
    unpack_owned_place,
    unpack_place,
)
from bcdb.ledger.store import FAMILIES, META_CHAIN_ID, META_FORMAT, META_HEAD, Families, rows
from bcdb.model.errors import BcdbError, ValidationError
from bcdb.model.keys import encode_key
from bcdb.model.transaction import Link
from bcdb.model.validation import verify_canonical

Faults = Iterator[tuple[str, str]]

ROWS_PER_PROGRESS = 10_000

PARSED_KEPT = 256


class _Input(Struct, gc=False):
    fulfills: Link | None


class _Output(Struct, gc=False):
    pass


class Parsed(Struct, gc=False):
    """What a row of an index can be checked against. No data: some hundreds of these are held at a time."""

    operation: str
    inputs: list[_Input]
    outputs: list[_Output]


_decode_transaction = Decoder(Parsed).decode


def check_rows(
    families: Families, reader: Reader, report: Callable[[str, int, int], None]
) -> Iterator[tuple[str, Faults]]:
    """For each family its name and the faults of its rows."""
    sources = _Sources(reader)
    checks: dict[str, Callable[[bytes, bytes], str]] = {
        "transactions": sources.check_transaction,
        "outputs": sources.check_output,
        "owned": sources.check_owned,
        "assets": sources.check_asset,
        "blocks": sources.check_block,
        "log": sources.check_log,
        "wal": _Entries(reader).check,
        "status": _Rejections(families, reader).check,
        "meta": _check_meta,
    }
    assert set(checks) == set(FAMILIES), "every family is checked"
    for family, check in checks.items():
        yield family, _check_family(families, family, check, report)


def _check_family(
    families: Families,
    family: str,
    check: Callable[[bytes, bytes], str],
    report: Callable[[str, int, int], None],
) -> Faults:
    total = families[family].property_int_value("rocksdb.estimate-num-keys") or 0
    done = 0
    for done, (key, value) in enumerate(rows(families[family]), 1):
        try:
            what = check(key, value)
        except BcdbError as error:
            what = error.text
        if what:
            yield f"{family}/{key.hex()}", what
        if done % ROWS_PER_PROGRESS == 0:
            report(family, done, max(done, total))
    report(family, done, done)


class _Sources:
    """Checks the committed families against the blocks and the transactions that they come from."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._block_ids = lru_cache(maxsize=64)(self._read_block_ids)
        self._transaction = lru_cache(maxsize=PARSED_KEPT)(self._read_transaction)

    def _read_block_ids(self, height: int) -> tuple[bytes, ...]:
        block = self._reader.block(height)
        return () if block is None else block.ids

    def _read_transaction(self, transaction_id: bytes) -> tuple[tuple[int, int], Parsed] | None:
        stored = self._reader.transaction(transaction_id)
        if stored is None:
            return None
        try:
            return (stored.height, stored.position), _decode_transaction(stored.body)
        except (DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def check_transaction(self, key: bytes, value: bytes) -> str:
        if len(key) != ID_BYTES or len(value) <= PLACE_BYTES:
            return "is not a row of this family"
        height, position = unpack_place(value)
        ids = self._block_ids(height)
        return (
            ""
            if position < len(ids) and ids[position] == key
            else f"is not number {position} of block {height}"
        )

    def check_output(self, key: bytes, value: bytes) -> str:
        source = self._transaction(key[:ID_BYTES])
        index = int.from_bytes(key[ID_BYTES:], "big")
        if len(key) != ID_BYTES + 4 or source is None or index >= len(source[1].outputs):
            return "is an output of no transaction"
        output = decode_output(value)
        if (output.height, output.position) != source[0]:
            return f"says that it was made at {output.height}/{output.position}, not at {source[0]}"
        if not output.spent_height:
            return ""
        spender = self._transaction(output.spent_by) if output.spent_by is not None else None
        if spender is None or spender[0][0] != output.spent_height or not _spends(spender[1], key, index):
            return (
                f"says that it is spent at height {output.spent_height} by a transaction that does not do so"
            )
        return ""

    def check_owned(self, key: bytes, value: bytes) -> str:
        state = key[KEY_BYTES : KEY_BYTES + 1]
        if len(key) != OWNED_KEY_BYTES or state not in (UNSPENT, SPENT):
            return "is not a row of this family"
        height, position, index = unpack_owned_place(key, KEY_BYTES + 1)
        transaction_id = value[:ID_BYTES]
        raw = self._reader.get_output(output_key(transaction_id, index))
        if raw is None:
            return "names an output that does not exist"
        output = decode_output(raw)
        if (output.height, output.position) != (height, position):
            return "names an output of another place"
        if (state == SPENT) != bool(output.spent_height):
            return f"says {state.decode()} of an output that is the opposite"
        if encode_key(key[:KEY_BYTES]) not in output.public_keys:
            return "names an output that has not this key"
        if value != owned_value(transaction_id, output):
            return "has another asset, amount or height of spending than its output"
        return ""

    def check_asset(self, key: bytes, value: bytes) -> str:
        if len(key) != ID_BYTES + PLACE_BYTES or len(value) != ID_BYTES + 1:
            return "is not a row of this family"
        source = self._transaction(value[1:])
        if source is None or source[0] != unpack_place(key, ID_BYTES):
            return "names a transaction that is not at this place"
        operation = OPERATIONS.get(source[1].operation)
        if operation is None or value[:1] != operation.CODE:
            return f"has not the code of {source[1].operation}"
        first = self._reader.output(value[1:], 0)
        return "" if first is not None and first.asset_id == key[:ID_BYTES] else "is under another asset"

    def check_block(self, key: bytes, value: bytes) -> str:
        height = int.from_bytes(key, "big")
        in_chain = len(key) == 8 and 1 <= height <= self._reader.head.height
        return "" if in_chain else f"is beyond the head, which is at height {self._reader.head.height}"

    def check_log(self, key: bytes, value: bytes) -> str:
        if len(key) != 9:
            return "is not a row of this family"
        level, index = unpack_node_key(key)
        # Which hash it must be was tested where a block completes it; here only whether any block does.
        if level < STORED_LEVEL_MIN or (index + 1) << level > self._reader.head.log_size:
            return f"is a subtree that a log of {self._reader.head.log_size} leaves has not"
        return ""


def _spends(spender: Parsed, key: bytes, index: int) -> bool:
    source = key[:ID_BYTES].hex()
    links = [item.fulfills for item in spender.inputs if item.fulfills is not None]
    return any(link.transaction_id == source and link.output_index == index for link in links)


class _Entries:
    """Checks the entries of the write-ahead log, each and against one another."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._ids: set[bytes] = set()
        self._reserved: set[bytes] = set()

    def check(self, key: bytes, value: bytes) -> str:
        try:
            transaction, _ = decode_entry(value)
            verified = verify_canonical(transaction.body)
        except (DecodeError, UnicodeDecodeError, ValidationError) as error:
            return f"is not a transaction: {error}"
        if verified != transaction or len(key) != len(pack_height(0)):
            return f"is not what verifying its transaction {verified.id.hex()} gives"
        if transaction.id in self._ids or self._reader.has_transaction(transaction.id):
            return f"holds {transaction.id.hex()}, which is committed or in the log before"
        self._ids.add(transaction.id)
        for spend in transaction.spends:
            output = output_key(spend.transaction_id, spend.output_index)
            record = self._reader.get_output(output)
            if record is None or decode_output(record).spent_height or output in self._reserved:
                return f"spends {output.hex()}, which is missing, spent, or spent by an entry before"
            self._reserved.add(output)
        return ""


class _Rejections:
    """Checks that rejections by id and by height say the same."""

    def __init__(self, families: Families, reader: Reader) -> None:
        self._status = families["status"]
        self._reader = reader

    def check(self, key: bytes, value: bytes) -> str:
        kind, transaction_id = key[:1], key[-ID_BYTES:]
        if kind == b"I" and len(key) == 1 + ID_BYTES:
            rejection = decode_rejection(value)
            if rejection.height > self._reader.head.height:
                return f"was rejected at height {rejection.height}, which is beyond the head"
            twin = self._status.get(b"H" + pack_height(rejection.height) + transaction_id)
            return "" if twin == b"" else "has no row by its height, so it would never be pruned"
        if kind == b"H" and len(key) == 9 + ID_BYTES and value == b"":
            raw = self._status.get(b"I" + transaction_id)
            if raw is None:
                return "has no row by its id"
            return "" if key[1:9] == pack_height(decode_rejection(raw).height) else "is under another height"
        return "is not a row of this family"


def _check_meta(key: bytes, value: bytes) -> str:
    known = key in (META_FORMAT, META_CHAIN_ID, META_HEAD)
    return "" if known else "is not a row of this family"
