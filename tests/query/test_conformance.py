"""One suite for both query stores: the same documents, filters, orders, pages and states from either.

MongoDB is the measure.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from query.checking import check
from query.documents import COLLECTIONS, FIELDS, Block, documents
from query.store import (
    SEARCH_CHARS_MAX,
    SEARCH_LIMIT_MAX,
    Checkpoint,
    InvalidCursor,
    InvalidSearch,
    ProjectionGap,
    QueryStore,
    StoreUnavailable,
)
from tests.query.documents import ALICE, BOB, block_of, chain, create, mark_of, name_of, transfer
from tests.query.memory import MemoryLedger
from tests.query.places import KINDS, Place, everything, exactly, pages, question
from tests.support import mongod

TABLE = json.loads((Path(__file__).parent / "mongodb_text.json").read_text())
PARTS = [{"n": 1}, {"n": 2}]
OFF = r"Text search is switched off on this node \(setting text_search\)"


@pytest.fixture
def database() -> Iterator[str]:
    with mongod.shared().database() as name:
        yield name


@pytest.fixture(params=KINDS)
async def place(request: pytest.FixtureRequest, tmp_path: Path, database: str) -> AsyncIterator[Place]:
    place = Place(request.param, tmp_path, database)
    yield place
    await place.close()


@pytest.fixture
async def filled(place: Place) -> QueryStore:
    """A store with the world in it."""
    opened = await place.writer()
    await opened.project(world())
    return opened


def world() -> list[Block]:
    """Bicycles and a boat: made, sold, split, with metadata of all kinds."""
    return [
        block_of(
            1,
            create(1, {"kind": "bicycle", "gears": 7, "tags": ["red", "fast"], "parts": PARTS}),
            create(2, {"kind": "bicycle", "gears": 7.0, "tags": [], "maker": {"city": "Ulm", "name": "Ada"}}),
            create(3, {"kind": "boat", "gears": None, "tags": "red", "crew": [[1, 2], [3]]}, amount=9),
        ),
        block_of(2),
        block_of(
            3,
            create(4, None, {"celsius": 11.5, "ok": True}),
            create(5, ["list", {"kind": "bicycle"}], {"celsius": 12, "ok": False, "a.b": 1, "$x": {"%": 2}}),
            transfer(6, 3, [(3, 0)], {"celsius": "cold"}, amounts=(4, 5)),
        ),
        block_of(
            4,
            transfer(7, 3, [(6, 1)], {"": {"note": "q\"uote"}, "big": 2**53 + 1}, owner=ALICE),
            create(8, {"kind": "Bicycle", "gears": -1}, [1, [2], {"a": None}]),
        ),
    ]  # fmt: skip


def numbers(found: Sequence[Any], field: str = "id") -> list[int]:
    """The numbers of the transactions that documents come from."""
    known = {name_of(number).hex(): number for number in range(1, 200)}
    return [known[document[field]] for document in found]


def shortly(value: Any) -> str:
    return str(value)[:60]


# --- documents and filters --------------------------------------------------------------------------------


@pytest.mark.parametrize("collection", COLLECTIONS)
@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_every_document_is_answered_as_it_is_defined(
    filled: QueryStore, collection: str, limit: int
) -> None:
    ledger = MemoryLedger(world())
    expected = [
        document for block in ledger.chain for _, document in documents(collection, block, ledger.spending)
    ]
    found = await everything(filled, question(collection, {}, limit=limit))
    assert list(map(exactly, found)) == list(map(exactly, expected))
    assert [list(document) for document in found] == [list(FIELDS[collection])] * len(expected)
    backwards = await everything(filled, question(collection, {}, {"height": -1}, limit=limit))
    assert backwards == found[::-1]


ASSETS: list[tuple[Any, list[int]]] = [
    ({"data.kind": "bicycle"}, [1, 2, 5]),
    ({"data.gears": 7}, [1, 2]),
    ({"data.gears": 7.0}, [1, 2]),
    ({"data.gears": None}, [3, 4, 5]),
    ({"data.gears": {"$exists": False}}, [4, 5]),
    ({"data.gears": {"$ne": 7}}, [3, 4, 5, 8]),
    ({"data.gears": {"$gt": -2, "$lt": 7}}, [8]),
    ({"data.gears": {"$not": {"$gte": 0}}}, [3, 4, 5, 8]),
    ({"data.tags": "red"}, [1, 3]),
    ({"data.tags": []}, [2]),
    ({"data.tags": ["red", "fast"]}, [1]),
    ({"data.tags.1": "fast"}, [1]),
    ({"data.tags": {"$in": ["fast", "red"]}}, [1, 3]),
    ({"data.tags": {"$nin": ["fast", None]}}, [2, 3]),
    ({"data.parts.n": 2}, [1]),
    ({"data.parts.n": {"$gt": 1, "$lt": 2}}, [1]),
    ({"data.crew": [3]}, [3]),
    ({"data.crew.0": 2}, []),
    ({"data.maker": {"city": "Ulm", "name": "Ada"}}, [2]),
    ({"data.maker": {"city": "Ulm"}}, []),
    ({"data": None}, [4]),
    ({"$or": [{"data.kind": "boat"}, {"data.gears": {"$lt": 0}}]}, [3, 8]),
    ({"$nor": [{"data.kind": "boat"}, {"data.gears": 7}]}, [4, 5, 8]),
    ({"$and": [{"height": {"$gte": 3}}, {"data.kind": "bicycle"}]}, [5]),
    ({"height": {"$gt": 0.5, "$lt": 3}}, [1, 2, 3]),
    ({"height": {"$gt": 9}}, []),
    ({"height": 4, "position": 1}, [8]),
    ({"height": True}, []),
    ({"id": name_of(5).hex()}, [5]),
    ({"id": {"$in": [name_of(1).hex(), name_of(8).hex(), "x"]}}, [1, 8]),
    ({"data.kind": {"$gte": "b"}}, [1, 2, 3, 5]),
]


@pytest.mark.parametrize(("asked", "expected"), ASSETS, ids=shortly)
async def test_filters_on_assets(filled: QueryStore, asked: Any, expected: list[int]) -> None:
    assert numbers(await everything(filled, question("assets", asked, limit=2))) == expected


OTHERS: list[tuple[str, Any, str, list[int]]] = [
    ("metadata", {"metadata.celsius": {"$gt": 11}}, "id", [4, 5]),
    ("metadata", {"metadata.ok": True}, "id", [4]),
    ("metadata", {"metadata.ok": 1}, "id", []),
    ("metadata", {"metadata.$x.%": 2}, "id", [5]),
    ("metadata", {"metadata": {"$eq": {"$x": {"%": 2}, "a.b": 1, "celsius": 12, "ok": False}}}, "id", [5]),
    ("metadata", {"metadata.big": 2**53 + 1}, "id", [7]),
    ("metadata", {"metadata.big": float(2**53)}, "id", []),
    ("metadata", {"metadata.a": None, "metadata": {"$ne": None}}, "id", [4, 5, 6, 7, 8]),
    ("transactions", {"operation": "TRANSFER"}, "id", [6, 7]),
    ("transactions", {"asset_id": name_of(3).hex()}, "id", [3, 6, 7]),
    ("transactions", {"inputs.fulfills.transaction_id": name_of(6).hex()}, "id", [7]),
    ("transactions", {"inputs.owners_before": ALICE, "height": {"$lte": 1}}, "id", [1, 2, 3]),
    ("transactions", {"time": {"$gt": "2026-01-01T00:00:03"}}, "id", [4, 5, 6, 7, 8]),
    ("outputs", {"public_keys": BOB}, "transaction_id", [6, 6]),
    ("outputs", {"spent_height": None, "amount": {"$gt": 3}}, "transaction_id", [6]),
    ("outputs", {"spent_by": name_of(7).hex()}, "transaction_id", [6]),
    ("outputs", {"spent_height": {"$lte": 3}}, "transaction_id", [3]),
    ("outputs", {"transaction_id": name_of(6).hex(), "output_index": 1}, "transaction_id", [6]),
]


@pytest.mark.parametrize(
    ("collection", "asked", "field", "expected"), OTHERS, ids=lambda value: str(value)[:60]
)
async def test_filters_on_the_others(
    filled: QueryStore, collection: str, asked: Any, field: str, expected: list[int]
) -> None:
    assert numbers(await everything(filled, question(collection, asked)), field) == expected


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ({"data.gears": 1}, [3, 4, 5, 8, 1, 2]),
        ({"data.gears": -1}, [1, 2, 8, 3, 4, 5]),
        ({"data.tags": 1, "height": -1}, [2, 8, 4, 5, 1, 3]),
        ({"data.kind": -1, "data.gears": 1}, [3, 5, 1, 2, 8, 4]),
        ({"height": -1, "position": 1}, [8, 4, 5, 1, 2, 3]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("limit", [1, 4, 100])
async def test_orders(filled: QueryStore, sort: Any, expected: list[int], limit: int) -> None:
    assert numbers(await everything(filled, question("assets", {}, sort, limit=limit))) == expected


async def test_projections(filled: QueryStore) -> None:
    async def first(projection: Any, asked: Any) -> Any:
        return (await everything(filled, question("assets", asked, projection=projection)))[0]

    one = {"id": name_of(1).hex()}
    assert await first({"data.kind": 1, "data.parts.n": 1}, one) == {
        "data": {"kind": "bicycle", "parts": [{"n": 1}, {"n": 2}]}
    }
    assert await first({"id": 0, "data.tags": 0, "data.parts": 0}, one) == {
        "height": 1,
        "position": 0,
        "data": {"kind": "bicycle", "gears": 7},
    }
    assert await first({"position": 1}, one) == {"position": 0}
    assert await first({"data.crew.x": 1}, {"data.kind": "boat"}) == {"data": {"crew": [[], []]}}


# --- pages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sort", [None, {"height": -1}, {"data.text": 1}])
async def test_later_pages_show_nothing_of_later_blocks(place: Place, sort: Any) -> None:
    opened = await place.writer()
    await opened.project(chain(5))
    asked = question("assets", {}, sort, limit=4)
    seen = []
    after = None
    while True:
        page = await opened.find(msgspec.structs.replace(asked, after=after))
        assert page.height == 5
        seen += [msgspec.json.decode(body)["id"] for body in page.documents]
        await opened.project(chain(1, start=await opened.height() + 1))
        after = page.next
        if after is None:
            break
    assert len(seen) == len(set(seen)) == 10


async def test_a_page_ends_when_it_is_large(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from query.mongo import finding as of_mongo
    from query.sqlite import finding as of_sqlite

    opened = await place.writer()
    await opened.project(chain(5))
    for module in (of_mongo, of_sqlite):
        monkeypatch.setattr(module, "PAGE_BYTES_MAX", 300)
    for sort in (None, {"data.text": -1}):
        found = await pages(opened, question("assets", {}, sort))
        assert [len(page.documents) for page in found] == [3, 3, 3, 1]
    monkeypatch.setattr(of_mongo, "PAGE_BYTES_MAX", 1)
    monkeypatch.setattr(of_sqlite, "PAGE_BYTES_MAX", 1)
    assert len(await pages(opened, question("assets", {}))) == 10


async def test_other_orders_reach_so_deep_only(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from query import cursors
    from query.mongo import finding as of_mongo
    from query.sqlite import finding as of_sqlite

    opened = await place.writer()
    await opened.project(chain(5))
    for module in (of_mongo, of_sqlite, cursors):
        monkeypatch.setattr(module, "SKIP_MAX", 7)
    asked = question("assets", {}, {"data.text": 1}, limit=4)
    first = await opened.find(asked)
    second = await opened.find(msgspec.structs.replace(asked, after=first.next))
    assert len(second.documents) == 3
    with pytest.raises(InvalidSearch, match="reaches 7 documents deep"):
        await opened.find(msgspec.structs.replace(asked, after=second.next))
    assert len(await everything(opened, question("assets", {}, limit=4))) == 10


async def test_a_cursor_is_of_one_question(filled: QueryStore) -> None:
    asked = question("assets", {}, limit=2)
    after = (await filled.find(asked)).next
    assert after is not None
    for other in (
        question("metadata", {}, limit=2, after=after),
        question("assets", {"height": 1}, limit=2, after=after),
        question("assets", {}, {"data.kind": 1}, after=after),
        question("assets", {}, after="x" + after[1:]),
        question("assets", {}, after=""),
    ):
        with pytest.raises(InvalidCursor, match="was not made by this server"):
            await filled.find(other)
    longer = msgspec.structs.replace(asked, limit=50, after=after)
    assert len((await filled.find(longer)).documents) == 4


async def test_a_page_has_a_bound(filled: QueryStore) -> None:
    for limit in (0, SEARCH_LIMIT_MAX + 1):
        with pytest.raises(InvalidSearch, match="A page has from 1 to 10000 documents"):
            await filled.find(question("assets", {}, limit=limit))


# --- text -------------------------------------------------------------------------------------------------


async def test_text_is_found_as_in_the_table(place: Place) -> None:
    opened = await place.writer()
    names = [f"{number:064x}" for number in range(len(TABLE["documents"]))]
    made = [
        msgspec.structs.replace(create(0, value, value), id=bytes.fromhex(name), asset_id=bytes.fromhex(name))
        for name, value in zip(names, TABLE["documents"], strict=True)
    ]
    await opened.project([block_of(1, *made)])
    for asked, expected in TABLE["searches"]:
        for search in (opened.search_assets, opened.search_metadata):
            found = sorted(names.index(item.id) for item in await search(asked, 1000))
            assert found == expected, asked


async def test_text_pages_give_everything_once_while_the_store_grows(place: Place) -> None:
    opened = await place.writer()
    await opened.project(chain(30))
    seen: list[str] = []
    after = None
    while True:
        page = await opened.search_assets("common", 7, after)
        seen += [found.id for found in page]
        if len(page) < 7:
            break
        after = page[-1].cursor
        await opened.project(chain(1, start=await opened.height() + 1))
    assert len(seen) == len(set(seen)) == 60
    assert len(await opened.search_assets("common", 1000)) > 60
    assert await opened.search_assets("the of", 10) == []
    assert await opened.search_assets("common", 0) == []


async def test_a_found_document_is_the_one_that_was_written(filled: QueryStore) -> None:
    (asset,) = await filled.search_assets("Ulm", 10)
    (metadata,) = await filled.search_metadata("uote", 10)
    assert asset.id == name_of(2).hex()
    assert msgspec.json.decode(asset.document) == {
        "data": {"kind": "bicycle", "gears": 7.0, "tags": [], "maker": {"city": "Ulm", "name": "Ada"}},
        "id": asset.id,
    }
    assert msgspec.json.decode(metadata.document)["metadata"] == {"": {"note": 'q"uote'}, "big": 2**53 + 1}
    assert list(msgspec.json.decode(metadata.document)) == ["metadata", "id"]


async def test_searches_have_bounds(filled: QueryStore) -> None:
    with pytest.raises(InvalidSearch, match=f"at most {SEARCH_CHARS_MAX} characters"):
        await filled.search_assets("x" * (SEARCH_CHARS_MAX + 1), 10)
    with pytest.raises(InvalidSearch, match=f"at most {SEARCH_LIMIT_MAX} documents"):
        await filled.search_assets("x", SEARCH_LIMIT_MAX + 1)
    for cursor in ("", "é", "AAAA", "A" * 23, "A" * 10_000, "AAA=\n"):
        with pytest.raises(InvalidCursor, match="was not made by this server"):
            await filled.search_assets("bicycle", 10, cursor)
    for odd in ("\ud800", "\0", '"', "-", "x\0y", "-" * 1000):
        assert await filled.search_assets(odd, 10) == []


async def test_text_search_can_be_switched_off_and_on(place: Place) -> None:
    opened = await place.writer(text_search=False)
    await opened.project(world())
    assert not (await opened.status()).text_search
    with pytest.raises(InvalidSearch, match=OFF):
        await opened.search_assets("bicycle", 10)
    assert len(await everything(opened, question("assets", {"data.kind": "bicycle"}))) == 3
    await place.close()
    opened = await place.writer(text_search=True)
    await opened.project(world())
    assert (await opened.status()).text_search
    assert len(await opened.search_assets("bicycle", 10)) == 4
    await place.close()
    opened = await place.writer(text_search=False)
    with pytest.raises(InvalidSearch, match="switched off"):
        await place.reader().search_assets("bicycle", 10)


# --- states -----------------------------------------------------------------------------------------------


async def differences(opened: QueryStore, blocks: Sequence[Block]) -> list[Any]:
    return [found async for found in check(MemoryLedger(blocks), opened, lambda what, done, total: None)]


async def test_blocks_are_taken_once_and_in_order(place: Place) -> None:
    opened = await place.writer()
    blocks = chain(5)
    assert await opened.project(blocks[:3]) == 3
    assert await opened.project(blocks[1:]) == 5
    assert await opened.project(blocks) == 5
    assert await opened.project([]) == 5
    assert await opened.checkpoint() == Checkpoint(5, mark_of(5))
    with pytest.raises(ProjectionGap, match="next block of the query store is 6, not 7"):
        await opened.project(chain(2, start=7))
    with pytest.raises(ProjectionGap, match="is 7, not 8"):
        await opened.project([*chain(1, start=6), *chain(1, start=8)])
    assert await opened.height() == 5
    assert len(await everything(opened, question("assets", {}))) == 10
    assert await differences(opened, blocks) == []


@pytest.mark.parametrize("cuts", [(1, 2, 3), (2,), (3,), ()])
async def test_what_is_spent_is_told_however_the_blocks_were_cut(place: Place, cuts: tuple[int, ...]) -> None:
    opened = await place.writer()
    blocks = world()
    for start, end in zip((0, *cuts), (*cuts, 4), strict=True):
        await opened.project(blocks[start:end])
    assert await differences(opened, blocks) == []
    status = await opened.status()
    assert (status.kind, status.height, status.target, status.text_search) == (place.kind, 4, 0, True)
    assert dict(status.counts) == {
        "transactions": 8, "assets": 6, "metadata": 8, "outputs": 9, "blocks": 4,
    }  # fmt: skip


async def test_a_store_that_is_being_built_answers_nothing_but_its_status(place: Place) -> None:
    opened, reader = await place.writer(), place.reader()
    await opened.project(chain(5))
    await opened.rebuild("a test wants it", 3)
    assert await opened.checkpoint() == Checkpoint(0, b"", 3)
    await opened.project(chain(2))
    told = "The query store is being built: it is at block 2 of 3"
    questions: list[Callable[[], Awaitable[Any]]] = [
        reader.height,
        lambda: reader.wait_height(1, 0.05),
        lambda: reader.find(question("assets", {})),
        lambda: reader.search_assets("common", 10),
        lambda: reader.search_metadata("remark", 10),
    ]
    for ask in questions:
        with pytest.raises(StoreUnavailable, match=told):
            await ask()
    status = await reader.status()
    assert (status.height, status.target, status.counts["assets"]) == (2, 3, 4)
    await opened.project(chain(4))
    assert await opened.checkpoint() == Checkpoint(4, mark_of(4))
    assert len(await reader.search_assets("common", 10)) == 8
    assert await differences(opened, chain(4)) == []


async def test_waiting_for_a_height(place: Place) -> None:
    opened, reader = await place.writer(), place.reader()
    waiting = [asyncio.create_task(reader.wait_height(height, 30)) for height in (1, 2, 3)]
    await asyncio.sleep(0.01)
    await opened.project(chain(2))
    assert await waiting[0] == await waiting[1] == 2
    assert not waiting[2].done()
    assert await reader.wait_height(3, 0.1) == 2
    await opened.project(chain(1, start=3))
    assert await waiting[2] == 3


async def test_a_reader_may_come_before_the_store(place: Place) -> None:
    reader = place.reader()
    for ask in (reader.height, reader.status, lambda: reader.search_assets("x", 1)):
        with pytest.raises(StoreUnavailable):
            await ask()
    with pytest.raises(StoreUnavailable):
        await reader.wait_height(1, 0.1)
    waiting = asyncio.create_task(reader.wait_height(1, 30))
    opened = await place.writer()
    await opened.project(chain(1))
    assert await waiting == 1
    assert len(await reader.search_assets("common", 10)) == 2


async def test_it_is_still_there_when_it_is_opened_again(place: Place) -> None:
    opened = await place.writer()
    await opened.project(world())
    await place.close()
    opened = await place.writer()
    assert await opened.fault() is None
    assert await opened.checkpoint() == Checkpoint(4, mark_of(4))
    assert await differences(opened, world()) == []
