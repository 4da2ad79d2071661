"""The embedded store: what it finds, how it pages, and what it does about odd values and broken files."""

import asyncio
import json
import logging
import os
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from query.sqlite import SqliteStore, files, searching
from query.store import (
    SEARCH_CHARS_MAX,
    SEARCH_LIMIT_MAX,
    Block,
    Checkpoint,
    Document,
    InvalidCursor,
    InvalidSearch,
    ProjectionGap,
    SearchTimeout,
    StoreDamaged,
    StoreUnavailable,
)
from tests.query.documents import block, chain, mark_of, name_of

TABLE = json.loads((Path(__file__).parent / "mongodb_text.json").read_text())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "query.sqlite")
    yield opened
    await opened.close()


async def texts(store: SqliteStore, question: str, limit: int = 100) -> list[object]:
    return [
        msgspec.json.decode(found.document)["data"] for found in await store.search_assets(question, limit)
    ]


# --- what is found ----------------------------------------------------------------------------------------


async def test_it_finds_what_mongodb_finds(store: SqliteStore) -> None:
    names = [f"{number:064x}" for number in range(len(TABLE["documents"]))]
    documents = [
        Document(bytes.fromhex(name), msgspec.json.encode(value))
        for name, value in zip(names, TABLE["documents"], strict=True)
    ]
    await store.project([Block(1, mark_of(1), documents, documents)])
    for question, expected in TABLE["searches"]:
        for search in (store.search_assets, store.search_metadata):
            found = sorted(names.index(item.id) for item in await search(question, 1000))
            assert found == expected, question


async def test_an_answer_is_the_document_as_it_was_written(store: SqliteStore) -> None:
    body = b'{"n":1e16,"text":"caf\xc3\xa9"}'
    await store.project([Block(1, mark_of(1), [Document(name_of(1), body)], [Document(name_of(1), body)])])
    (asset,) = await store.search_assets("cafe", 10)
    (metadata,) = await store.search_metadata("cafe", 10)
    name = name_of(1).hex().encode()
    assert asset.document == b'{"data":' + body + b',"id":"' + name + b'"}'
    assert metadata.document == b'{"metadata":' + body + b',"id":"' + name + b'"}'
    assert asset.id == metadata.id == name.decode()


async def test_better_matches_come_first_and_ties_in_order_of_insertion(store: SqliteStore) -> None:
    await store.project(
        [
            block(1, {1: "red", 2: "red and a long tail of other words", 3: "red", 4: "red red bicycle"}),
            block(2, {5: "unrelated", 6: "also unrelated", 7: "something else", 8: "still other things"}),
        ]
    )
    found = await texts(store, "red bicycle")
    assert found[0] == "red red bicycle"
    assert found[-1] == "red and a long tail of other words"
    ids = [item.id for item in await store.search_assets("red", 100)]
    assert ids.index(name_of(1).hex()) < ids.index(name_of(3).hex())


async def test_pages_give_everything_once_while_the_store_grows(store: SqliteStore) -> None:
    await store.project(chain(30))
    seen: list[str] = []
    after = None
    while True:
        page = await store.search_assets("common", 7, after)
        seen += [found.id for found in page]
        if len(page) < 7:
            break
        after = page[-1].cursor
        await store.project(chain(1, start=await store.height() + 1))
    assert len(seen) == len(set(seen)) == 60
    assert len(await store.search_assets("common", 1000)) > 60


async def test_a_page_behind_another_fits_a_longer_page(store: SqliteStore) -> None:
    await store.project(chain(1200))
    whole = await store.search_assets("common", 2400)
    assert len(whole) == 2400
    later = await store.search_assets("common", 500, whole[1899].cursor)
    assert later == whole[1900:]
    assert await store.search_assets("common", 10, whole[-1].cursor) == []


async def test_phrases_are_looked_for_far_down_the_ranking(store: SqliteStore) -> None:
    many = {number: {"text": f"serial SN-{number:05d} é" if number % 2 else f"serial SN-{number:05d}"}
            for number in range(3000)}  # fmt: skip
    await store.project([block(1, many)])
    for number in (2998, 2999):
        (found,) = await store.search_assets(f'"SN-{number:05d}"', 10)
        assert found.id == name_of(number).hex()
    assert len(await store.search_assets('"sn-0000" serial', 100)) == 10


