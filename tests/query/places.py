"""Query stores of both kinds for the tests that hold for either, and how they are asked."""

import json
from pathlib import Path
from typing import Any

import msgspec

from query import fields, filters, sorting
from query.mongo import MongoStore
from query.sqlite import SqliteStore
from query.store import Find, Page, QueryStore
from tests.support import mongod

KINDS = ("sqlite", "mongodb")


class Place:
    """Where a store of one kind is, so that it can be opened by a writer and by readers."""

    def __init__(self, kind: str, path: Path, database: str) -> None:
        self.kind = kind
        self._path = path / "query.sqlite"
        self._database = database
        self._opened: list[QueryStore] = []

    async def writer(self, text_search: bool = True) -> QueryStore:
        opened: QueryStore
        if self.kind == "sqlite":
            opened = SqliteStore.open(self._path, text_search=text_search)
        else:
            opened = await MongoStore.open(mongod.shared().uri, self._database, text_search=text_search)
        self._opened.append(opened)
        return opened

    def reader(self) -> QueryStore:
        opened: QueryStore
        if self.kind == "sqlite":
            opened = SqliteStore.open_reader(self._path)
        else:
            opened = MongoStore.open_reader(mongod.shared().uri, self._database)
        self._opened.append(opened)
        return opened

    async def close(self) -> None:
        while self._opened:
            await self._opened.pop().close()


def question(
    collection: str, asked: Any, sort: Any = None, projection: Any = None, limit: int = 100, **more: Any
) -> Find:
    wanted, exclude = fields.parse(projection, collection) if projection else ((), False)
    order = sorting.parse(sort, collection) if sort else ()
    return Find(
        collection,
        filters.parse(asked, collection),
        fields=wanted,
        exclude=exclude,
        sort=order,
        limit=limit,
        **more,
    )


async def pages(opened: QueryStore, asked: Find) -> list[Page]:
    """All pages of a question, one behind the other."""
    found: list[Page] = []
    while not found or found[-1].next is not None:
        page = await opened.find(msgspec.structs.replace(asked, after=found[-1].next if found else None))
        assert len(page.documents) <= asked.limit
        assert page.documents or page.next is None
        found.append(page)
    return found


async def everything(opened: QueryStore, asked: Find) -> list[Any]:
    return [msgspec.json.decode(body) for page in await pages(opened, asked) for body in page.documents]


def exactly(value: Any) -> str:
    """JSON text that tells integers from floats and does not care for the order of keys."""
    return json.dumps(value, sort_keys=True)
