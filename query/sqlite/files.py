"""The SQLite file of the store: how it is made, recognised, opened and replaced while others read it.

A file is only ever used if it is known to be one of ours and of this version. No file of the store may be
opened but through SQLite: closing it would drop the locks that SQLite holds on it in this process.
"""

import logging
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from query.sqlite import tables
from query.store import StoreDamaged, StoreUnavailable

log = logging.getLogger(__name__)

APPLICATION_ID = 0x62636462
"""In the header of every file of ours: "bcdb"."""
PAGE_BYTES = 8192
WAL_PAGES = 4_000
"""Pages in the write-ahead log before they are moved into the file: 32 MB."""
CACHE_BYTES = 32 * 1024 * 1024
BUSY_S = 5.0

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_MISSING = ("no such table", "no such column")
"""As nobody but this package writes SQL, the schema is not the one it made."""


ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What the module raises: the second when SQLite's sentence quotes a damaged name."""


def error_of(error: sqlite3.Error | UnicodeDecodeError, path: Path) -> StoreUnavailable:
    """What an error of SQLite means for the store at `path`."""
    if isinstance(error, UnicodeDecodeError):
        return StoreDamaged(f"The query store {path.name} is damaged: it has names that are no text")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _DAMAGE or str(error).startswith(_MISSING):
        return StoreDamaged(f"The query store {path.name} is damaged: {error}")
    return StoreUnavailable(f"The query store {path.name} can't be used: {error}")


class Connection(sqlite3.Connection):
    """A connection to a store, which knows whether its file comes with text search."""

    text_search = True


def open_writer(path: Path, *, text_search: bool = True) -> Connection:
    """The store at `path` for the one process that writes it, made if it is missing or can't be used.

    That is also one that was made with the other choice of `text_search`. Raises `StoreUnavailable` when the
    disk refuses.
    """
    try:
        if not path.exists():
            replace(path, text_search=text_search)
        try:
            return _connect_writer(path, text_search)
        except StoreDamaged as damage:
            log.warning("%s It is rebuilt from height 0.", damage.text.rstrip(".") + ".")
            replace(path, text_search=text_search, keep_old=isinstance(damage, _ForeignFile))
            return _connect_writer(path, text_search)
    except OSError as error:
        raise StoreUnavailable(f"The query store {path.name} can't be made: {error.strerror}") from error


def open_reader(path: Path) -> Connection:
    """The store at `path`, to read only. Raises `StoreDamaged`, and `StoreUnavailable` if there is none."""
    try:
        before = identity(path)
        if before is None:
            raise StoreUnavailable("There is no query store yet; it is being built")
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro",
            uri=True,
            timeout=BUSY_S,
            check_same_thread=False,
            isolation_level=None,
            factory=Connection,
        )
    except sqlite3.Error as error:
        raise error_of(error, path) from error
    try:
        # A text in the file is damage, and has to reach whoever can say so.
        connection.text_factory = _decode_text
        _check_ours(connection, path)
        # The file and its log are opened one after the other; both must be of the same store.
        if identity(path) != before:
            raise StoreUnavailable("The query store is being rebuilt")
    except BaseException:
        connection.close()
        raise
    return connection


def identity(path: Path) -> tuple[int, int] | None:
    """Tells the file that is now at `path` from one that was there before; None if there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def replace(path: Path, *, text_search: bool = True, target: int = 0, keep_old: bool = False) -> None:
    """Put an empty store at `path`. Whoever reads the old one keeps reading it until it looks at `identity`.

    Below the height `target` the new one answers nothing. With `keep_old` the file that was there stays
    beside it, as it is not ours to delete.
    """
    fresh = path.with_name(path.name + ".new")
    old = path.with_name(path.name + ".unusable")
    for leftover in (fresh, _beside(fresh, "-wal"), _beside(fresh, "-shm")):
        leftover.unlink(missing_ok=True)
    _make(fresh, text_search, target)
    # First out of the readers' sight, so that nobody can open an old file with a new log or the reverse.
    if path.exists():
        os.rename(path, old)
    for tail in ("-wal", "-shm", "-journal"):
        _beside(path, tail).unlink(missing_ok=True)
    os.rename(fresh, path)
    rebuild_request(path).unlink(missing_ok=True)
    if not keep_old:
        old.unlink(missing_ok=True)
    _sync(path.parent)


def rebuild_request(path: Path) -> Path:
    """A file that a reader leaves beside the store to tell the writer that it found damage."""
    return path.with_name(path.name + ".rebuild")


class _ForeignFile(StoreDamaged):
    """The file at the store's path was made by something else."""


def _beside(path: Path, tail: str) -> Path:
    return path.with_name(path.name + tail)


def _decode_text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _make(path: Path, text_search: bool, target: int) -> None:
    # SQLite gives its -wal and -shm the mode of the file: what the ledger holds is for its owner alone.
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN")
        tables.create(connection, text_search=text_search, target=target)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={tables.format_of(text_search)}")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise error_of(error, path) from error
    finally:
        connection.close()
    _sync(path)


def _connect_writer(path: Path, text_search: bool) -> Connection:
    try:
        connection = sqlite3.connect(
            path, timeout=BUSY_S, check_same_thread=False, isolation_level=None, factory=Connection
        )
        try:
            _check_ours(connection, path)
            if connection.text_search != text_search:
                raise StoreDamaged(
                    f"The query store {path.name} was made {'without' if text_search else 'with'} text search"
                )
            # NORMAL syncs the log before its pages are moved into the file, and the file before the log
            # begins anew: a power cut can take back the last transactions, checkpoint and documents together,
            # but leaves no half of one. The ledger has those blocks, so they are projected again. OFF could
            # leave halves.
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit={4 * WAL_PAGES * PAGE_BYTES}")
            connection.execute(f"PRAGMA cache_size=-{CACHE_BYTES // 1024}")
        except BaseException:
            connection.close()
            raise
        return connection
    except sqlite3.Error as error:
        raise error_of(error, path) from error


def _check_ours(connection: Connection, path: Path) -> None:
    try:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application_id != APPLICATION_ID:
            raise _ForeignFile(f"The file {path.name} is no query store of bcdb")
        if version not in tables.FORMATS:
            needed = tables.format_of(text_search=True)
            raise StoreDamaged(
                f"The query store {path.name} has format {version}, this program needs {needed}"
            )
        connection.text_search = tables.FORMATS[version]
        if connection.execute("SELECT count(*) FROM checkpoint").fetchone() != (1,):
            raise StoreDamaged(f"The query store {path.name} has no checkpoint")
    except ERRORS as error:
        raise error_of(error, path) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
