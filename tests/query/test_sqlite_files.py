"""The file of the embedded store: replaced when it can't be used, kept private, whole after a power cut."""

import logging
import os
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from query.sqlite import SqliteStore, files, tables
from query.store import Checkpoint, StoreDamaged, StoreUnavailable
from tests.query.documents import chain, mark_of


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "query.sqlite")
    yield opened
    await opened.close()


def other_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE precious (x)")
    connection.commit()
    connection.close()


def older_version(path: Path) -> None:
    files.replace(path)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={tables.format_of(True) - 1000}")
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
    await store.rebuild("a test wants it", 0)
    await store.project(chain(1))
    made = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("query.sqlite*")}
    assert made.keys() >= {"query.sqlite", "query.sqlite-wal", "query.sqlite-shm"}
    assert set(made.values()) == {0o600}


async def test_readers_follow_a_rebuilt_store(store: SqliteStore, tmp_path: Path) -> None:
    reader = SqliteStore.open_reader(tmp_path / "query.sqlite")
    await store.project(chain(3))
    first = await reader.search_assets("common", 4)
    await store.rebuild("a test wants it", 0)
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
    await writer.rebuild("a reader found it damaged", 0)
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
    await store.rebuild("its file was taken away", 0)
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
