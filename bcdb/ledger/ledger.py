"""The ledger as the node process has it: accept into the write-ahead log, apply blocks, commit them, flush.

One writer. Writes are not synced: `flush` syncs them, on a thread if need be, and nobody may be told of a
write before the flush that covers it. After a write or a flush has failed nothing more is written or retried.
"""

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from itertools import islice, takewhile
from pathlib import Path

from msgspec import DecodeError
from rocksdict import WriteBatch

from bcdb.ledger import trace
from bcdb.ledger.apphash import app_hash
from bcdb.ledger.apply import Invalid, Outcome, apply_slices, head_write
from bcdb.ledger.crashpoints import reach
from bcdb.ledger.merkle import EMPTY_ROOT
from bcdb.ledger.operations import check
from bcdb.ledger.pending import Admission, CommittedView, Pending, PendingSet, decode_entry, encode_entry
from bcdb.ledger.reader import Reader
from bcdb.ledger.records import (
    ID_BYTES,
    BlockHeader,
    Head,
    Rejection,
    decode_rejection,
    encode_head,
    encode_rejection,
    output_key,
    pack_height,
    unpack_output,
)
from bcdb.ledger.slices import Slices, whole
from bcdb.ledger.store import (
    META_FORMAT,
    META_HEAD,
    Families,
    check_identity,
    identity_values,
    open_primary,
    rows,
    sync_directory,
)
from bcdb.model import limits
from bcdb.model.errors import (
    DoubleSpend,
    DuplicateTransaction,
    Overloaded,
    StorageFailed,
    StoreError,
    ValidationError,
)
from bcdb.model.transaction import Verified

Refusal = ValidationError | Overloaded

PRUNED_PER_COMMIT_MAX = 1_000
"""Rejected entries forgotten in one commit, so that no commit is long."""


