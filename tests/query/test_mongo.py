"""Whose database it is, what is noticed in it, and trouble with the server.

Everything runs against a real mongod.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import bson
import pytest

from query import documents
from query.documents import COLLECTIONS, Place
from query.mongo import MongoStore, asking, connection, layout, searching
from query.store import (
    Checkpoint,
    StoreDamaged,
    StoreUnavailable,
)
from tests.query.documents import chain
from tests.query.mongo import custody, differences, opened, question
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


async def test_indexes_that_are_dropped_are_made_again(
    store: MongoStore, database: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("query.mongo.store.FAULT_LOOK_S", 0.0)
    await store.project(chain(2))
    client[database]["assets"].drop_indexes()
    with pytest.raises(StoreUnavailable, match="index"):
        await store.search_assets("common", 1)
    assert await store.fault() is None
    assert len(await store.search_assets("common", 1)) == 1
    assert list(await store.indexes()) == []


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


@pytest.mark.parametrize("name", ["", "a b", "a.b", "$x", "a/b"])
def test_a_name_that_no_database_can_have_is_told(name: str) -> None:
    with pytest.raises(StoreUnavailable, match="A MongoDB database can't be called"):
        MongoStore.open_reader(mongod.shared().uri, name)


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
