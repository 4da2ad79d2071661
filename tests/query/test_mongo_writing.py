"""The MongoDB store's way of writing: crashes at any point, odd values, whatever the server refuses.

Everything runs against a real mongod.
"""

from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.asynchronous.collection import AsyncCollection

from query.documents import Block
from query.mongo import MongoStore
from query.store import (
    Checkpoint,
    ProjectionGap,
    StoreUnavailable,
)
from tests.query.documents import block, block_of, chain, create, mark_of, name_of
from tests.query.mongo import custody, differences, found, opened
from tests.query.test_mongo_encoding import JSON, exactly
from tests.support import mongod
from tests.support.mongod import Client


@pytest.fixture
def database() -> Iterator[str]:
    with mongod.shared().database() as name:
        yield name


@pytest.fixture
def client() -> Iterator[Client]:
    with mongod.shared().client() as opened:
        yield opened


@pytest.fixture
async def store(database: str) -> AsyncIterator[MongoStore]:
    store = await opened(database)
    yield store
    await store.close()


# --- crashes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", range(8))
@pytest.mark.parametrize("again", [(2, 8), (5, 8), (8,)])
async def test_a_batch_that_was_cut_off_anywhere_is_written_again(
    store: MongoStore, after: int, again: tuple[int, ...]
) -> None:
    blocks = custody()
    await store.project(blocks[:1])
    with mongod.shared().failing(["insert", "update"], after=after, closeConnection=True):
        try:
            await store.project(blocks[1:5])
        except StoreUnavailable:
            assert (await store.checkpoint()).height == 1
    for upto in again:
        await store.project(blocks[:upto])
    assert await store.checkpoint() == Checkpoint(8, mark_of(8))
    assert await differences(store, blocks) == []


@pytest.mark.parametrize("code", [10107, 11601, 14031, 50])
@pytest.mark.parametrize("command", ["insert", "update"])
async def test_what_the_server_refuses_for_its_own_reasons_changes_no_document(
    store: MongoStore, code: int, command: str
) -> None:
    blocks = custody()
    await store.project(blocks[:2])
    with mongod.shared().failing([command], errorCode=code), pytest.raises(StoreUnavailable):
        await store.project(blocks[2:])
    await store.project(blocks[2:])
    assert await differences(store, blocks) == []


class Killed(BaseException):
    """The end of the projector's process."""


async def test_a_writer_that_ends_anywhere_leaves_what_the_next_one_goes_on_with(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = custody(8)
    steps = 0
    done = False
    while not done:
        writer = await opened(database, text_search=False)
        await writer.rebuild("the next round", 0)
        await writer.project(blocks[:2])
        done = await project_some(writer, blocks[2:6], steps, monkeypatch)
        await writer.close()
        steps += 1
        writer = await opened(database, text_search=False)
        height = (await writer.checkpoint()).height
        assert height == (6 if done else 2)
        assert await differences(writer, blocks) == []
        await writer.project(blocks)
        assert await differences(writer, blocks) == []
        await writer.close()
    assert steps == 8


async def project_some(
    writer: MongoStore, blocks: Sequence[Block], steps: int, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Project, but end it when so many messages were answered; whether it had come to its end."""
    left = steps

    async def counted(work: Awaitable[Any]) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            work.close()  # type: ignore[attr-defined]
            raise Killed
        return await work

    with monkeypatch.context() as patched:
        for name in ("insert_many", "bulk_write", "update_one"):
            original = getattr(AsyncCollection, name)

            def call(self: Any, *args: Any, original: Any = original, **more: Any) -> Awaitable[Any]:
                return counted(original(self, *args, **more))

            patched.setattr(AsyncCollection, name, call)
        try:
            await writer.project(blocks)
        except Killed:
            return False
    return True


async def test_a_second_writer_is_noticed(database: str) -> None:
    one, other = await opened(database), await opened(database)
    await one.project(chain(2))
    with pytest.raises(ProjectionGap, match="is 1, not 3"):
        await other.project(chain(2, start=3))
    await other.project(chain(4))
    with pytest.raises(ProjectionGap, match="has left block 2"):
        await one.project(chain(1, start=3))
    await one.project(chain(5))
    assert await differences(one, chain(5)) == []
    await one.close()
    await other.close()


# --- values -----------------------------------------------------------------------------------------------


@given(values=st.lists(JSON, min_size=1, max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
async def test_any_value_is_taken_kept_and_answered(values: list[Any], store: MongoStore) -> None:
    height = (await store.checkpoint()).height + 1
    made = [create(1000 * height + number, value, value) for number, value in enumerate(values)]
    await store.project([block_of(height, *made)])
    for collection, field in (("assets", "data"), ("metadata", "metadata")):
        answers = await found(store, collection, {"height": height})
        assert [exactly(each[field]) for each in answers] == list(map(exactly, values))
    told = [each async for each in store.stored("assets", height, height)]
    assert [exactly(each.document["data"]) for each in told] == list(map(exactly, values))


async def test_what_mongodb_refuses_is_kept_as_text(store: MongoStore, database: str, client: Client) -> None:
    values = [
        {"n": 1, "text": "plain"},
        {"n": 2**64, "text": "wide"},
        {"n": 2, "text": [f"w{number}x" for number in range(200_000)]},
        {"n": 3, "language": "klingon", "text": "strange"},
        {"n": 4, "text": "plain"},
    ]
    made = block_of(1, *[create(number, value) for number, value in enumerate(values)])
    await store.project([made])
    assert [exactly(each["data"]) for each in await found(store, "assets", {})] == list(map(exactly, values))
    assert len(await found(store, "assets", {"data.text": "plain"})) == 2
    assert len(await store.search_assets("plain", 10)) == 2
    assert len(await store.search_assets("strange", 10)) == 1
    (wide,) = await store.search_assets(name_of(1).hex(), 10)
    assert wide.document == b'{"data":{"n":18446744073709551616,"text":"wide"},"id":"%b"}' % wide.id.encode()
    kinds = [type(each["data"].get("%json")) for each in client[database].assets.find().sort("_id")]
    assert kinds == [type(None), bytes, bytes, type(None), type(None)]
    assert await differences(store, [made]) == []


async def test_languages_have_their_own_words(store: MongoStore) -> None:
    await store.project([block(1, {1: {"language": "french", "t": "le chat"}, 2: {"t": "le chat"}})])
    assert [each.id for each in await store.search_assets("le", 10)] == [name_of(2).hex()]
    assert len(await store.search_assets("chat", 10)) == 2