class Ledger:
    """The state machine over one store, open for writing. Not for several threads, but for `flush`."""

    def __init__(self, families: Families, path: Path, chain_id: str) -> None:
        self.path = path
        self.chain_id = chain_id
        self.reader = Reader(families)
        self._families = families
        self._database = families.database
        self._handles = families.handles
        self._pending = PendingSet()
        self._view = CommittedView(self.reader, self._pending)
        self._next_seq = 1
        self._mark = 0
        self._failed = False
        self._open = True

    # --- opening ----------------------------------------------------------------------------------

    @staticmethod
    def open(path: Path, *, chain_id: str | None = None) -> "Ledger":
        """Open the ledger at `path`, making a new one if there is none, and bring back what was accepted.

        `chain_id` must be that of the store; a new store without one gets a random one. Raises StoreError
        when another process holds it, or its format or chain is another; StorageFailed when the disk fails.
        """
        families = open_primary(path)
        try:
            if families["meta"].get(META_FORMAT) is None:
                _create(families, path, chain_id or f"bcdb-{secrets.token_hex(8)}")
            ledger = Ledger(families, path, check_identity(families, path, chain_id))
            ledger._replay()
        except BaseException:
            families.close()
            raise
        return ledger

    def close(self) -> None:
        """Let go of the store. What was written but not flushed gets to the disk when the system likes."""
        if self._open:
            self._open = False
            self._families.close()

    def _replay(self) -> None:
        """Rebuild `pending` and the reservations from the write-ahead log."""
        batch = WriteBatch(raw_mode=True)
        for row, value in rows(self._families["wal"]):
            seq = int.from_bytes(row, "big")
            try:
                transaction, refusal = decode_entry(value)
            except DecodeError as error:
                raise StoreError(f"Entry {seq} of the write-ahead log is damaged: {error}") from None
            self._next_seq = seq + 1
            if self.reader.has_transaction(transaction.id) or transaction.id in self._pending.entries:
                batch.delete(row, self._handles["wal"])
                continue
            admission = Admission(self.reader)
            refusal = refusal or self._refusal(transaction, admission)
            if refusal is None:
                self._pending.add(Pending(seq, transaction, self.head.height), admission.read)
            else:
                batch.delete(row, self._handles["wal"])
                rejection = Rejection(self.head.height, refusal.name, refusal.text)
                self._put_rejection(batch, transaction.id, rejection)
        if not batch.is_empty():
            reach("replay-before-write")
            self._write(batch)
            reach("replay-after-write")

    # --- reading ----------------------------------------------------------------------------------

    @property
    def head(self) -> Head:
        return self.reader.head

    @property
    def pending(self) -> Mapping[bytes, Pending]:
        """What was accepted and is not settled, by id, in order of acceptance."""
        return self._pending.entries

    @property
    def pending_bytes(self) -> int:
        """Size of all pending transactions in bytes of canonical form."""
        return self._pending.bytes_total

    @property
    def mark(self) -> int:
        """How many writes were made since opening. `flush` returns the mark up to which all is durable."""
        return self._mark

    @property
    def failed(self) -> bool:
        """Whether a write or a flush has failed. It never becomes False again."""
        return self._failed

    def rejection(self, transaction_id: bytes) -> Rejection | None:
        """Why an accepted transaction was rejected, for `limits.REJECTED_HEIGHTS_KEPT` heights."""
        return self.reader.rejection(transaction_id)

    # --- accepting --------------------------------------------------------------------------------

    def accept(self, transactions: Sequence[Verified]) -> list[Refusal | None]:
        """Check each against the committed state and what is pending, and append the good ones to the WAL.

        Returns for each None (accepted: durable once a flush covers `mark`), the ValidationError that it
        breaks, or Overloaded when the WAL is full. One unsynced write for all. Raises StorageFailed.
        """
        self._require_sound()
        results: list[Refusal | None] = []
        batch = WriteBatch(raw_mode=True)
        put, wal = batch.put, self._handles["wal"]
        pending, height = self._pending, self.head.height
        accepted: list[bytes] = []
        try:
            for transaction in transactions:
                admission = Admission(self.reader)
                refusal = self._admission(transaction, admission)
                results.append(refusal)
                if refusal is None:
                    put(pack_height(self._next_seq), encode_entry(transaction), wal)
                    pending.add(Pending(self._next_seq, transaction, height), admission.read)
                    self._next_seq += 1
                    accepted.append(transaction.id)
        except BaseException:
            for transaction_id in accepted:  # none of them is in the WAL
                pending.remove(transaction_id)
            raise
        if accepted:
            reach("accept-before-write")
            self._write(batch)
            reach("accept-after-write")
            if trace.enabled:
                for transaction_id in accepted:
                    trace.emit("accepted", id=transaction_id.hex(), mark=self._mark)
        return results

    def _admission(self, transaction: Verified, admission: Admission) -> Refusal | None:
        pending = self._pending
        if transaction.id in pending.entries or self.reader.has_transaction(transaction.id):
            return DuplicateTransaction(f"transaction `{transaction.id.hex()}` already exists")
        if (
            len(pending.entries) >= limits.WAL_ENTRIES_MAX
            or pending.bytes_total + len(transaction.body) > limits.WAL_BYTES_MAX
        ):
            return Overloaded(
                f"{len(pending.entries)} transactions ({pending.bytes_total} bytes) wait for a block; "
                "the write-ahead log is full. Nothing was stored: try again in a second."
            )
        return self._refusal(transaction, admission)

    def _refusal(self, transaction: Verified, admission: Admission) -> ValidationError | None:
        """The stateful rule that a new transaction breaks, reservations included."""
        error = check(transaction, admission)
        if error is not None:
            return error
        rival = self._pending.rival(transaction)
        if rival is None:
            return None
        source, holder = rival
        return DoubleSpend(
            f"input `{source.hex()}` is already spent by the pending transaction `{holder.hex()}`"
        )

    # --- blocks -----------------------------------------------------------------------------------

    def apply(self, header: BlockHeader, transactions: Sequence[Verified | Invalid]) -> Outcome:
        """What the block does to the ledger as it stands. Changes nothing; see `apply.apply_block`."""
        return whole(self.applying(header, transactions))

    def applying(self, header: BlockHeader, transactions: Sequence[Verified | Invalid]) -> Slices[Outcome]:
        """The same in slices, of some milliseconds unless one transaction alone takes longer.

        In the pauses transactions may be accepted, which the outcome does not depend on. Nothing may be
        committed: `commit` refuses an outcome whose parent is not the head any more.
        """
        return apply_slices(self._view, header, transactions)

    def is_dead(self, transaction: Verified) -> bool:
        """Whether it can't be committed any more: it is already, or an output that it spends is spent.

        Once dead, always dead. What spends an output that does not exist yet is not. One that is not dead
        becomes so with the first block whose outcome has its id in `committed` or an input of it in `spent`.
        """
        if self._view.has_transaction(transaction.id):
            return True
        for spend in transaction.spends:
            record = self._view.get_output(output_key(spend.transaction_id, spend.output_index))
            if record is not None and unpack_output(record)[4] != 0:
                return True
        return False

    def commit(self, outcome: Outcome) -> int:
        """Write the block in one batch, not synced, with all that it settles here; fills `outcome.settled`.

        Returns the mark that a flush must reach before the height may be published. Raises StorageFailed.
        """
        self._require_sound()
        head = self.head
        if outcome.head.height != head.height + 1 or outcome.parent_app_hash != head.app_hash:
            raise ValueError(f"block {outcome.head.height} was not applied on block {head.height}, the head")
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for name, pairs in outcome.writes.puts():
            handle = self._handles[name]
            for key, value in pairs:
                put(key, value, handle)
        for key in outcome.writes.owned_deleted:
            delete(key, self._handles["owned"])
        put(META_HEAD, head_write(outcome), self._handles["meta"])
        self._settle(outcome)
        for transaction_id, rejection in outcome.settled.items():
            delete(pack_height(self._pending.entries[transaction_id].seq), self._handles["wal"])
            if rejection is not None:
                self._put_rejection(batch, transaction_id, rejection)
        self._prune_rejections(batch, outcome.head.height)
        reach("commit-before-write")
        self._write(batch)
        reach("commit-after-write")
        self.reader.set_head(outcome.head, outcome.frontier)
        for transaction_id in outcome.settled:
            self._pending.remove(transaction_id)
        return self._mark

    def _settle(self, outcome: Outcome) -> None:
        """Which pending entries the block settles: those in it, and those that lost an input to it."""
        entries, settled, height = self._pending.entries, outcome.settled, outcome.head.height
        for result in outcome.rejected:
            if result.id in entries:
                settled[result.id] = Rejection(height, result.name, result.text)
        for transaction in outcome.committed:
            # After the rejected ones: a block may carry a transaction twice, in vain before what it spends.
            if transaction.id in entries:
                settled[transaction.id] = None
        for loser, key in self._pending.losers(outcome.spent):
            if loser not in settled:
                text = f"input `{key[:ID_BYTES].hex()}` was already spent"
                settled[loser] = Rejection(height, DoubleSpend.__name__, text)

    def _put_rejection(self, batch: WriteBatch, transaction_id: bytes, rejection: Rejection) -> None:
        status = self._handles["status"]
        earlier = self._families["status"].get(b"I" + transaction_id)
        if earlier is not None:
            batch.delete(b"H" + pack_height(decode_rejection(earlier).height) + transaction_id, status)
        batch.put(b"I" + transaction_id, encode_rejection(rejection), status)
        batch.put(b"H" + pack_height(rejection.height) + transaction_id, b"", status)

    def _prune_rejections(self, batch: WriteBatch, height: int) -> None:
        """Forget rejections older than the heights for which they are kept."""
        kept_from = height - limits.REJECTED_HEIGHTS_KEPT
        if kept_from <= 0:
            return
        status = self._handles["status"]
        oldest = islice(rows(self._families["status"], b"H", b"H"), PRUNED_PER_COMMIT_MAX)
        for row, _ in takewhile(lambda found: found[0] < b"H" + pack_height(kept_from), oldest):
            batch.delete(row, status)
            batch.delete(b"I" + row[-ID_BYTES:], status)

    # --- durability -------------------------------------------------------------------------------

    def flush(self) -> int:
        """Sync everything written so far; returns the mark that it covers. Blocks without the interpreter
        lock.

        May run on another thread while accept and commit go on. Raises StorageFailed, once and for all.
        """
        self._require_sound()
        covered = self._mark
        if trace.enabled:
            trace.emit("flush-begin", mark=covered, sizes=_log_sizes(self.path))
        reach("flush-before")
        self._guarded(lambda: self._database.flush_wal(True), "A flush of the ledger to the disk failed")
        reach("flush-after")
        if trace.enabled:
            trace.emit("flush-end", mark=covered)
        return covered

    def _write(self, batch: WriteBatch) -> None:
        self._guarded(lambda: self._database.write(batch), "A write to the ledger failed")
        self._mark += 1

    def _guarded(self, step: Callable[[], None], what: str) -> None:
        try:
            step()
        except Exception as error:  # rocksdict raises bare Exception for whatever RocksDB reports
            self._failed = True
            raise StorageFailed(
                f"{what}: {error}. Nothing is retried; free or repair the disk, then start again."
            ) from None

    def _require_sound(self) -> None:
        if self._failed:
            raise StorageFailed("An earlier write to the ledger failed; nothing more is written.")


def _create(families: Families, path: Path, chain_id: str) -> None:
    """Make the first rows of a store, durably. An interrupted making is taken up again; anything else is
    refused.
    """
    for name, family in families.by_name.items():
        if next(rows(family), None) is not None:
            raise StoreError(
                f"What is at {path} is not a ledger of bcdb: it has rows in {name} but no format."
            )
    head = Head(0, 0, b"", app_hash(EMPTY_ROOT), 0)
    batch = WriteBatch(raw_mode=True)
    for key, value in identity_values(chain_id):
        batch.put(key, value, families.handles["meta"])
    batch.put(META_HEAD, encode_head(head, ()), families.handles["meta"])
    reach("store-before-create")
    try:
        families.database.write(batch)
        families.database.flush_wal(True)
        sync_directory(path)
        sync_directory(path.parent)
    except Exception as error:  # rocksdict raises bare Exception for whatever RocksDB reports
        raise StorageFailed(f"A new ledger can't be written at {path}: {error}") from None
    reach("store-after-create")


def _log_sizes(path: Path) -> dict[str, int]:
    sizes = {}
    for entry in os.scandir(path):
        if entry.name.endswith(".log"):
            sizes[entry.name] = entry.stat().st_size
    return sizes
