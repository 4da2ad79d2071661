"""The embedded query store: one SQLite file with FTS5 tables, one process that writes, others that read.

It can be deleted at any time and is then rebuilt. It must never be mistaken for the ledger.
"""

from query.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
