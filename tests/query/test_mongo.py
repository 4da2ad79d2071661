"""The MongoDB store beside what both stores share: crashes at any point, odd values, trouble with the server.

Everything runs against a real mongod.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from typing import Any

import bson
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.asynchronous.collection import AsyncCollection

from query import documents, filters, sorting
from query.checking import check
from query.documents import COLLECTIONS, Block, Place
from query.mongo import MongoStore, asking, connection, finding, layout, searching
from query.store import (
    Checkpoint,
    Find,
    InvalidSearch,
    ProjectionGap,
    SearchTimeout,
    StoreDamaged,
    StoreUnavailable,
)
from tests.query.documents import ALICE, block, block_of, chain, create, mark_of, name_of, transfer
from tests.query.memory import MemoryLedger
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


async def opened(database: str, **more: Any) -> MongoStore:
    return await MongoStore.open(mongod.shared().uri, database, **more)


@pytest.fixture
async def store(database: str) -> AsyncIterator[MongoStore]:
    store = await opened(database)
    yield store
    await store.close()


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


# --- questions --------------------------------------------------------------------------------------------


async def test_operators_that_only_mongodb_has(store: MongoStore) -> None:
    values = {
        1: {"tags": ["a", "b"], "n": 7, "parts": [{"k": "x", "n": 1}, {"k": "y", "n": 2}], "a.b": {"$c": 1}},
        2: {"tags": ["a"], "n": 8.0, "parts": [{"k": "x", "n": 2}], "name": "Red Bicycle"},
    }
    await store.project([block(1, values)])
    for asked, expected in (
        ({"data.tags": {"$all": ["a", "b"]}}, [1]),
        ({"data.tags": {"$size": 1}}, [2]),
        ({"data.parts": {"$elemMatch": {"k": "x", "n": 2}}}, [2]),
        ({"data.n": {"$mod": [2, 0]}}, [2]),
        ({"data.n": {"$type": "double"}}, [2]),
        ({"data.n": {"$type": "int"}}, [1]),
        ({"data.name": {"$regex": "^red", "$options": "i"}}, [2]),
        ({"$text": {"$search": "bicycles"}}, [2]),
        ({"$text": {"$search": "bicycles"}, "data.n": 7}, []),
    ):
        answers = await found(store, "assets", asked)
        assert [each["id"] for each in answers] == [name_of(number).hex() for number in expected], asked


async def test_aggregations(store: MongoStore) -> None:
    await store.project(custody(6))
    made = await store.aggregate(
        "outputs",
        [
            {"$match": {"spent_height": None, "height": {"$gte": 2}}},
            {"$unwind": "$public_keys"},
            {"$group": {"_id": "$public_keys", "held": {"$sum": "$amount"}, "latest": {"$max": "$height"}}},
            {"$sort": {"_id": 1}},
        ],
    )
    assert made.height == 6
    assert [msgspec.json.decode(body)["latest"] for body in made.documents] == [6, 6]
    (alice,) = [body for body in map(msgspec.json.decode, made.documents) if body["_id"] == ALICE]
    assert alice["held"] == 5
    counted = await store.aggregate("blocks", [{"$count": "blocks"}])
    assert [msgspec.json.decode(body) for body in counted.documents] == [{"blocks": 6}]
    first = await store.aggregate("blocks", [{"$limit": 1}])
    (body,) = [msgspec.json.decode(body) for body in first.documents]
    assert "_id" not in body
    nothing = await store.aggregate("blocks", [{"$match": {"height": {"$gt": 7}}}])
    assert nothing.documents == []


async def test_an_aggregation_sees_nothing_above_the_checkpoint(store: MongoStore) -> None:
    blocks = custody(6)
    await store.project(blocks[:3])
    with (
        mongod.shared().failing(["update"], errorCode=11601),
        pytest.raises(StoreUnavailable),
    ):
        await store.project(blocks[3:])
    made = await store.aggregate("transactions", [{"$group": {"_id": None, "top": {"$max": "$height"}}}])
    assert [msgspec.json.decode(body) for body in made.documents] == [{"_id": None, "top": 3}]
    assert [each["height"] for each in await found(store, "blocks", {})] == [1, 2, 3]
    assert len(await store.search_assets("nothing", 10)) == 0


async def test_what_an_aggregation_makes_is_bounded(
    store: MongoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.project(chain(5))
    monkeypatch.setattr(finding, "SEARCH_LIMIT_MAX", 9)
    with pytest.raises(InvalidSearch, match="more than 9 documents or 16 MiB"):
        await store.aggregate("assets", [{"$sort": {"id": 1}}])
    monkeypatch.setattr(finding, "SEARCH_LIMIT_MAX", 10)
    assert len((await store.aggregate("assets", [{"$sort": {"id": 1}}])).documents) == 10
    monkeypatch.setattr(finding, "PAGE_BYTES_MAX", 1024)
    with pytest.raises(InvalidSearch, match="more than 10 documents"):
        await store.aggregate("assets", [{"$sort": {"id": 1}}])


async def test_a_question_that_takes_too_much_memory_is_refused(store: MongoStore) -> None:
    text = "x" * 900_000
    for height in range(1, 8):
        made = [create(100 * height + number, {"t": text, "n": number}) for number in range(20)]
        await store.project([block_of(height, *made)])
    with pytest.raises(InvalidSearch, match="takes more memory than MongoDB allows"):
        await found(store, "assets", {}, sort={"data.n": 1}, limit=10_000)
    with pytest.raises(InvalidSearch, match=r"more memory|larger than MongoDB allows"):
        await store.aggregate("assets", [{"$group": {"_id": None, "all": {"$push": "$data.t"}}}])
    page = await store.find(question("assets", {}, limit=10_000))
    assert 16 <= len(page.documents) < 20
    assert page.next is not None


async def test_what_mongodb_cannot_compute_is_told(store: MongoStore) -> None:
    await store.project(chain(1))
    with pytest.raises(InvalidSearch, match=r"MongoDB can't answer this question: .*divide by zero"):
        await store.aggregate("assets", [{"$project": {"x": {"$divide": ["$height", 0]}}}])


@pytest.mark.parametrize(
    ("code", "error", "told"),
    [
        (50, SearchTimeout, "too broad: it was not done after 5 s"),
        (11601, StoreUnavailable, "can't be used"),
        (175, StoreUnavailable, "can't be used"),
        (292, InvalidSearch, "more memory"),
        (2, InvalidSearch, "can't answer this question"),
    ],
)
async def test_errors_of_the_server_have_their_meaning(
    store: MongoStore, code: int, error: type[Exception], told: str
) -> None:
    await store.project(chain(1))
    asked = question("assets", {"data.text": "x"}, {"data.text": 1})
    with (
        mongod.shared().failing(["find", "aggregate"], after=1, errorCode=code),
        pytest.raises(error, match=told),
    ):
        await store.find(asked)
    with (
        mongod.shared().failing(["aggregate"], errorCode=code),
        pytest.raises(error, match=told),
    ):
        await store.search_assets("common", 10)
    assert await found(store, "assets", {"data.text": "x"}) == []


async def test_every_question_has_a_bound_on_its_time(store: MongoStore) -> None:
    await store.project(chain(5))
    with mongod.shared().out_of_time():
        for ask in (
            lambda: found(store, "assets", {"data.text": "x"}),
            lambda: found(store, "assets", {}, sort={"data.text": 1}),
            lambda: store.aggregate("assets", [{"$count": "n"}]),
            lambda: store.search_assets("common", 10),
        ):
            with pytest.raises(SearchTimeout, match="too broad: it was not done after 5 s"):
                await ask()
        # What has no such bound is not a question.
        assert await store.height() == 5
        assert await store.project(chain(6)) == 6


async def test_a_full_page_does_not_wait_for_the_next_document(
    store: MongoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.project(chain(5))
    asked = question("assets", {"data.text": "common n2"}, limit=1)
    assert (await store.find(asked)).next is None
    with mongod.shared().failing(["find"], after=2, errorCode=50):
        page = await store.find(asked)
    assert len(page.documents) == 1
    assert page.next is not None
    last = await store.find(msgspec.structs.replace(asked, after=page.next))
    assert (list(last.documents), last.next) == ([], None)


async def test_heights_and_ids_are_looked_up_not_searched(
    store: MongoStore, database: str, client: Client
) -> None:
    await store.project(chain(300))
    client.admin.command("profile", 0)
    client[database].command("profile", 2)
    try:
        key = name_of(20).hex()
        for collection, asked in (
            ("assets", {"height": {"$gte": 20, "$lt": 22}}),
            ("blocks", {"height": 7}),
            ("assets", {"id": key}),
            ("metadata", {"id": {"$in": [key, "x"]}}),
            ("transactions", {"asset_id": key}),
            ("outputs", {"transaction_id": key, "output_index": 0}),
            ("outputs", {"asset_id": key}),
        ):
            assert await found(store, collection, asked)
        looked = list(
            client[database]["system.profile"].find({"op": "query", "ns": {"$ne": f"{database}.state"}})
        )
    finally:
        client[database].command("profile", 0)
    assert len(looked) == 7
    assert all(each["docsExamined"] <= 4 for each in looked), [each["docsExamined"] for each in looked]


async def test_the_loop_turns_while_a_large_page_is_answered(store: MongoStore) -> None:
    for height in range(1, 11):
        made = [create(10_000 * height + number, {"t": "a" * 1_000}) for number in range(1_000)]
        await store.project([block_of(height, *made)])
    gaps = []

    async def turn() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    turning = asyncio.create_task(turn())
    page = await store.find(question("assets", {}, limit=10_000))
    turning.cancel()
    assert len(page.documents) == 10_000
    assert max(gaps) < 0.1


# --- rankings ---------------------------------------------------------------------------------------------


async def test_pages_of_a_search_are_ranked_once(store: MongoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.project(chain(1_000))
    ranked = []
    rank = searching._rank

    async def counted(*asked: Any) -> searching.Ranking:
        ranked.append(asked[-1])
        return await rank(*asked)

    monkeypatch.setattr(searching, "_rank", counted)
    first = await store.search_assets("common", 10)
    second = await store.search_assets("common", 10, first[-1].cursor)
    whole = await store.search_assets("common", 10_000)
    assert len(whole) == 2_000
    assert whole[:20] == first + second
    assert ranked == [10, 10_000]


async def test_rankings_are_bounded_and_not_of_a_store_before(
    store: MongoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "RANKINGS_KEPT", 2)
    await store.project(chain(2))
    for word in ("common", "n2", "n3", "n4"):
        assert await store.search_assets(word, 10)
    assert len(store._rankings._kept) == 2
    await store.rebuild("a test wants it", 0)
    await store.project([*chain(1), block(2, {9: {"text": "n4 other"}})])
    assert [each.id for each in await store.search_assets("n4", 10)] == [name_of(9).hex()]


async def test_a_search_reaches_so_deep_only(store: MongoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.project(chain(10))
    monkeypatch.setattr(searching, "RANKED_MAX", 15)
    first = await store.search_assets("common", 10)
    assert len(await store.search_assets("common", 5, first[-1].cursor)) == 5
    with pytest.raises(InvalidSearch, match="name rarer words"):
        await store.search_assets("common", 6, first[-1].cursor)


# --- whose database it is ---------------------------------------------------------------------------------


async def test_indexes_are_made_at_the_start(store: MongoStore, database: str, client: Client) -> None:
    made = {name: set(client[database][name].index_information()) for name in COLLECTIONS}
    assert made == {
        "transactions": {"_id_", "id_hashed", "asset_id_hashed"},
        "assets": {"_id_", "id_hashed", "text"},
        "metadata": {"_id_", "id_hashed", "text"},
        "outputs": {
            "_id_",
            "transaction_id_hashed_output_index_1",
            "asset_id_hashed",
            "public_keys_1",
        },
        "blocks": {"_id_"},
    }
    await store.project(chain(3))
    client[database].assets.drop_index("text")
    client[database].outputs.drop_index("public_keys_1")
    assert len(await store.indexes()) == 2
    again = await opened(database)
    assert await again.indexes() == []
    assert len(await again.search_assets("common", 10)) == 6
    await again.close()


async def test_text_search_is_switched_without_a_rebuild(
    store: MongoStore, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    await store.project(chain(3))
    for wanted in (False, True):
        again = await opened(database, text_search=wanted)
        assert (await again.status()).text_search is wanted
        assert (await again.checkpoint()).height == 3
        assert await differences(again, chain(3)) == []
        await again.close()
    assert "rebuilt" not in caplog.text


async def test_an_index_of_somebodys_own_is_left_alone(
    store: MongoStore, database: str, client: Client
) -> None:
    client[database].assets.create_index({"data.lot": 1}, name="lots")
    await store.project(chain(3))
    again = await opened(database)
    await again.project(chain(4))
    assert "lots" in client[database].assets.index_information()
    assert await again.indexes() == []
    await again.close()


async def test_a_unique_index_of_somebodys_own_is_told(
    store: MongoStore, database: str, client: Client
) -> None:
    client[database].assets.create_index({"data.lot": 1}, name="lots", unique=True)
    with pytest.raises(StoreUnavailable, match="MongoDB can't be used"):
        await store.project(chain(3))
    client[database].assets.drop_index("lots")
    await store.project(chain(3))
    assert await differences(store, chain(3)) == []


@pytest.mark.parametrize("name", ["assets", "transactions", "blocks"])
async def test_collections_of_somebody_else_are_refused_and_kept(
    database: str, client: Client, name: str
) -> None:
    client[database][name].insert_one({"precious": True})
    with pytest.raises(StoreUnavailable, match=f"has a collection {name} that is not of a query store"):
        await opened(database)
    assert client[database][name].count_documents({"precious": True}) == 1


@pytest.mark.parametrize("names", [["assets"], ["state"], ["state", *COLLECTIONS]])
async def test_what_is_dropped_under_the_writer_is_noticed(
    store: MongoStore, database: str, client: Client, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("query.mongo.store.FAULT_LOOK_S", 0.0)
    await store.project(chain(2))
    assert await store.fault() is None
    for name in names:
        client[database].drop_collection(name)
    reason = await store.fault()
    assert reason is not None
    assert "away" in reason or "no longer" in reason
    await store.rebuild(reason, 3)
    assert await store.fault() is None
    assert await store.checkpoint() == Checkpoint(0, b"", 3)
    await store.project(chain(3))
    assert await differences(store, chain(3)) == []


async def test_documents_without_their_state_are_made_anew(
    store: MongoStore, database: str, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    await store.project(chain(2))
    for spoil in (
        lambda state: state.delete_many({}),
        lambda state: state.update_many({}, {"$set": {"format": layout.FORMAT + 1}}),
        lambda state: state.update_many({}, {"$set": {"height": "2"}}),
        lambda state: state.update_many({}, {"$set": {"collections.assets": "00"}}),
    ):
        spoil(client[database].state)
        again = await opened(database)
        assert await again.checkpoint() == Checkpoint(0, b"")
        await again.project(chain(2))
        assert await differences(again, chain(2)) == []
        await again.close()
    assert caplog.text.count("is rebuilt from height 0") == 4


async def test_a_state_that_cannot_be_read_is_damage(
    store: MongoStore, database: str, client: Client
) -> None:
    await store.project(chain(2))
    client[database].state.update_many({}, {"$set": {"mark": "text"}})
    for ask in (store.checkpoint, store.height, lambda: store.project(chain(3, start=1))):
        reader = MongoStore.open_reader(mongod.shared().uri, database)
        with pytest.raises(StoreDamaged, match="checkpoint that can't be read"):
            await (reader.checkpoint() if ask is store.project else ask())
        await reader.close()
        store._state = None
    client[database].state.delete_many({})
    with pytest.raises(StoreDamaged, match="lost its state"):
        await store.checkpoint()
    reader = MongoStore.open_reader(mongod.shared().uri, database)
    with pytest.raises(StoreDamaged, match="lost its state"):
        await reader.checkpoint()
    await reader.close()


async def test_a_rebuild_that_was_cut_off_is_begun_again(
    store: MongoStore, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.project(chain(3))
    for command in ("drop", "create", "createIndexes"):
        with (
            mongod.shared().failing([command], closeConnection=True),
            pytest.raises(StoreUnavailable),
        ):
            await store.rebuild("a test wants it", 5)
        reader = MongoStore.open_reader(mongod.shared().uri, database)
        with pytest.raises(StoreUnavailable, match="at block 0 of 5"):
            await reader.height()
        await reader.close()
        again = await opened(database)
        # It still refuses questions until it is built.
        assert await again.checkpoint() == Checkpoint(0, b"", 5)
        await again.project(chain(5))
        assert await again.indexes() == []
        assert await differences(again, chain(5)) == []
        await again.close()


# --- checking ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("collection", COLLECTIONS)
async def test_whatever_is_changed_is_named(
    store: MongoStore, database: str, client: Client, collection: str
) -> None:
    blocks = custody(4)
    await store.project(blocks)
    kept = client[database][collection]
    one = kept.find().sort("_id").skip(1).limit(1)[0]
    number = one["height"]
    for changed in (
        {**one, "height": float(number)},
        {**one, "height": number + 1},
        {**one, "extra": None},
        {key: value for key, value in one.items() if key != "height"},
        {**one, "height": bson.Decimal128(str(number))},
    ):
        kept.replace_one({"_id": one["_id"]}, changed)
        (told,) = await differences(store, blocks)
        assert told.startswith(f"different {collection}/{number}"), changed
    kept.delete_one({"_id": one["_id"]})
    (told,) = await differences(store, blocks)
    assert told.startswith(f"missing {collection}/{number}")
    kept.insert_one(one)
    for identifier in (
        "text",
        5,
        None,
        b"x",
        bson.Binary(bytes(one["_id"]), 5),
        bson.MinKey(),
        bson.MaxKey(),
    ):
        kept.insert_one({**one, "_id": identifier})
        (told,) = await differences(store, blocks)
        assert told == f"extra {collection}/?" or told.startswith(f"extra {collection}/"), identifier
        kept.delete_one({"_id": identifier})
    assert await differences(store, blocks) == []


async def test_strays_have_their_place(store: MongoStore, database: str, client: Client) -> None:
    await store.project(custody(3))
    kept = client[database].outputs
    one = kept.find_one()
    assert one is not None
    for height in (0, 4, 2**40):
        kept.insert_one({**one, "_id": bson.Binary(height.to_bytes(8, "big") + bytes(8))})
    places = [each.place async for each in store.strays("outputs", 3)]
    assert places == [Place(0), Place(4), Place(2**40)]
    assert [each async for each in store.strays("assets", 3)] == []
    told = [each.place async for each in store.stored("outputs", 2, 2)]
    assert told == sorted(place for place, _ in documents.output_documents(custody(3)[1]))


async def test_collections_that_are_not_its_own_are_told(
    store: MongoStore, database: str, client: Client
) -> None:
    await store.project(chain(2))
    assert await store.indexes() == []
    client[database].drop_collection("blocks")
    assert await store.indexes() == ["The collection blocks is missing"]
    client[database].create_collection("blocks")
    assert await store.indexes() == ["The collection blocks is not the one that the store had"]


# --- trouble with the server ------------------------------------------------------------------------------


async def test_it_goes_on_when_mongod_was_killed(caplog: pytest.LogCaptureFixture) -> None:
    with mongod.own() as server:
        store = await MongoStore.open(server.uri, "bcdb")
        reader = MongoStore.open_reader(server.uri, "bcdb")
        blocks = custody(8)
        await store.project(blocks[:4])
        assert await reader.wait_height(4, 1) == 4
        server.kill()
        for ask in (
            reader.height,
            lambda: reader.find(question("assets", {})),
            lambda: reader.search_assets("x", 10),
            reader.status,
            lambda: reader.wait_height(5, 0.3),
            lambda: store.project(blocks[4:]),
            store.checkpoint,
        ):
            start = time.perf_counter()
            with pytest.raises(StoreUnavailable, match="MongoDB"):
                await ask()
            assert time.perf_counter() - start < 4
        waiting = asyncio.create_task(reader.wait_height(8, 60))
        server.start()
        await store.project(blocks)
        assert await waiting == 8
        assert await differences(reader, blocks) == []
        await store.close()
        await reader.close()


async def test_a_server_that_hangs_does_not_hold_a_reader(
    store: MongoStore, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.project(chain(1))
    monkeypatch.setattr("query.mongo.store.ANSWER_S_MAX", 0.2)
    reader = MongoStore.open_reader(mongod.shared().uri, database)
    assert await reader.height() == 1
    with mongod.shared().failing(["find"], blockConnection=True, blockTimeMS=3_000):
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await reader.height()
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await reader.wait_height(1, 0.1)
    assert await reader.height() == 1
    await reader.close()


async def test_a_server_that_is_not_there_is_told() -> None:
    uri = "mongodb://somebody:secret@%2Fnowhere%2Fmongo.sock/?directConnection=true"
    with pytest.raises(StoreUnavailable, match="can't be reached") as told:
        await MongoStore.open(uri, "bcdb")
    assert "secret" not in str(told.value)
    reader = MongoStore.open_reader(uri, "bcdb")
    with pytest.raises(StoreUnavailable, match="can't be reached"):
        await reader.height()
    await reader.close()


@pytest.mark.parametrize(
    "uri",
    ["", "http://x", "mongodb://a:secret:b@x", "mongodb://x:secret/"],
)
def test_a_uri_that_cannot_be_understood_is_not_quoted(uri: str) -> None:
    with pytest.raises(StoreUnavailable, match="The MongoDB URI of this node can't be used") as told:
        MongoStore.open_reader(uri, "bcdb")
    assert "secret" not in told.value.text


async def test_reading_and_writing_are_of_the_primary_and_the_majority(database: str) -> None:
    uri = mongod.shared().uri + "&readPreference=secondary&w=0&readConcernLevel=available"
    store = await MongoStore.open(uri, database)
    used = store._database
    assert used.write_concern.document["w"] == "majority"
    assert used.read_preference.mongos_mode == "primary"
    await store.project(chain(2))
    assert await differences(store, chain(2)) == []
    await store.close()


def test_the_bounds_fit_each_other() -> None:
    assert asking.SEARCH_MS_MAX < connection.ANSWER_S_MAX * 1000
    assert searching.RANKED_MAX * 100 < 64 * 1024 * 1024
