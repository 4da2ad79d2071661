"""Documents in, answers out: what is searched in a ledger, kept in a store beside it.

This package knows nothing of consensus, signatures or the ledger's own format, and must never import them.
"""

from query.projector import Progress, Projector, Source
from query.sqlite import SqliteStore
from query.store import (
    Block,
    Checkpoint,
    Document,
    Found,
    InvalidCursor,
    InvalidSearch,
    ProjectionGap,
    QueryError,
    QueryStore,
    SearchTimeout,
    StoreDamaged,
    StoreUnavailable,
)

__all__ = [
    "Block",
    "Checkpoint",
    "Document",
    "Found",
    "InvalidCursor",
    "InvalidSearch",
    "Progress",
    "ProjectionGap",
    "Projector",
    "QueryError",
    "QueryStore",
    "SearchTimeout",
    "Source",
    "SqliteStore",
    "StoreDamaged",
    "StoreUnavailable",
]