@given(question=st.text(max_size=40) | st.text(alphabet="ab\"-*():^ '{}+NEARORNOT\0\t", max_size=40))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_is_a_query_in_the_stores_own_language(question: str, tmp_path: Path) -> None:
    path = tmp_path / "query.sqlite"
    if not path.exists():
        connection = files.open_writer(path)
        from query.sqlite.writing import project

        project(connection, chain(3))
        connection.close()
    connection = files.open_reader(path)
    try:
        found = searching.search(connection, searching.Rankings(), "assets", question, 10, None)
    finally:
        connection.close()
    assert not found or any(word in question.lower() for word in ("common", "n", "0", "1"))


async def test_a_search_with_as_many_words_as_fit_is_answered(store: SqliteStore) -> None:
    await store.project(chain(1))
    words = " ".join(f"{number:x}" for number in range(1000))[: SEARCH_CHARS_MAX - 7]
    assert len(await store.search_assets(words + " common", 10)) == 2
    excluded = " ".join(f"-{number:x}" for number in range(1000))[: SEARCH_CHARS_MAX - 7]
    assert len(await store.search_assets("common " + excluded, 10)) == 2


async def test_questions_have_bounds(store: SqliteStore) -> None:
    with pytest.raises(InvalidSearch, match=f"at most {SEARCH_CHARS_MAX} characters"):
        await store.search_assets("x" * (SEARCH_CHARS_MAX + 1), 10)
    with pytest.raises(InvalidSearch, match=f"at most {SEARCH_LIMIT_MAX} documents"):
        await store.search_assets("x", SEARCH_LIMIT_MAX + 1)
    assert await store.search_assets("x", 0) == []


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "é", "AAAA", "_" * 22, searching.Cursor(1, 2**63).encode(), "A" * 23, "A" * 10_000, "AAA=\n"],
)
async def test_a_cursor_of_somebody_else_is_refused(store: SqliteStore, cursor: str) -> None:
    await store.project(chain(1))
    with pytest.raises(InvalidCursor, match="was not made by this server"):
        await store.search_assets("common", 10, cursor)


async def test_a_cursor_from_nowhere_is_harmless(store: SqliteStore) -> None:
    await store.project(chain(1))
    for newest, place in ((0, 0), (10**9, 10**6), (2**63 - 1, 2**40 - 1), (1, 2**39)):
        cursor = searching.Cursor(newest, place).encode()
        assert len(await store.search_assets("common", 10, cursor)) in (0, 2)


