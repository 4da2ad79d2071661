"""What the embedded store holds, document by document, and that no change of its file goes unnoticed."""

import random
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from query.documents import COLLECTIONS, Block, Document, Place, Spending, documents
from query.sqlite import SqliteStore, checking
from query.store import StoreUnavailable
from tests.query.documents import ALICE, block_of, create, name_of, transfer

FLIPS = 250


def custody() -> Sequence[Block]:
    """Assets that change hands within a block and later, in parts, with several owners and none."""
    several = create(3, {"text": "café “corps”", "n": [1, 1.0, 1e16, None, {"deep": "copper"}]}, {"a": {}})
    return [
        block_of(1, create(1, {"text": "common copper"}, {"note": "first"}), create(2, "just a text")),
        block_of(2),
        block_of(
            3,
            several,
            transfer(4, 1, [(1, 0)], {"note": "second"}, amounts=(1, 2, 3)),
            transfer(5, 1, [(4, 2), (4, 0)], None, amounts=(4,), owner=ALICE),
        ),
        block_of(4, create(6, {"text": "common"}, [["nested"], "note"], amount=9 * 10**18)),
        block_of(5, transfer(7, 3, [(3, 0)]), transfer(8, 1, [(5, 0)], {"note": "third"}, owner=ALICE)),
    ]


def spending(chain: Sequence[Block]) -> dict[tuple[bytes, int], Spending]:
    return {
        (each.fulfills.transaction_id, each.fulfills.output_index): Spending(block.height, found.id)
        for block in chain
        for found in block.transactions
        for each in found.inputs
        if each.fulfills is not None
    }


def expected(chain: Sequence[Block], collection: str) -> list[tuple[Place | None, Document]]:
    spent = spending(chain)
    return [
        pair
        for block in chain
        for pair in documents(collection, block, lambda name, index: spent.get((name, index)))
    ]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "query.sqlite")
    await opened.project(custody())
    yield opened
    await opened.close()


async def held(store: SqliteStore, collection: str, first: int = 1, last: int = 9) -> list[Any]:
    return [(found.place, found.document) async for found in store.stored(collection, first, last)]


