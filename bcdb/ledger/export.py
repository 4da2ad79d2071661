"""A copy of a stopped node's ledger, to begin another node or a cluster with: the same chain, the same head.

All that is committed is in it, and nothing that is the node's own. It appears in one step, durable and whole,
or not at all; it must never be made while a node writes, nor lose a transaction that was accepted.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rocksdict import WriteBatch, WriteOptions

from bcdb.ledger.fsck import Progress
from bcdb.ledger.reader import Reader
from bcdb.ledger.records import Head
from bcdb.ledger.store import (
    FAMILIES,
    Families,
    check_identity,
    locked,
    open_primary,
    open_read_only,
    rows,
    sync_directory,
)
from bcdb.model.errors import StorageFailed, StoreError

NODE_FAMILIES = ("wal", "status")
"""What a node knows of its own: it stays behind."""

COPIED_FAMILIES = tuple(name for name in FAMILIES if name not in NODE_FAMILIES)
"""`meta` is the last: until the end what is copied is no ledger."""

BATCH_BYTES = 2 * 1024 * 1024
"""Keys and values that are written at a time."""


def export_ledger(source: Path, target: Path, progress: Progress | None = None) -> Head:
    """Copy the ledger at `source` to `target`, where nothing may be yet, and return its head.

    Raises StoreError, before anything is written, when there is no ledger, a node runs on it, or accepted
    transactions wait in it for a block; StorageFailed when reading or writing fails. Then nothing is left at
    `target`.
    """
    report = progress or (lambda family, done, total: None)
    source, target = source.resolve(), target.resolve()
    with locked(source):
        if source in target.parents:
            raise StoreError(f"The copy can't be at {target}, within the ledger; name a path outside of it.")
        families = open_read_only(source)
        try:
            check_identity(families, source, None)
            _require_settled(families, source)
            head = Reader(families).head
            with _in_one_step(target) as building:
                _copy(families, head, building, report)
            return head
        finally:
            families.close()


def _require_settled(families: Families, source: Path) -> None:
    pending = sum(1 for _ in rows(families["wal"]))
    if pending:
        raise StoreError(
            f"Accepted transactions wait for a block in the ledger at {source}: {pending}. A copy would lose "
            "them. Start the node, post nothing, wait until `bcdb status` shows none as pending, stop it and "
            "export again."
        )


@contextmanager
def _in_one_step(target: Path) -> Iterator[Path]:
    """A new directory beside `target` that becomes it in the end, and is removed when anything fails."""
    building = target.with_name(f"{target.name}.partial")
    try:
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise StoreError(f"There is something at {target} already; name a path where nothing is.")
        building.mkdir(mode=0o700)
    except FileExistsError:
        raise StoreError(
            f"There is something at {building}: a copy that is being made, or one that was cut short. If no "
            "other export runs, remove it and try again."
        ) from None
    except OSError as error:
        raise StoreError(f"The directory {building} can't be made: {error.strerror}.") from None
    try:
        yield building
        try:
            sync_directory(building)
            os.rename(building, target)
            sync_directory(target.parent)
        except OSError as error:
            raise _unwritable(target, error) from None
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _copy(families: Families, head: Head, building: Path, report: Progress) -> None:
    copy = open_primary(building)
    try:
        counts = {name: _copy_family(families, copy, name, building, report) for name in COPIED_FAMILIES}
        if (counts["transactions"], counts["blocks"]) != (head.log_size, head.height):
            raise StoreError(
                f"The ledger has {counts['transactions']} transactions and {counts['blocks']} blocks; its "
                f"head says {head.log_size} and {head.height}. Run `bcdb fsck` on it."
            )
        try:
            for name in COPIED_FAMILIES:
                copy[name].flush()
        except Exception as error:  # rocksdict raises bare Exception for whatever RocksDB reports
            raise _unwritable(building, error) from None
    finally:
        copy.close()


def _copy_family(families: Families, copy: Families, name: str, building: Path, report: Progress) -> int:
    """Copy the rows of a family, without syncing; how many there were."""
    # Not through RocksDB's own log: what is not whole is thrown away, and what is whole was flushed.
    options = WriteOptions()
    options.disable_wal = True  # type: ignore[assignment,method-assign]  # a property; the stubs of 0.3.29 err
    total = families[name].property_int_value("rocksdb.estimate-num-keys") or 0
    handle = copy.handles[name]
    batch, size_bytes, done = WriteBatch(raw_mode=True), 0, 0

    def write() -> None:
        try:
            copy.database.write(batch, options)
        except Exception as error:  # rocksdict raises bare Exception for whatever RocksDB reports
            raise _unwritable(building, error) from None

    for done, (key, value) in enumerate(rows(families[name]), 1):
        batch.put(key, value, handle)
        size_bytes += len(key) + len(value)
        if size_bytes >= BATCH_BYTES:
            write()
            report(name, done, max(done, total))
            batch, size_bytes = WriteBatch(raw_mode=True), 0
    write()
    report(name, done, done)
    return done


def _unwritable(path: Path, error: Exception) -> StorageFailed:
    return StorageFailed(
        f"The copy can't be written at {path}: {error}. Free or repair the disk, then export again."
    )
