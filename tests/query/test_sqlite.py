"""The embedded store: what it finds, how it pages, and what it does about odd values and broken files."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from query.documents import Transaction
from query.sqlite import SqliteStore, asking, files, searching
from query.store import (
    SEARCH_CHARS_MAX,
    SEARCH_LIMIT_MAX,
    Checkpoint,
    InvalidCursor,
    InvalidSearch,
    ProjectionGap,
    SearchTimeout,
    StoreUnavailable,
)
from tests.query.documents import block, block_of, chain, create, mark_of, name_of

TABLE = json.loads((Path(__file__).parent / "mongodb_text.json").read_text())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "query.sqlite")
    yield opened
    await opened.close()


def written(name: bytes, asset: bytes, metadata: bytes = b"null") -> Transaction:
    """A CREATE with these JSON texts, whatever they are."""
    return msgspec.structs.replace(create(0, None), id=name, asset_id=name, asset=asset, metadata=metadata)


async def texts(store: SqliteStore, question: str, limit: int = 100) -> list[object]:
    return [
        msgspec.json.decode(found.document)["data"] for found in await store.search_assets(question, limit)
    ]


# --- what is found ----------------------------------------------------------------------------------------


async def test_it_finds_what_mongodb_finds(store: SqliteStore) -> None:
    names = [f"{number:064x}" for number in range(len(TABLE["documents"]))]
    bodies = [msgspec.json.encode(value) for value in TABLE["documents"]]
    made = [written(bytes.fromhex(name), body, body) for name, body in zip(names, bodies, strict=True)]
    await store.project([block_of(1, *made)])
    for question, expected in TABLE["searches"]:
        for search in (store.search_assets, store.search_metadata):
            found = sorted(names.index(item.id) for item in await search(question, 1000))
            assert found == expected, question


async def test_an_answer_is_the_document_as_it_was_written(store: SqliteStore) -> None:
    body = b'{"n":1e16,"text":"caf\xc3\xa9"}'
    await store.project([block_of(1, written(name_of(1), body, body))])
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
    monkeypatch.setattr(asking, "SEARCH_S_MAX", -1.0)
    monkeypatch.setattr(asking, "STEPS_BETWEEN_LOOKS", 100)
    with pytest.raises(SearchTimeout, match="too broad"):
        await store.search_assets("common", 10)
    monkeypatch.setattr(asking, "SEARCH_S_MAX", 60.0)
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
    made = [written(os.urandom(32), value) for value in values]
    project(connection, [block_of(height, *made)])
    for item in made:
        (found,) = searching.search(connection, searching.Rankings(), "assets", item.id.hex(), 10, None)
        assert found.document == b'{"data":%b,"id":"%b"}' % (item.asset, item.id.hex().encode())
    connection.close()


async def test_huge_and_deep_values_are_indexed_whole(store: SqliteStore) -> None:
    words = " ".join(f"word{number}" for number in range(80_000))
    deep = b'{"a":' * 900 + b'"bottom"' + b"}" * 900
    too_deep = b"[" * 50_000 + b'"unread"' + b"]" * 50_000
    bodies = [
        msgspec.json.encode({"text": words}),
        msgspec.json.encode({"text": "y" * 1_000_000}),
        deep,
        too_deep,
    ]
    made = [written(name_of(number), body) for number, body in enumerate(bodies, 1)]
    await store.project([block_of(1, *made)])
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


async def test_a_store_that_is_being_built_answers_nothing_but_how_far_it_is(
    store: SqliteStore, tmp_path: Path
) -> None:
    reader = SqliteStore.open_reader(tmp_path / "query.sqlite")
    await store.project(chain(1))
    await store.rebuild("a test wants it", 3)
    for height in range(3):
        assert await store.project(chain(3)[:height]) == height
        assert await store.checkpoint() == Checkpoint(height, mark_of(height) if height else b"", 3)
        for question in (
            reader.height(),
            reader.wait_height(1, 0.01),
            reader.search_assets("common", 1),
            reader.search_metadata("remark", 1),
        ):
            with pytest.raises(StoreUnavailable, match=f"being built: it is at block {height} of 3"):
                await question
        status = await reader.status()
        assert (status.height, status.target, status.counts["assets"]) == (height, 3, 2 * height)
    await store.project(chain(3))
    assert await reader.height() == 3
    assert len(await reader.search_assets("common", 10)) == 6
    assert await store.checkpoint() == Checkpoint(3, mark_of(3))
    await reader.close()


async def test_without_text_search_it_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "query.sqlite"
    store = SqliteStore.open(path, text_search=False)
    await store.project(chain(2))
    for search in (store.search_assets, store.search_metadata):
        with pytest.raises(InvalidSearch, match=r"switched off on this node \(setting text_search\)"):
            await search("common", 10)
    status = await store.status()
    assert not status.text_search
    assert (status.kind, status.height, status.target) == ("sqlite", 2, 0)
    assert status.counts == {"transactions": 4, "assets": 4, "metadata": 4, "outputs": 4, "blocks": 2}
    await store.close()
    caplog.clear()
    store = SqliteStore.open(path, text_search=False)
    assert await store.height() == 2
    await store.close()
    for text_search, words in ((True, "without"), (False, "with")):
        store = SqliteStore.open(path, text_search=text_search)
        assert f"was made {words} text search. It is rebuilt" in caplog.text
        assert await store.height() == 0
        assert (await store.status()).text_search is text_search
        await store.close()
