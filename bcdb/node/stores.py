"""Opens the query store that the settings name; the only place that knows which stores there are.

The driver of a database is imported when its store is chosen, so that a node without it does not carry it.
"""

import asyncio

from bcdb.node.settings import Settings
from query.sqlite import SqliteStore
from query.store import QueryStore


async def open_store(settings: Settings) -> QueryStore:
    """The store for its one writer, the projector; made if it is not there.

    Raises `StoreUnavailable` when the disk refuses, or when the database can't be reached or used as it is.
    """
    if settings.store_kind == "mongodb":
        from query.mongo import MongoStore

        return await MongoStore.open(
            settings.mongo_connection, settings.mongo_database, text_search=settings.text_search
        )
    return await asyncio.to_thread(SqliteStore.open, settings.store_path, text_search=settings.text_search)


def open_reader(settings: Settings) -> QueryStore:
    """The store for whoever only asks or checks. Nothing is made, and it need not be there yet."""
    if settings.store_kind == "mongodb":
        from query.mongo import MongoStore

        return MongoStore.open_reader(settings.mongo_connection, settings.mongo_database)
    return SqliteStore.open_reader(settings.store_path)