async def test_a_search_ends_when_its_time_is_over(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.project(chain(2000))
    monkeypatch.setattr(searching, "SEARCH_S_MAX", -1.0)
    monkeypatch.setattr(searching, "STEPS_BETWEEN_LOOKS", 100)
    with pytest.raises(SearchTimeout, match="too broad"):
        await store.search_assets("common", 10)
    monkeypatch.setattr(searching, "SEARCH_S_MAX", 60.0)
    assert len(await store.search_assets("common", 10)) == 10


# --- projecting -------------------------------------------------------------------------------------------


async def test_blocks_are_taken_once_and_in_order(store: SqliteStore) -> None:
    blocks = chain(5)
    assert await store.project(blocks[:3]) == 3
    assert await store.project(blocks[1:]) == 5
    assert await store.project(blocks) == 5
    assert await store.project([]) == 5
    assert await store.checkpoint() == Checkpoint(5, mark_of(5))
    assert len(await store.search_assets("common", 100)) == 10
    with pytest.raises(ProjectionGap, match="next block of the query store is 6, not 7"):
        await store.project(chain(2, start=7))
    with pytest.raises(ProjectionGap, match="is 7, not 8"):
        await store.project([*chain(1, start=6), *chain(1, start=8)])
    assert await store.height() == 5
    assert len(await store.search_assets("common", 100)) == 10


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(values=st.lists(JSON.map(msgspec.json.encode) | st.binary(max_size=20), max_size=4))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_is_taken_and_kept(values: list[bytes], tmp_path: Path) -> None:
    from query.sqlite.writing import project, read_checkpoint

    connection = files.open_writer(tmp_path / "query.sqlite")
    height = read_checkpoint(connection).height + 1
    documents = [Document(os.urandom(32), value) for value in values]
    project(connection, [Block(height, mark_of(height), documents)])
    for item in documents:
        (found,) = searching.search(connection, searching.Rankings(), "assets", item.id.hex(), 10, None)
        assert found.document == b'{"data":' + item.body + b',"id":"' + item.id.hex().encode() + b'"}'
    connection.close()


async def test_huge_and_deep_values_are_indexed_whole(store: SqliteStore) -> None:
    words = " ".join(f"word{number}" for number in range(80_000))
    deep = b'{"a":' * 900 + b'"bottom"' + b"}" * 900
    too_deep = b"[" * 50_000 + b'"unread"' + b"]" * 50_000
    documents = [
        Document(name_of(1), msgspec.json.encode({"text": words})),
        Document(name_of(2), msgspec.json.encode({"text": "y" * 1_000_000})),
        Document(name_of(3), deep),
        Document(name_of(4), too_deep),
    ]
    await store.project([Block(1, mark_of(1), documents)])
    for question, number in (("word79999", 1), ("y" * 1_000, None), ("bottom", 3), (name_of(4).hex(), 4)):
        found = [item.id for item in await store.search_assets(question, 10)]
        assert found == ([] if number is None else [name_of(number).hex()])


async def test_waiting_for_a_height(store: SqliteStore, tmp_path: Path) -> None:
    reader = SqliteStore.open_reader(tmp_path / "query.sqlite")
    waiting = [asyncio.create_task(reader.wait_height(height, 30)) for height in (1, 2, 3)]
    await asyncio.sleep(0.01)
    await store.project(chain(2))
    assert await waiting[0] == await waiting[1] == 2
    assert not waiting[2].done()
    assert await reader.wait_height(3, 0.01) == 2
    await store.project(chain(1, start=3))
    assert await waiting[2] == 3
    await reader.close()


async def test_a_reader_may_come_before_the_store(tmp_path: Path) -> None:
    path = tmp_path / "query.sqlite"
    reader = SqliteStore.open_reader(path)
    with pytest.raises(StoreUnavailable):
        await reader.height()
    with pytest.raises(StoreUnavailable):
        await reader.search_assets("x", 1)
    with pytest.raises(StoreUnavailable):
        await reader.wait_height(1, 0.01)
    waiting = asyncio.create_task(reader.wait_height(1, 30))
    await asyncio.sleep(0.01)
    writer = SqliteStore.open(path)
    await writer.project(chain(1))
    assert await waiting == 1
    assert len(await reader.search_assets("common", 10)) == 2
    await writer.close()
    assert len(await reader.search_assets("common", 10)) == 2
    await reader.close()


# --- files that are not as they should be -----------------------------------------------------------------


def other_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE precious (x)")
    connection.commit()
    connection.close()


def older_version(path: Path) -> None:
    files.replace(path)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={files.FORMAT - 1}")
    connection.close()


def no_checkpoint(path: Path) -> None:
    files.replace(path)
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM checkpoint")
    connection.commit()
    connection.close()


def cut_short(path: Path) -> None:
    files.replace(path)
    with path.open("r+b") as file:
        file.truncate(files.PAGE_BYTES + 100)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no database " * 1000),
        lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(5000)),
        other_database,
        older_version,
        no_checkpoint,
        cut_short,
    ],
    ids=["empty", "no database", "header only", "foreign", "older", "no checkpoint", "cut short"],
)
async def test_a_file_that_cannot_be_used_is_replaced(
    spoil: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "query.sqlite"
    assert callable(spoil)
    spoil(path)
    with caplog.at_level(logging.WARNING):
        store = SqliteStore.open(path)
    assert "rebuilt from height 0" in caplog.text
    assert await store.height() == 0
    await store.project(chain(2))
    assert len(await store.search_assets("common", 10)) == 4
    await store.close()


def test_a_file_of_somebody_else_is_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "query.sqlite"
    other_database(path)
    files.open_writer(path).close()
    aside = sqlite3.connect(tmp_path / "query.sqlite.unusable")
    assert aside.execute("SELECT * FROM precious").fetchall() == []
    aside.close()


async def test_its_files_are_for_their_owner_alone(store: SqliteStore, tmp_path: Path) -> None:
    await store.project(chain(1))
    await store.rebuild("a test wants it")
    await store.project(chain(1))
    made = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("query.sqlite*")}
    assert made.keys() >= {"query.sqlite", "query.sqlite-wal", "query.sqlite-shm"}
    assert set(made.values()) == {0o600}


