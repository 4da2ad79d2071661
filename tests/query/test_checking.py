"""The check of a store: every way in which it can differ from the ledger is named, and nothing else."""

import copy
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from query import checking
from query.checking import Difference, check, digest
from query.documents import COLLECTIONS, Block, Place
from query.sqlite import SqliteStore
from query.store import Checkpoint, QueryStore, Stored, StoreUnavailable
from tests.query.documents import block, block_of, create, name_of, transfer
from tests.query.memory import MemoryLedger, MemoryStore
from tests.support import mongod

DATA = {"name": "bicycle", "parts": [{"n": 1}, {"n": 2.0}], "on": True, "none": None}


def ledger() -> list[Block]:
    """Six blocks; output 0 of number 1 is spent in block 3, output 1 of number 30 in block 6."""
    return [
        block_of(1, create(1, DATA, {"note": "x"}), create(2, None)),
        block_of(2),
        block_of(3, transfer(30, 1, [(1, 0)], amounts=(1, 2))),
        block(4, {40: {"a": 1}, 41: {"a": 2}}),
        block(5, {50: {"a": 1}}),
        block_of(6, transfer(60, 1, [(30, 1)], {"note": "y"})),
    ]


async def filled(height: int = 6) -> tuple[MemoryLedger, MemoryStore]:
    source, store = MemoryLedger(ledger()), MemoryStore()
    await store.project(source.chain[:height])
    return source, store


async def differences(source: MemoryLedger, store: Any) -> list[Difference]:
    return [found async for found in check(source, store, lambda what, done, total: None)]


async def the_only(source: MemoryLedger, store: Any) -> Difference:
    (found,) = await differences(source, store)
    return found


def change(store: MemoryStore, collection: str, number: int, **fields: Any) -> None:
    kept = store.kept[collection]
    kept[number] = Stored(kept[number].place, {**copy.deepcopy(kept[number].document), **fields})


@pytest.mark.parametrize("height", range(7))
async def test_a_true_store_has_no_differences_however_far_it_is(height: int) -> None:
    source, store = await filled(height)
    assert await differences(source, store) == []


async def test_an_empty_ledger_has_an_empty_store() -> None:
    assert await differences(MemoryLedger([]), MemoryStore()) == []


@pytest.mark.parametrize("documents_max", [1, 7, 5_000])
async def test_a_missing_document_is_named(documents_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "RANGE_DOCUMENTS_MAX", documents_max)
    for collection in COLLECTIONS:
        source, store = await filled()
        gone = [stored.place for stored in store.kept[collection]]
        store.kept[collection] = []
        found = await differences(source, store)
        assert {difference.kind for difference in found} == {"missing"}
        assert len(found) == len(gone)
    assert [difference.where for difference in found] == [f"blocks/{height}" for height in range(1, 7)]


async def test_a_missing_document_tells_its_transaction() -> None:
    source, store = await filled()
    del store.kept["outputs"][3]
    found = await the_only(source, store)
    assert found.kind == "missing"
    assert found.where == "outputs/3/0/1"
    assert name_of(30).hex() in found.what


