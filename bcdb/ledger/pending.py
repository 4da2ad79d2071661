"""What this node has accepted and no block has settled yet: the entries of the write-ahead log, in memory.

Each entry reserves the outputs that it spends, so that two accepted transactions never spend the same one.
This is one node's own knowledge: it must never be read by what decides a block.
"""

from collections.abc import Iterable

from msgspec import Struct
from msgspec.msgpack import Decoder, Encoder

from bcdb.ledger.merkle import Frontier
from bcdb.ledger.reader import Reader
from bcdb.ledger.records import Head, output_key
from bcdb.model import limits
from bcdb.model.errors import ValidationError
from bcdb.model.transaction import Verified
from bcdb.model.validation import verify_canonical

_encode = Encoder().encode
_decode = Decoder(Verified).decode
_VERSION = bytes([limits.VERSION])


def encode_entry(transaction: Verified) -> bytes:
    """The value of an entry in the family `wal`: the limits' version, and what verifying under it gave."""
    return _VERSION + _encode(transaction)


def decode_entry(value: bytes) -> tuple[Verified, ValidationError | None]:
    """The transaction of an entry, and why it is no longer valid if it is not.

    One that was verified under another version of the limits, before an upgrade, is verified again. Raises
    `msgspec.DecodeError` for what is no entry.
    """
    entry = _decode(value[1:])
    if value[:1] != _VERSION:
        try:
            return verify_canonical(entry.body), None
        except ValidationError as error:
            return entry, error
    return entry, None


class Pending(Struct, frozen=True, gc=False):
    """An accepted transaction. `seq` orders acceptance, `height` was the ledger's when it was accepted."""

    seq: int
    verified: Verified
    height: int


class PendingSet:
    """The accepted entries in order, the outputs they reserve, and their size in bytes of canonical form."""

    __slots__ = ("bytes_total", "entries", "records", "reserved")

    def __init__(self) -> None:
        self.entries: dict[bytes, Pending] = {}
        self.reserved: dict[bytes, bytes] = {}
        """Key of a reserved output → id of the entry that spends it."""
        self.records: dict[bytes, bytes] = {}
        """Key of a reserved output → its record. Only the block that settles the entry can change it."""
        self.bytes_total = 0

    def add(self, entry: Pending, read: dict[bytes, bytes]) -> None:
        """Add an entry; `read` holds at least the records of the outputs that it spends."""
        transaction = entry.verified
        self.entries[transaction.id] = entry
        self.bytes_total += len(transaction.body)
        for spend in transaction.spends:
            key = output_key(spend.transaction_id, spend.output_index)
            self.reserved[key] = transaction.id
            self.records[key] = read[key]

    def remove(self, transaction_id: bytes) -> Pending:
        entry = self.entries.pop(transaction_id)
        transaction = entry.verified
        self.bytes_total -= len(transaction.body)
        for spend in transaction.spends:
            key = output_key(spend.transaction_id, spend.output_index)
            del self.reserved[key]
            del self.records[key]
        return entry

    def rival(self, transaction: Verified) -> tuple[bytes, bytes] | None:
        """The source id of the first input that is reserved, and the entry that has reserved it."""
        if self.reserved:
            for spend in transaction.spends:
                holder = self.reserved.get(output_key(spend.transaction_id, spend.output_index))
                if holder is not None:
                    return spend.transaction_id, holder
        return None

    def losers(self, spent: dict[bytes, bytes]) -> Iterable[tuple[bytes, bytes]]:
        """(id of the entry, key of the output) for each entry that wanted what a block gives another one."""
        for key, winner in spent.items():
            holder = self.reserved.get(key)
            if holder is not None and holder != winner:
                yield holder, key


class Admission:
    """The committed state as the rules read it when a transaction is accepted; keeps what they have read."""

    __slots__ = ("_get_output", "has_transaction", "read")

    def __init__(self, reader: Reader) -> None:
        self.has_transaction = reader.has_transaction
        self._get_output = reader.get_output
        self.read: dict[bytes, bytes] = {}

    def get_output(self, key: bytes) -> bytes | None:
        record = self._get_output(key)
        if record is not None:
            self.read[key] = record
        return record


class CommittedView:
    """The committed state on which a block is applied, answered from memory where pending entries make that
    sure.

    What it answers is what the store would: an entry that is pending is not committed, and an output that is
    reserved is as it was when it was reserved. Both end only with a commit, so it does not matter either what
    is accepted while a block is applied in slices: an entry with the id of a transaction of that very block,
    or with its inputs, is known to be absent from the store, and to find those inputs unspent there.
    """

    __slots__ = ("_pending", "_reader")

    def __init__(self, reader: Reader, pending: PendingSet) -> None:
        self._reader = reader
        self._pending = pending

    @property
    def head(self) -> Head:
        return self._reader.head

    @property
    def frontier(self) -> Frontier:
        return self._reader.frontier

    def has_transaction(self, transaction_id: bytes) -> bool:
        return transaction_id not in self._pending.entries and self._reader.has_transaction(transaction_id)

    def get_output(self, key: bytes) -> bytes | None:
        return self._pending.records.get(key) or self._reader.get_output(key)
