"""The RocksDB below the ledger: its column families, its options and why they are so, opening and closing.

rocksdict in raw mode: bytes in, bytes out. This module knows no rule and no record but those of `meta` that
say whether the store may be opened at all; it must never open a store of another format or another chain.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    DataBlockIndexType,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
)

from bcdb.ledger.records import FORMAT_VERSION, prefix_end, seal, unseal
from bcdb.model.errors import StorageFailed, StoreError

FAMILIES = ("wal", "transactions", "outputs", "owned", "assets", "blocks", "log", "status", "meta")

FOLLOWED_FAMILIES = tuple(name for name in FAMILIES if name != "wal")
"""What workers follow. The write-ahead log is half of all bytes and nobody's but the node process's."""

META_FORMAT = b"format"
META_CHAIN_ID = b"chain_id"
META_HEAD = b"head"

_MIB = 1024 * 1024

BLOCK_CACHE_BYTES_MAX = 96 * _MIB
READER_BLOCK_CACHE_BYTES_MAX = 32 * _MIB
"""There is one reader for each API worker and one for the projector, hence the smaller cache."""

WRITE_BUFFER_BYTES = {
    # What is in a buffer is held in memory by the writer and again by every reader, which follows the log:
    # larger buffers would mean fewer files, but each MiB counts once for each process. These are some seconds
    # of full load.
    "wal": 8 * _MIB,
    "transactions": 16 * _MIB,
    "outputs": 8 * _MIB,
    # A listing of unspent outputs walks over the tombstones of spent ones in the buffer: 4 MiB hold 40,000 of
    # one key, which is 10 to 20 ms of walking right after a mass spending (2 ms at other times).
    "owned": 4 * _MIB,
}
WRITE_BUFFER_BYTES_DEFAULT = 2 * _MIB

DATABASE_WRITE_BUFFER_BYTES_MAX = 48 * _MIB
"""All buffers together, so that memory has a bound."""

LOG_BYTES_MAX = 48 * _MIB
"""RocksDB keeps its own log until every family that wrote to it is flushed. This bound flushes those that
write little (`blocks`, `meta`); without it the log would grow, and with it the time to open after a crash."""

OPEN_FILES_MAX = 512
"""Half of the usual soft limit of 1,024; the rest is for sockets. Files beyond are opened again on use."""


class Families:
    """An open store: the database and its column families by name."""

    def __init__(self, database: Rdict, names: Iterable[str]) -> None:
        self.database = database
        self.by_name = {name: database.get_column_family(name) for name in names}
        self.handles = {name: database.get_column_family_handle(name) for name in self.by_name}

    def __getitem__(self, name: str) -> Rdict:
        return self.by_name[name]

    def close(self) -> None:
        for family in self.by_name.values():
            family.close()
        # A handle that is still referred to would keep the database, and with it the lock, open.
        self.handles.clear()
        self.database.close()


def unreadable(error: Exception) -> StorageFailed:
    """What a failed read becomes: RocksDB has found a damaged block, or the disk does not answer."""
    return StorageFailed(f"The ledger can't be read: {error}. Stop the node and run `bcdb fsck`.")


def rows(
    family: Rdict, prefix: bytes = b"", start: bytes = b"", end: bytes = b""
) -> Iterator[tuple[bytes, bytes]]:
    """The rows of a family from the key `start` on, as long as they have the prefix and are below `end`.

    They are those that the family has when the first one is taken, however long the rest is taken after that.
    Raises StorageFailed where a row can't be read.
    """
    options = ReadOptions()
    if end or prefix:
        options.set_iterate_upper_bound(end or prefix_end(prefix))
    # A generator, because the bound lives in `options`: rocksdict 0.3.29 does not keep them for the iterator,
    # which then reads freed memory and ends early.
    try:
        found = family.iter(options)
        found.seek(start)
        while found.valid():
            yield found.key(), found.value()
            found.next()
        # At a block that can't be read the iterator ends like at the last row, and `items` of rocksdict with
        # it: only the status tells.
        found.status()
    except Exception as error:  # rocksdict raises bare Exception for whatever RocksDB reports
        raise unreadable(error) from None


def rows_backwards(family: Rdict, prefix: bytes, before: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The rows below the key `before`, last first, as long as they have the prefix. Raises StorageFailed."""
    # `set_iterate_lower_bound` of rocksdict 0.3.29 sets the upper bound, so the end is looked for here.
    try:
        found = family.iter()
        found.seek_for_prev(before)
        while found.valid():
            key: bytes = found.key()
            if not key.startswith(prefix):
                return
            if key < before:
                yield key, found.value()
            found.prev()
        found.status()
    except Exception as error:  # rocksdict raises bare Exception for whatever RocksDB reports
        raise unreadable(error) from None