@pytest.mark.parametrize(
    ("collection", "number", "fields", "named"),
    [
        ("transactions", 0, {"operation": "TRANSFER"}, '`operation` is "TRANSFER", it should be "CREATE"'),
        ("transactions", 0, {"inputs": []}, "`inputs` is [], it should be [{"),
        (
            "assets",
            0,
            {"data": {**DATA, "name": "bicycld"}},
            '`data.name` is "bicycld", it should be "bicycle"',
        ),
        ("assets", 0, {"data": {**DATA, "on": 1}}, "`data.on` is 1, it should be true"),
        ("assets", 0, {"data": {**DATA, "parts": [{"n": 1.0}, {"n": 2.0}]}}, "`data.parts.0.n` is 1.0"),
        ("assets", 0, {"data": {**DATA, "parts": [{"n": 1}]}}, "`data.parts` is"),
        ("assets", 0, {"data": {**DATA, "more": {}}}, "`data.more` should not be there, it is {}"),
        ("metadata", 0, {"metadata": {}}, '`metadata.note` is missing, it should be "x"'),
        ("outputs", 0, {"amount": 2}, "`amount` is 2, it should be 1"),
        ("outputs", 0, {"spent_height": None, "spent_by": None}, "`spent_height` is null, it should be 3"),
        ("outputs", 1, {"spent_height": 3}, "`spent_height` is 3, it should be null"),
        ("blocks", 1, {"hidden": 1}, "`hidden` should not be there, it is 1"),
        ("blocks", 1, {"time": datetime.now(UTC)}, "`time` is a datetime, it should be"),
        ("blocks", 1, {"hash": b"bytes"}, "`hash` is a bytes, it should be"),
        ("metadata", 1, {"metadata": float("nan")}, "`metadata` is a float, it should be null"),
    ],
)
async def test_a_different_document_tells_in_what(
    collection: str, number: int, fields: dict[str, Any], named: str
) -> None:
    source, store = await filled()
    change(store, collection, number, **fields)
    found = await the_only(source, store)
    assert found.kind == "different"
    assert found.where.startswith(f"{collection}/")
    assert named in found.what


async def test_many_differences_of_one_document_are_not_all_told() -> None:
    source, store = await filled()
    change(store, "transactions", 0, **dict.fromkeys(("id", "asset_id", "operation", "time", "height")))
    assert (await the_only(source, store)).what.endswith("; and more")
    change(store, "transactions", 0, id="x" * 10_000)
    assert len((await the_only(source, store)).what) < 1_000


async def test_what_is_there_twice_or_should_not_be_there_is_named() -> None:
    source, store = await filled()
    first = store.kept["assets"][0]
    store.kept["assets"] += [
        first,
        Stored(Place(1, 7), first.document),
        Stored(Place(0, 0), first.document),
        Stored(Place(9, 0), first.document),
        Stored(None, {"_id": object()}),
    ]
    found = await differences(source, store)
    assert [(difference.kind, difference.where) for difference in found] == [
        ("double", "assets/1/0"),
        ("extra", "assets/1/7"),
        ("extra", "assets/0/0"),
        ("extra", "assets/9/0"),
        ("extra", "assets/?"),
    ]


async def test_what_a_killed_projector_left_is_no_difference_if_it_is_right() -> None:
    source, store = await filled(3)
    store.write(source.chain[3])
    store.write(source.chain[5])  # spends an output of block 3
    assert await differences(source, store) == []
    change(store, "outputs", 4, amount=7)
    change(store, "metadata", 3, metadata=0)
    assert {(found.kind, found.where) for found in await differences(source, store)} == {
        ("different", "outputs/4/0/0"),
        ("different", "metadata/4/0"),
    }


async def test_a_spending_beyond_the_checkpoint_may_not_be_another() -> None:
    source, store = await filled(3)
    store.output(name_of(30), 1).update(spent_height=6, spent_by="00" * 32)
    assert (await the_only(source, store)).where == "outputs/3/0/1"


async def test_the_checkpoint_must_be_one_of_the_ledger() -> None:
    source, store = await filled()
    store.at = Checkpoint(6, b"other", 6)
    found = await the_only(source, store)
    assert (found.kind, found.where) == ("checkpoint", "checkpoint")
    assert b"other".hex() in found.what
    store.at = Checkpoint(8, b"other")
    assert "at block 8, but the ledger ends at block 6" in (await the_only(source, store)).what
    store.at = Checkpoint(6, source.chain[5].mark, 9)
    assert "waits for block 9" in (await the_only(source, store)).what


