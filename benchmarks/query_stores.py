"""The stores that the query benchmarks fill and ask: a mongod of their own, and files of SQLite beside it.

The mongod is started as `bcdb start --mongo` starts it. Nothing of it is left when a benchmark ends.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from pymongo import AsyncMongoClient

from bcdb.cli.home import locked
from bcdb.cli.mongod import running
from bcdb.node.settings import Settings

STORES = ("MongoDB", "SQLite")


class Own:
    """A mongod that runs: the settings of its home, its process id, and its version."""

    def __init__(self, settings: Settings, pid: int, version: str) -> None:
        self.settings = settings
        self.pid = pid
        self.version = version

    async def drop(self, settings: Settings) -> None:
        """Remove the store of these settings, which nobody has open any more."""
        if settings.store_kind == "sqlite":
            shutil.rmtree(settings.home)
            return
        async with _client(settings) as client:
            await client.drop_database(settings.mongo_database)


@asynccontextmanager
async def own_mongod(folder: Path) -> AsyncIterator[Own]:
    """Start it with its home at `folder`, which must not be deep: sockets have short paths."""
    settings = Settings(home=folder, mongo=True)
    settings.make_folders()
    with locked(settings) as lock:
        async with running(settings, lock):
            async with _client(settings) as client:
                said = await client.admin.command("serverStatus")
            yield Own(settings, said["pid"], said["version"])


def _client(settings: Settings) -> AsyncMongoClient[dict[str, Any]]:
    return AsyncMongoClient(settings.mongo_connection)


def fresh_settings(own: Own, store: str, name: str, *, text_search: bool = True) -> Settings:
    """The settings of a node whose store does not exist yet. `name`: tells it from others."""
    name = re.sub(r"\W", "_", name)
    if store == "MongoDB":
        return msgspec.structs.replace(own.settings, mongo_database=name, text_search=text_search)
    settings = Settings(home=own.settings.home.parent / f"sqlite-{name}", text_search=text_search)
    settings.make_folders()
    return settings