@pytest.mark.parametrize("batches", [1, 2, 5])
@pytest.mark.parametrize("part", [1, 2, 1000])
async def test_it_tells_every_document_in_order(
    batches: int, part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "PART_DOCUMENTS_MAX", part)
    store = SqliteStore.open(tmp_path / "query.sqlite")
    chain = custody()
    for start in range(0, 5, -(-5 // batches)):
        await store.project(chain[start : start + -(-5 // batches)])
    for collection in COLLECTIONS:
        whole = expected(chain, collection)
        assert await held(store, collection) == whole
        for first, last in ((1, 1), (2, 4), (3, 3), (5, 9), (6, 9), (4, 3)):
            some = [pair for pair in whole if pair[0] and first <= pair[0].height <= last]
            assert await held(store, collection, first, last) == some
        assert [found async for found in store.strays(collection, 5)] == []
        late = [found.place async for found in store.strays(collection, 3)]
        assert late == [place for place, _ in whole if place and place.height > 3]
    assert await store.indexes() == []
    status = await store.status()
    assert status.counts == {collection: len(expected(chain, collection)) for collection in COLLECTIONS}
    await store.close()


async def test_field_order_is_that_of_the_answers(store: SqliteStore) -> None:
    for collection in COLLECTIONS:
        for (_, document), (_, wanted) in zip(
            await held(store, collection), expected(custody(), collection), strict=True
        ):
            assert list(document) == list(wanted)


async def test_an_empty_store_is_in_order(tmp_path: Path) -> None:
    for text_search in (True, False):
        store = SqliteStore.open(tmp_path / "query.sqlite", text_search=text_search)
        assert await store.indexes() == []
        assert [found for collection in COLLECTIONS async for found in store.stored(collection, 1, 9)] == []
        await store.close()


async def test_documents_at_no_height_are_strays(store: SqliteStore) -> None:
    connection = store._written()
    for number in (-(2**63), -1, 5, 2**63 - 1):
        connection.execute("INSERT INTO assets SELECT ?, id, plain, sum, data FROM assets LIMIT 1", (number,))
    connection.execute("INSERT INTO blocks SELECT -4, time, hash, app_hash, proposer, 0 FROM blocks LIMIT 1")
    places = [found.place async for found in store.strays("assets", 5)]
    assert places == [None, None, None, Place(2**39 - 1, 2**24 - 1)]
    assert [found.place async for found in store.strays("blocks", 5)] == [None]
    assert len(await held(store, "assets")) == 4
    assert await store.indexes() != []


async def test_what_cannot_be_read_is_told_as_such(store: SqliteStore) -> None:
    connection = store._written()
    connection.execute(
        "UPDATE transactions SET inputs = x'ff', operation = x'ff' WHERE id = ?", (name_of(1),)
    )
    connection.execute("UPDATE transactions SET outputs = 'text' WHERE id = ?", (name_of(2),))
    connection.execute("UPDATE assets SET data = x'7b7d' WHERE id = ?", (name_of(3),))
    connection.execute("UPDATE blocks SET hash = NULL WHERE height = 4")
    (_, first), *_ = await held(store, "transactions")
    assert first["id"] == name_of(1).hex()
    assert "operation" not in first
    assert "operation (unreadable)" in first
    assert "inputs (unreadable)" in first
    assert "outputs (unreadable)" in (await held(store, "outputs"))[1][1]
    assert "data (unreadable)" in (await held(store, "assets"))[2][1]
    assert "hash (unreadable)" in (await held(store, "blocks"))[3][1]


TAMPERINGS = {
    "an owner less": "DELETE FROM owners WHERE output_index = 2",
    "another owner": "UPDATE owners SET owner = x'31' WHERE output_index = 1",
    "an owner more": "INSERT INTO owners VALUES (x'3131', 7, 7)",
    "a spend less": "DELETE FROM spends WHERE output_index = 2",
    "another spender": "UPDATE spends SET by = by + 1 WHERE output_index = 2",
    "a spend more": "INSERT INTO spends VALUES (1, 2, 3)",
    "plain": "UPDATE assets SET plain = 1 - plain WHERE number = (SELECT max(number) FROM assets)",
    "a checksum": "UPDATE assets SET sum = sum + 1 WHERE number = (SELECT max(number) FROM assets)",
    "notation": "UPDATE assets SET data = replace(CAST(data AS TEXT), '1e16', '1E16')",
    "a type": "UPDATE transactions SET operation = CAST(operation AS TEXT)",
    "a count": "UPDATE checkpoint SET outputs = outputs + 1",
    "a target": "UPDATE checkpoint SET target = 2",
    "a document less": "DELETE FROM assets WHERE number = (SELECT max(number) FROM assets)",
    "a block less": "DELETE FROM blocks WHERE height = 2",
    "words more": "INSERT INTO assets_text (rowid, terms) VALUES (77, 'more')",
    "a length": "UPDATE metadata_text_docsize SET sz = x'05' WHERE id = (SELECT max(number) FROM assets)",
    "two lengths": "UPDATE assets_text_docsize SET id = -id",
    "the sum of lengths": "UPDATE assets_text_data SET block = x'0101' WHERE id = 1",
    "no lengths": "DELETE FROM metadata_text_data WHERE id = 1",
}


@pytest.mark.parametrize("statement", TAMPERINGS.values(), ids=TAMPERINGS.keys())
async def test_indexes_that_are_not_true_to_the_documents_are_found(
    store: SqliteStore, statement: str
) -> None:
    assert await store.indexes() == []
    connection = store._written()
    assert connection.execute(statement).rowcount != 0
    assert await store.indexes() != []


async def test_words_that_changed_places_are_found(store: SqliteStore) -> None:
    connection = store._written()
    connection.execute("INSERT INTO assets_text(assets_text) VALUES ('delete-all')")
    connection.execute("INSERT INTO assets_text(rowid, terms) VALUES (16777216, 'copper common')")
    assert [sentence for sentence in await store.indexes() if "words" in sentence]


# --- one flipped byte -------------------------------------------------------------------------------------


QUESTIONS = ("common", "copper note", "first -second", '"just a" text', name_of(4).hex(), "nested")


async def told(store: SqliteStore) -> list[Any]:
    """All documents and the checkpoint: what is compared with the ledger."""
    said: list[Any] = [await store.checkpoint()]
    for collection in COLLECTIONS:
        said.append([repr(found) async for found in store.stored(collection, 1, 5)])
        said.append([repr(found) async for found in store.strays(collection, 5)])
    return said


async def answers(store: SqliteStore) -> list[Any]:
    """What the store says to those who ask it."""
    said: list[Any] = [await store.height(), await store.status()]
    for question in QUESTIONS:
        said.append(await store.search_assets(question, 100))
        said.append(await store.search_metadata(question, 100))
    return said


async def test_a_flipped_byte_is_found_or_changes_nothing(store: SqliteStore, tmp_path: Path) -> None:
    """Not every byte of the file means something; one that does is found by the check or by comparing."""
    path = tmp_path / "query.sqlite"
    store._written().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pristine = path.read_bytes()
    before, answered = await told(store), await answers(store)
    used = [offset for offset, byte in enumerate(pristine) if byte]
    chance = random.Random(4)
    folder = tmp_path / "flipped"
    found = 0
    for offset in chance.sample(used, FLIPS):
        changed = bytearray(pristine)
        changed[offset] ^= 1 << chance.randrange(8)
        folder.mkdir()
        (folder / "query.sqlite").write_bytes(changed)
        flipped = SqliteStore.open_reader(folder / "query.sqlite")
        try:
            noticed = bool(await flipped.indexes()) or await told(flipped) != before
            assert noticed or await answers(flipped) == answered, offset
        except StoreUnavailable:
            noticed = True
        await flipped.close()
        found += noticed
        shutil.rmtree(folder)
    assert found > FLIPS // 2


@pytest.mark.parametrize("table", ["transactions", "assets", "owners", "spends", "blocks", "checkpoint"])
async def test_a_change_of_any_value_is_found(store: SqliteStore, tmp_path: Path, table: str) -> None:
    """By the documents, the check of the indexes or the checkpoint, even if SQLite itself saw no wrong."""

    before = await told(store)
    connection = store._written()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    values = connection.execute(f"SELECT * FROM {table}").fetchall()
    chosen = len(values) // 2
    copy = tmp_path / "copy"
    for column in range(len(values[0])):
        for changed in changes(values[chosen][column]):
            copy.mkdir()
            shutil.copy(tmp_path / "query.sqlite", copy)
            tampered = sqlite3.connect(copy / "query.sqlite")
            row = [*values[chosen][:column], changed, *values[chosen][column + 1 :]]
            tampered.execute(f"DELETE FROM {table}")
            tampered.executemany(
                f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(row))})",
                [row, *values[:chosen], *values[chosen + 1 :]],
            )
            tampered.commit()
            tampered.close()
            reader = SqliteStore.open_reader(copy / "query.sqlite")
            assert await told(reader) != before or await reader.indexes(), (column, changed)
            await reader.close()
            shutil.rmtree(copy)


def changes(value: Any) -> list[Any]:
    """The value with single bits changed."""
    if type(value) is bytes:
        return [
            value[:at] + bytes([value[at] ^ 1 << at % 8]) + value[at + 1 :]
            for at in range(0, len(value), max(1, len(value) // 6))
        ]
    return [value ^ 1, value ^ 1 << 24, value ^ 1 << 40] if type(value) is int else [bytes(32)]
