"""Questions to the MongoDB store beside those that both stores share: what is only its own, and its bounds.

Everything runs against a real mongod.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from query.mongo import MongoStore, finding, searching
from query.store import (
    InvalidSearch,
    SearchTimeout,
    StoreUnavailable,
)
from tests.query.documents import ALICE, block, block_of, chain, create, name_of
from tests.query.mongo import custody, found, opened, question
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
    monkeypatch.setattr(searching, "RANKED_KEPT_MAX", 3)
    for _ in range(2):
        assert len(await store.search_assets("common", 10)) == 4
        assert len(store._rankings._kept) == 1
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
