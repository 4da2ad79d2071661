"""Documents in, answers out: what is asked of a ledger beyond itself, kept in a store beside it.

This package knows nothing of consensus, signatures or the ledger's own format, and must never import them.
The store of MongoDB is in `query.mongo`, so that only who uses it loads its driver.
"""

from query.checking import Difference, Truth, check
from query.documents import COLLECTIONS, FIELDS, Block, Document, Place, Spending
from query.errors import (
    InvalidCursor,
    InvalidSearch,
    ProjectionGap,
    QueryError,
    SearchTimeout,
    StoreDamaged,
    StoreUnavailable,
)
from query.projector import Progress, Projector, Source
from query.sqlite import SqliteStore
from query.store import Aggregated, Checkpoint, Find, Found, Page, QueryStore, Status, Stored

__all__ = [
    "COLLECTIONS",
    "FIELDS",
    "Aggregated",
    "Block",
    "Checkpoint",
    "Difference",
    "Document",
    "Find",
    "Found",
    "InvalidCursor",
    "InvalidSearch",
    "Page",
    "Place",
    "Progress",
    "ProjectionGap",
    "Projector",
    "QueryError",
    "QueryStore",
    "SearchTimeout",
    "Source",
    "Spending",
    "SqliteStore",
    "Status",
    "StoreDamaged",
    "StoreUnavailable",
    "Stored",
    "Truth",
    "check",
]
