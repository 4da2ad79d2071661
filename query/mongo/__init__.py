"""The query store in MongoDB: one process writes, others ask, through the same documents and filters.

It can be dropped at any time and is then rebuilt. It must never be mistaken for the ledger.
"""

from query.mongo.store import MongoStore

__all__ = ["MongoStore"]