async def test_what_cannot_be_read_is_named_and_the_rest_is_checked() -> None:
    source, store = await filled()
    store.unreadable = {("assets", 4), ("outputs", 1)}
    change(store, "assets", 3, data=None)
    change(store, "assets", 4, data=None)
    found = await differences(source, store)
    assert {(difference.kind, difference.where) for difference in found} == {
        ("damaged", "assets/4"),
        ("different", "assets/5/0"),
        ("damaged", "outputs/1"),
    }


async def test_a_flood_of_differences_is_told_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "RANGE_DOCUMENTS_MAX", 5)
    source, store = await filled()
    flood = [Stored(Place(1, position), {}) for position in range(10, 60)]
    store.kept["metadata"] = [*flood, *store.kept["metadata"]]
    found = await differences(source, store)
    assert [difference.kind for difference in found] == ["extra"] * 50
    # Damage after some were told: they are not told twice.
    store.unreadable = {("metadata", 3)}
    found = await differences(source, store)
    assert sorted(difference.kind for difference in found) == ["damaged"] + ["extra"] * 50


async def test_faults_of_indexes_are_told_and_progress_too() -> None:
    source, store = await filled()
    store.index_faults = ["the index of words lacks `bicycle`"]
    reports: list[tuple[str, int, int]] = []
    found = [each async for each in check(source, store, lambda *report: reports.append(report))]
    assert found == [Difference("index", "indexes", "the index of words lacks `bicycle`")]
    assert reports[0][0] == "blocks"
    assert ("blocks", 6, 6) in reports
    assert reports[-1] == ("indexes", 1, 1)


async def test_a_store_that_is_away_is_an_error() -> None:
    source, store = await filled()

    async def away() -> Sequence[str]:
        raise StoreUnavailable("no answer")

    store.indexes = away  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await differences(source, store)


floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | floats | st.text()
json = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


@given(st.dictionaries(st.text(), json), st.dictionaries(st.text(), json))
def test_a_digest_is_that_of_the_value(one: dict[str, Any], other: dict[str, Any]) -> None:
    backwards = dict(reversed(one.items()))
    assert digest(one) == digest(backwards) != b""
    same = msgspec.json.encode(one, order="deterministic") == msgspec.json.encode(
        other, order="deterministic"
    )
    assert (digest(one) == digest(other)) is same


@pytest.mark.parametrize("value", [b"x", datetime.now(UTC), float("nan"), float("inf"), (1,), {1}, object()])
def test_what_is_no_json_has_no_digest(value: object) -> None:
    assert digest({"a": value}) == b""


Opened = tuple[QueryStore, QueryStore]


@pytest.fixture(params=["sqlite", "mongodb"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    """An empty store for its writer and for a reader."""
    writer: QueryStore
    reader: QueryStore
    if request.param == "sqlite":
        path = tmp_path / "query.sqlite"
        writer, reader = SqliteStore.open(path), SqliteStore.open_reader(path)
        yield writer, reader
        await reader.close()
        await writer.close()
        return
    from query.mongo import MongoStore

    server = mongod.shared()
    with server.database() as name:
        writer = await MongoStore.open(server.uri, name)
        reader = MongoStore.open_reader(server.uri, name)
        yield writer, reader
        await reader.close()
        await writer.close()


async def test_both_stores_can_be_checked(opened: Opened) -> None:
    writer, reader = opened
    source = MemoryLedger(ledger())
    for height in range(1, 7):
        await writer.project(source.chain[:height])
        assert await differences(source, writer) == []
        assert await differences(source, reader) == []
    other = [*source.chain[:5], block(6, {61: {"a": 1}})]
    assert {found.kind for found in await differences(MemoryLedger(other), reader)} == {
        "missing",
        "different",
    }
    shorter = MemoryLedger(source.chain[:5])
    found = await differences(shorter, reader)
    assert [each.kind for each in found if each.where == "checkpoint"] == ["checkpoint"]
    assert {each.where for each in found if each.kind == "extra"} == {
        "transactions/6/0",
        "metadata/6/0",
        "outputs/6/0/0",
        "blocks/6",
    }