def _database_options(*, follows: bool) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(not follows)
    options.create_missing_column_families(not follows)
    options.set_db_write_buffer_size(DATABASE_WRITE_BUFFER_BYTES_MAX)
    options.set_max_total_wal_size(LOG_BYTES_MAX)
    # A reader must hold every file open, or the primary may delete one under it.
    options.set_max_open_files(-1 if follows else OPEN_FILES_MAX)
    if follows:
        # With more than one, RocksDB makes and joins sixteen threads at every catching up that meets a new
        # file list, which took most of its time (130 ms on two busy cores).
        options.set_max_file_opening_threads(1)
    # A power cut leaves the unsynced end of the log in any state: recover up to the first record that is not
    # whole. What was synced before is whole, and nothing after that was ever answered for.
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
    options.set_paranoid_checks(True)
    # One core for flushes and one for compactions; on two cores more would only take time from the node.
    options.set_max_background_jobs(2)
    # Written-back pieces keep the fsync of a finished file short, so that it does not delay the group commit.
    options.set_bytes_per_sync(_MIB)
    # The info log is for nobody in good times: two files of at most 2 MiB, no statistics dumped into it.
    options.set_max_log_file_size(2 * _MIB)
    options.set_keep_log_file_num(2)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    # Recycled log files can show old records after the end of the new ones; that is no place to save a few
    # syscalls.
    options.set_recycle_log_file_num(0)
    options.set_max_manifest_file_size(16 * _MIB)
    # The default reserves 4 MiB at once, too much on the small disks that a test or a sensor box has.
    options.set_manifest_preallocation_size(64 * 1024)
    return options


def _family_options(name: str, cache: Cache, *, follows: bool) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(not follows)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES.get(name, WRITE_BUFFER_BYTES_DEFAULT))
    options.set_max_write_buffer_number(3)
    options.set_level_compaction_dynamic_level_bytes(True)
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    # Filters and indexes live in the cache too: else they grow with the ledger, outside every bound.
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    # In small pieces: a whole filter of a large file has megabytes, more than the piece of the cache that it
    # falls into, and would be read from the file again for every lookup (measured: 1 ms each instead of 2
    # µs).
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_metadata_block_size(8 * 1024)
    table.set_pin_top_level_index_and_filter(True)
    table.set_format_version(5)
    if name in ("transactions", "outputs", "status"):
        # Every accepted transaction asks for an id that is not there: 10 bits a key answer 99 of 100 from
        # memory.
        table.set_bloom_filter(10, False)
        # These are asked key by key: a small hash in each block spares the search in it (8.5 → 6.5 µs a hit).
        table.set_data_block_index_type(DataBlockIndexType.binary_and_hash())
        table.set_data_block_hash_ratio(0.75)
        # The same for the rows that are still in the write buffer, for a fiftieth of its size.
        options.set_memtable_whole_key_filtering(True)
        options.set_memtable_prefix_bloom_ratio(0.02)
    if name == "transactions":
        # JSON documents of one kind resemble each other: larger blocks, light compression where data is
        # rewritten often, zstd with a dictionary at the bottom, where nearly all of it lies.
        table.set_block_size(16 * 1024)
        options.set_compression_type(DBCompressionType.lz4())
        options.set_bottommost_compression_type(DBCompressionType.zstd())
        options.set_bottommost_compression_options(-14, 3, 0, 16 * 1024, True)
        options.set_bottommost_zstd_max_train_bytes(_MIB, True)
        options.set_target_file_size_base(256 * _MIB)
    elif name in ("outputs", "owned", "assets", "status"):
        # Keys share their beginnings and URIs their ends; lz4 takes half off and costs next to nothing.
        options.set_compression_type(DBCompressionType.lz4())
        options.set_target_file_size_base(128 * _MIB)
    else:
        # Hashes (blocks, log) do not compress; the WAL's entries are gone before it would pay.
        options.set_compression_type(DBCompressionType.none())
    if name in ("wal", "owned"):
        # Both lose rows all the time. A run of tombstones slows replay and listings, so it is compacted away
        # early.
        options.add_compact_on_deletion_collector_factory(4_096, 2_048, 0.5)
    options.set_block_based_table_factory(table)
    return options


