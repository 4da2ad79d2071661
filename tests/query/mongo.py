"""What the tests of the MongoDB store share: opening one in a database of its own, and asking it."""

from collections.abc import Sequence
from typing import Any

import msgspec

from query import filters, sorting
from query.checking import check
from query.documents import Block
from query.mongo import MongoStore
from query.store import Find
from tests.query.documents import block_of, create, transfer
from tests.query.memory import MemoryLedger
from tests.support import mongod


async def opened(database: str, **more: Any) -> MongoStore:
    return await MongoStore.open(mongod.shared().uri, database, **more)


def question(collection: str, asked: Any, sort: Any = None, **more: Any) -> Find:
    order = sorting.parse(sort, collection) if sort else ()
    return Find(collection, filters.parse(asked, collection), sort=order, **more)


async def found(store: MongoStore, collection: str, asked: Any, **more: Any) -> list[Any]:
    page = await store.find(question(collection, asked, **more))
    return [msgspec.json.decode(body) for body in page.documents]


async def differences(store: MongoStore, blocks: Sequence[Block]) -> list[str]:
    ledger = MemoryLedger(blocks)
    told = [each async for each in check(ledger, store, lambda what, done, total: None)]
    return [f"{each.kind} {each.where}" for each in told]


def custody(length: int = 8) -> list[Block]:
    """Assets that change hands in the next block and the one after it."""
    blocks = [block_of(1, create(1, {"n": 1}, amount=3), create(2, {"n": 2}))]
    for height in range(2, length + 1):
        blocks.append(
            block_of(
                height,
                create(10 * height, {"n": height}),
                transfer(10 * height + 1, 1, [(10 * height - 9 if height > 2 else 1, 0)], amounts=(1, 1)),
                *([transfer(10 * height + 2, 1, [(10 * height - 19, 1)])] if height > 3 else []),
            )
        )
    return blocks