async def test_readers_follow_a_rebuilt_store(store: SqliteStore, tmp_path: Path) -> None:
    reader = SqliteStore.open_reader(tmp_path / "query.sqlite")
    await store.project(chain(3))
    first = await reader.search_assets("common", 4)
    await store.rebuild("a test wants it")
    assert await reader.height() == 0
    assert await reader.search_assets("common", 10) == []
    await store.project(chain(3))
    assert await reader.search_assets("common", 4) == first
    assert len(await reader.search_assets("common", 10, first[-1].cursor)) == 2
    await reader.close()


async def test_a_reader_that_finds_damage_tells_the_writer(store: SqliteStore, tmp_path: Path) -> None:
    path = tmp_path / "query.sqlite"
    await store.project(chain(200))
    await store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(files.PAGE_BYTES)
        file.write(os.urandom(size - files.PAGE_BYTES))
    reader = SqliteStore.open_reader(path)
    with pytest.raises(StoreDamaged):
        await reader.search_assets("common", 10)
    writer = SqliteStore(path, writes=True)
    assert await writer.fault() == "a reader found it damaged"
    await writer.rebuild("a reader found it damaged")
    assert await writer.fault() is None
    await writer.project(chain(2))
    assert len(await reader.search_assets("common", 10)) == 4
    await writer.close()
    await reader.close()


async def test_a_store_that_is_deleted_under_its_writer_is_noticed(
    store: SqliteStore, tmp_path: Path
) -> None:
    await store.project(chain(1))
    assert await store.fault() is None
    (tmp_path / "query.sqlite").unlink()
    assert await store.fault() == "its file was taken away"
    await store.rebuild("its file was taken away")
    assert await store.project(chain(2)) == 2
    assert await store.fault() is None


async def test_a_full_disk_leaves_the_store_as_it_was(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.project(chain(2))
    connection = store._written()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreUnavailable, match="full"):
        await store.project(chain(2000, start=3))
    assert await store.height() == 2
    connection.execute("PRAGMA max_page_count=1000000")
    assert await store.project(chain(2000, start=3)) == 2002
    assert len(await store.search_assets("common", 10_000)) == 4004


async def test_what_a_power_cut_leaves_is_an_earlier_whole_state(tmp_path: Path) -> None:
    """Whatever tail of the log is lost, the store has the documents of its height, no others, and goes on."""
    source = tmp_path / "source"
    source.mkdir()
    writer = SqliteStore.open(source / "query.sqlite")
    await writer.project(chain(5))
    writer._written().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for height in range(6, 16):
        await writer.project(chain(1, start=height))
    log_bytes = (source / "query.sqlite-wal").stat().st_size
    heights = set()
    for cut in range(13):
        copy = tmp_path / f"cut{cut}"
        copy.mkdir()
        shutil.copy(source / "query.sqlite", copy)
        shutil.copy(source / "query.sqlite-wal", copy)
        os.truncate(copy / "query.sqlite-wal", log_bytes * cut // 12)
        store = SqliteStore.open(copy / "query.sqlite")
        height = await store.height()
        heights.add(height)
        assert await store.checkpoint() == Checkpoint(height, mark_of(height))
        assert len(await store.search_assets("common", 100)) == 2 * height
        await store.project(chain(15))
        assert len(await store.search_assets("common", 100)) == 30
        await store.close()
    assert min(heights) == 5
    assert max(heights) == 15
    await writer.close()