def _open(
    path: Path,
    access: AccessType,
    *,
    cache_bytes_max: int,
    follows: bool,
    names: tuple[str, ...] = FAMILIES,
) -> Families:
    cache = Cache(cache_bytes_max)
    families = {name: _family_options(name, cache, follows=follows) for name in names}
    families["default"] = _family_options("meta", cache, follows=follows)
    try:
        return Families(Rdict(str(path), _database_options(follows=follows), families, access), names)
    except Exception as error:  # rocksdict raises bare Exception for whatever RocksDB reports
        text = str(error)
        if "lock" in text.lower():
            raise StoreError(f"The ledger at {path} is in use by another process.") from None
        raise StoreError(f"The ledger at {path} can't be opened: {text}") from None


def open_primary(path: Path) -> Families:
    """Open for reading and writing, making what is missing. One process at a time; raises StoreError."""
    _make_directory(path)
    return _open(path, AccessType.read_write(), cache_bytes_max=BLOCK_CACHE_BYTES_MAX, follows=False)


def open_secondary(path: Path, scratch_dir: Path) -> Families:
    """Open as a follower of the process that writes. `scratch_dir` holds the follower's own info log."""
    _require_store(path)
    _make_directory(scratch_dir)
    access = AccessType.secondary(str(scratch_dir))
    return _open(
        path, access, cache_bytes_max=READER_BLOCK_CACHE_BYTES_MAX, follows=True, names=FOLLOWED_FAMILIES
    )


def open_read_only(path: Path) -> Families:
    """Open a store that no process writes, without changing anything in it."""
    _require_store(path)
    access = AccessType.read_only(False)
    return _open(path, access, cache_bytes_max=BLOCK_CACHE_BYTES_MAX, follows=True)


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreError(f"The directory {path} can't be made: {error.strerror}.") from None


def _require_store(path: Path) -> None:
    if not (path / "CURRENT").is_file():
        raise StoreError(f"There is no ledger at {path}.")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the store's lock, so that no node starts on it meanwhile. Raises StoreError when one runs.

    Never in a process that has the same store open for writing: POSIX gives up a process's lock on a file
    whenever that process closes any descriptor of it.
    """
    _require_store(path)
    try:
        descriptor = os.open(path / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"The ledger at {path} can't be locked: {error.strerror}.") from None
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StoreError(f"The ledger at {path} is in use by another process.") from None
    try:
        yield
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: a synced file is lost with an entry that is not."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_identity(families: Families, path: Path, chain_id: str | None) -> str:
    """The chain id of the store. Raises StoreError for an unknown format, or a chain not `chain_id`."""
    meta = families["meta"]
    raw_format, raw_chain_id = meta.get(META_FORMAT), meta.get(META_CHAIN_ID)
    if raw_format is None or raw_chain_id is None:
        raise StoreError(f"What is at {path} is not a ledger of bcdb, or its making was cut short.")
    found = int.from_bytes(unseal(raw_format, "the format version"), "big")
    if found != FORMAT_VERSION:
        raise StoreError(
            f"The ledger at {path} has format {found}; this version of bcdb reads format {FORMAT_VERSION}."
        )
    stored = unseal(raw_chain_id, "the chain id").decode()
    if chain_id is not None and stored != chain_id:
        raise StoreError(f"The ledger at {path} belongs to the chain {stored!r}, not to {chain_id!r}.")
    return stored


def identity_values(chain_id: str) -> tuple[tuple[bytes, bytes], ...]:
    """The rows of `meta` that a new store gets together with its first head."""
    return (
        (META_FORMAT, seal(FORMAT_VERSION.to_bytes(4, "big"))),
        (META_CHAIN_ID, seal(chain_id.encode())),
    )
