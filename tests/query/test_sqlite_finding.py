"""Filters on the embedded store: that SQL narrows no answer away, and that pages give everything once."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from query import fields, filters, sorting
from query.documents import COLLECTIONS, Block, Document, Place
from query.matching import matcher
from query.sqlite import SqliteStore, asking, files, finding, narrowing
from query.sqlite.writing import project
from query.store import (
    SEARCH_LIMIT_MAX,
    Find,
    InvalidCursor,
    InvalidSearch,
    Page,
    SearchTimeout,
    StoreDamaged,
    StoreUnavailable,
)
from tests.query.documents import ALICE, BOB, block_of, chain, create, name_of, transfer

MONGODB = "is answered by MongoDB only: start the node with --mongo or --mongo-uri"
VALUES: Sequence[Any] = (
    None, True, 0, 1, 1.0, -3, 2.5, 2**53 + 1, 1e300, "", "a", "A", "b", "café", 'q"uo\\te', "^", "0", "id",
    name_of(1).hex(), [], [1, "a"], [["a"]], ["b", {"a": "x"}], {}, {"a": "b"}, {"b": [{"c": "a"}, 1]},
    {"0": "zero", "é": 1, "c": None},
)  # fmt: skip


def world() -> Sequence[Block]:
    """Values of all types in assets and metadata, and assets that change hands."""
    chance = random.Random(11)

    def value() -> Any:
        picked = {key: chance.choice(VALUES) for key in chance.sample(["a", "b", "c", "0", "é"], 3)}
        return chance.choice([picked, [picked, chance.choice(VALUES)], chance.choice(VALUES)])

    blocks = []
    for height in range(1, 13):
        first = 100 * height
        made = [
            create(first + n, value(), value(), amount=height + n, owner=(ALICE, BOB, "Carol")[n % 3])
            for n in range(4)
        ]
        spent = [(first - 100 + n, 0) for n in range(2)] if height > 1 else []
        moved = [
            transfer(first + 10 + n, first - 100 + n, [pair], value(), amounts=(1, 2), owner=(BOB, ALICE)[n])
            for n, pair in enumerate(spent)
        ]
        again = [transfer(first + 20, first - 200, [(first - 90, 1)], value())] if height > 2 else []
        blocks.append(block_of(height, *made, *moved, *again))
    return blocks


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> files.Connection:
    path = tmp_path_factory.mktemp("finding") / "query.sqlite"
    writer = files.open_writer(path)
    project(writer, world())
    return writer


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "query.sqlite")
    yield opened
    await opened.close()


def question(collection: str, asked: Any, sort: Any = None, **more: Any) -> Find:
    order = sorting.parse(sort, collection) if sort else ()
    return Find(collection, filters.parse(asked, collection), sort=order, **more)


def everything(connection: files.Connection, asked: Find) -> list[Document]:
    """All pages of a question, one behind the other."""
    found: list[Document] = []
    after = None
    while True:
        page = finding.find(connection, msgspec.structs.replace(asked, after=after))
        assert len(page.documents) <= asked.limit
        assert page.documents or page.next is None
        found += map(msgspec.json.decode, page.documents)
        after = page.next
        if after is None:
            return found


def place(document: Document) -> Place:
    return Place(document["height"], document.get("position", 0), document.get("output_index", 0))


# --- against what `query.matching` says of every document ---------------------------------------------------

PATHS = {
    "transactions": [
        "id", "operation", "asset_id", "height", "position", "time", "inputs", "inputs.owners_before",
        "inputs.0.owners_before.0", "inputs.fulfills", "inputs.fulfills.transaction_id",
        "inputs.fulfills.output_index", "id.a",
    ],
    "assets": ["id", "height", "data", "data.a", "data.b", "data.0", "data.é", "data.b.c", "data.1.a",
               "data.a.0"],
    "metadata": ["id", "position", "metadata", "metadata.a", "metadata.b.c", "metadata.0.a", "metadata.c"],
    "outputs": [
        "transaction_id", "output_index", "asset_id", "amount", "public_keys", "public_keys.0", "condition",
        "height", "position", "spent_height", "spent_by",
    ],
    "blocks": ["height", "time", "hash", "app_hash", "proposer", "transactions"],
}  # fmt: skip
KNOWN = [name_of(n).hex() for n in (100, 101, 201, 210, 300, 310, 320)]
OPERANDS = st.sampled_from(
    [
        *VALUES, *KNOWN, "CREATE", "TRANSFER", ALICE, BOB, "Carol", [ALICE], 3, 7.5, 12, -1, 2**62, -(2**63),
        "2026-01-01T00:00:04.000000000Z", "01" * 20, "ABCD", KNOWN[0].upper(),
        f"ni:///sha-256;{101}?fpt=ed25519-sha-256&cost=131072", block_of(4).mark.hex(),
    ]
)  # fmt: skip
SCALARS = OPERANDS.filter(lambda value: type(value) in (int, float, str, bool))
TESTS = st.one_of(
    OPERANDS.map(lambda value: {"$eq": value}),
    OPERANDS.map(lambda value: {"$ne": value}),
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), SCALARS).map(lambda pair: {pair[0]: pair[1]}),
    st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(OPERANDS, max_size=30)).map(lambda p: {p[0]: p[1]}),
    st.booleans().map(lambda wanted: {"$exists": wanted}),
    SCALARS.map(lambda value: {"$not": {"$gt": value}}),
)


@st.composite
def questions(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    collection = draw(st.sampled_from(COLLECTIONS))
    leaf = st.tuples(st.sampled_from(PATHS[collection]), TESTS).map(lambda pair: {pair[0]: pair[1]})
    tree = st.recursive(
        leaf,
        lambda inner: st.tuples(
            st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1, max_size=3)
        ).map(lambda pair: {pair[0]: pair[1]}),
        max_leaves=5,
    )
    return collection, draw(tree | st.just({}))


@given(
    asked=questions(),
    sort=st.lists(st.tuples(st.integers(0, 20), st.sampled_from([1, -1])), max_size=2),
    limit=st.sampled_from([1, 3, 100]),
)
@example(asked=("outputs", {"spent_by": {"$ne": None}, "public_keys": BOB}), sort=[], limit=3)
@example(asked=("assets", {"data.a": {"$ne": None}}), sort=[], limit=3)
@example(asked=("transactions", {"height": {"$in": [*range(3, 9), 2.0]}}), sort=[(3, -1)], limit=1)
@example(asked=("transactions", {"height": {"$in": [*range(3, 40)]}}), sort=[(3, 1)], limit=3)
@example(
    asked=("transactions", {"inputs.owners_before": {"$in": ["", ALICE]}}),
    sort=[(3, -1), (4, -1)],
    limit=1,
)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_give_what_matches_in_order(
    asked: tuple[str, Any], sort: list[tuple[int, int]], limit: int, connection: files.Connection
) -> None:
    collection, said = asked
    paths = PATHS[collection]
    order = {paths[number % len(paths)]: direction for number, direction in sort}
    wanted = question(collection, said, order, limit=limit)
    matches = matcher(wanted.filter)
    whole = everything(connection, question(collection, {}, limit=1000))
    expected = [document for document in whole if matches(document)]
    try:
        expected.sort(key=lambda document: sorting.sort_key(document, wanted.sort))
    except InvalidSearch:
        with pytest.raises(InvalidSearch, match=r"^The sort|^Two paths"):
            everything(connection, wanted)
        return
    if sorting.natural_direction(wanted.sort, collection) == -1:
        expected.sort(key=place, reverse=True)
    assert everything(connection, wanted) == expected


def test_every_document_is_found_and_told_as_it_is_stored(connection: files.Connection) -> None:
    from query.sqlite import checking

    for collection in COLLECTIONS:
        stored = checking.reading(collection, 1, 100).part(connection)
        assert everything(connection, question(collection, {}, limit=7)) == [each.document for each in stored]


INDEXED = {
    "transactions": [{"id": KNOWN[1]}, {"asset_id": KNOWN[0]}, {"height": {"$gte": 3, "$lt": 5}}],
    "assets": [{"id": {"$in": KNOWN}}, {"height": 4}],
    "metadata": [{"id": KNOWN[2]}, {"$or": [{"id": KNOWN[3]}, {"id": KNOWN[4]}]}],
    "outputs": [{"transaction_id": KNOWN[5]}, {"asset_id": KNOWN[0]}, {"public_keys": BOB}],
    "blocks": [{"height": {"$lt": 3}}],
}


@pytest.mark.parametrize(
    ("collection", "asked"), [(name, asked) for name, several in INDEXED.items() for asked in several]
)
def test_what_an_index_knows_is_not_looked_for_in_all_rows(
    connection: files.Connection, collection: str, asked: Any
) -> None:
    seen = 0

    def look() -> None:
        nonlocal seen
        seen += 1

    wanted = question(collection, asked)
    now = asking.Snapshot(time.monotonic() + 5, 12)
    about = finding._Asked(connection, wanted, now, finding.Cursor(12))
    about._now = type("Counting", (), {"look": staticmethod(look)})  # type: ignore[assignment]
    found = list(about._matching(0, 2**62, 1))
    assert found
    assert seen <= len(found), "each row that Python saw has a match"
    text, values = narrowing.condition_of(collection, wanted.filter) or ("", ())
    plan = connection.execute(
        f"EXPLAIN QUERY PLAN SELECT t.number FROM {finding.COLUMNS[collection][1]} WHERE"
        f" {finding.NUMBER[collection]} BETWEEN ?1 AND ?2 AND {text} ORDER BY {finding.NUMBER[collection]}"
        if collection != "blocks"
        else "EXPLAIN QUERY PLAN SELECT 1 FROM blocks t WHERE t.height BETWEEN ?1 AND ?2 AND " + text,
        (0, 2**62, *values),
    ).fetchall()
    steps = [row[3] for row in plan]
    assert not [step for step in steps if step.startswith("SCAN") and "CONSTANT" not in step], steps


# --- pages ------------------------------------------------------------------------------------------------


async def ask(store: SqliteStore, asked: Find) -> tuple[list[Any], Page]:
    page = await store.find(asked)
    return [msgspec.json.decode(document) for document in page.documents], page


@pytest.mark.parametrize("sort", [None, {"height": 1}, {"height": -1, "position": -1}, {"data.text": 1}])
async def test_later_pages_show_nothing_of_later_blocks(store: SqliteStore, sort: Any) -> None:
    await store.project(chain(6))
    asked = question("assets", {"data.text": {"$gte": ""}}, sort, limit=5)
    found, page = await ask(store, asked)
    height = 6
    while page.next is not None:
        height += 1
        await store.project(chain(1, start=height))
        more, page = await ask(store, msgspec.structs.replace(asked, after=page.next))
        assert page.height == 6
        found += more
    assert len({document["id"] for document in found}) == len(found) == 12
    assert max(document["height"] for document in found) == 6
    assert (await store.find(asked)).height == height


async def test_a_projection_is_applied(store: SqliteStore) -> None:
    await store.project(world()[:3])
    some, exclude = fields.parse({"id": 1, "data.a": 1}, "assets")
    found, _ = await ask(store, question("assets", {}, fields=some, exclude=exclude))
    assert all(set(document) <= {"id", "data"} for document in found)
    some, exclude = fields.parse({"inputs": 0, "time": 0}, "transactions")
    found, _ = await ask(store, question("transactions", {}, fields=some, exclude=exclude))
    assert list(found[0]) == ["id", "operation", "asset_id", "height", "position"]


async def test_a_page_ends_when_it_is_large(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.project([block_of(1, *[create(n, "x" * 1000) for n in range(10)])])
    monkeypatch.setattr(finding, "PAGE_BYTES_MAX", 2500)
    for sort in (None, {"data": 1}):
        seen, after, pages = 0, None, 0
        while pages == 0 or after is not None:
            page = await store.find(question("assets", {}, sort, after=after))
            seen, after, pages = seen + len(page.documents), page.next, pages + 1
        assert (seen, pages) == (10, 4)


async def test_other_orders_reach_so_deep_only(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from query import cursors

    for module in (finding, cursors):
        monkeypatch.setattr(module, "SKIP_MAX", 7)
    await store.project(chain(6))
    asked = question("assets", {}, {"id": 1}, limit=5)
    found, page = await ask(store, asked)
    more, page = await ask(store, msgspec.structs.replace(asked, after=page.next))
    assert len(found + more) == 7
    with pytest.raises(InvalidSearch, match=r"7 documents deep: narrow the filter, or leave out the sort"):
        await store.find(msgspec.structs.replace(asked, after=page.next))


async def test_sorting_has_a_bound_on_its_memory(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "SORTED_BYTES_MAX", 100_000)
    await store.project([block_of(1, *[create(n, f"{n:03}" * 500) for n in range(300)])])
    found, _ = await ask(store, question("assets", {}, {"data": -1}, limit=2))
    assert [document["data"][:3] for document in found] == ["299", "298"]
    with pytest.raises(InvalidSearch, match="more memory than a question may have"):
        await store.find(question("assets", {}, {"data": -1}, limit=200))


async def test_a_cursor_is_of_one_question(store: SqliteStore) -> None:
    await store.project(chain(3))
    page = await store.find(question("assets", {}, limit=1))
    assert page.next is not None
    for other in (
        question("metadata", {}, after=page.next),
        question("assets", {"height": 1}, after=page.next),
        question("assets", {}, {"id": 1}, after=page.next),
        question("assets", {}, after="x"),
        question("assets", {}, after=""),
    ):
        with pytest.raises(InvalidCursor, match="was not made by this server for this question"):
            await store.find(other)


async def test_a_rebuilt_store_does_not_go_on_below_the_page_before(store: SqliteStore) -> None:
    await store.project(chain(6))
    page = await store.find(question("assets", {}, limit=1))
    await store.rebuild("a test wants it", 0)
    await store.project(chain(4))
    with pytest.raises(StoreUnavailable, match="is at block 4, and the page before was of block 6"):
        await store.find(question("assets", {}, after=page.next))
    await store.rebuild("a test wants it", 4)
    await store.project(chain(2))
    with pytest.raises(StoreUnavailable, match="being built: it is at block 2 of 4"):
        await store.find(question("assets", {}))


async def test_what_only_mongodb_offers_is_refused_by_name(store: SqliteStore) -> None:
    for test in ({"$regex": "a"}, {"$size": 1}, {"$all": [1]}, {"$type": "string"}, {"$mod": [2, 1]},
                 {"$elemMatch": {"a": 1}}):  # fmt: skip
        asked = question("assets", {"$or": [{"id": "x"}, {"data.a": test}]})
        with pytest.raises(InvalidSearch) as refusal:
            await store.find(asked)
        assert refusal.value.text == f"The operator {next(iter(test))} {MONGODB}"
    with pytest.raises(InvalidSearch, match=r"The operator \$text is answered by MongoDB only"):
        await store.find(question("assets", {"$text": {"$search": "x"}}))
    with pytest.raises(InvalidSearch) as refusal:
        await store.aggregate("assets", [])
    assert refusal.value.text == f"Aggregation {MONGODB}"


async def test_a_page_has_a_bound(store: SqliteStore) -> None:
    for limit in (0, -1, SEARCH_LIMIT_MAX + 1):
        with pytest.raises(InvalidSearch, match=f"from 1 to {SEARCH_LIMIT_MAX} documents, not {limit}"):
            await store.find(question("assets", {}, limit=limit))


async def test_a_question_ends_when_its_time_is_over(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.project(chain(500))
    monkeypatch.setattr(asking, "SEARCH_S_MAX", -1.0)
    monkeypatch.setattr(finding, "STEPS_BETWEEN_LOOKS", 100)
    for asked in ({"data.text": {"$gt": "x"}}, {"data.other": 1}, {"id": {"$gt": "g"}}):
        for sort in (None, {"id": 1}):
            with pytest.raises(SearchTimeout, match="too broad"):
                await store.find(question("assets", asked, sort))


async def test_a_full_page_does_not_wait_for_the_next_document(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether there is another one may take long to find out; the page is there already."""
    monkeypatch.setattr(finding, "LOOKAHEAD_S", 0.0)
    monkeypatch.setattr(finding, "STEPS_BETWEEN_LOOKS", 100)
    await store.project(chain(500))
    asked = question("assets", {"data.text": {"$in": [*map(str, range(30)), "common n2"]}}, limit=1)
    found, page = await ask(store, asked)
    assert len(found) == 1
    assert page.next is not None
    monkeypatch.undo()
    assert await ask(store, msgspec.structs.replace(asked, after=page.next)) == ([], Page([], 500, None))


async def test_the_loop_turns_while_a_question_is_answered(store: SqliteStore) -> None:
    await store.project(chain(5000))
    asking_all = asyncio.create_task(store.find(question("assets", {"id": {"$gt": "g"}})))
    turns = 0
    while not asking_all.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 20
    assert (await asking_all).documents == []


@pytest.mark.parametrize(
    ("tampering", "collection"),
    [
        ("UPDATE assets SET data = x'7b7d'", "assets"),
        ("UPDATE transactions SET inputs = x'ff'", "transactions"),
        ("UPDATE transactions SET outputs = 'text'", "outputs"),
        ("UPDATE transactions SET metadata = NULL", "metadata"),
        ("UPDATE spends SET by = 1", "outputs"),
        ("DELETE FROM blocks", "transactions"),
    ],
)
async def test_damage_is_no_answer_and_the_writer_is_told(
    store: SqliteStore, tampering: str, collection: str
) -> None:
    await store.project(world()[:3])
    store._written().execute(tampering)
    with pytest.raises(StoreDamaged, match="that can't be read"):
        await store.find(question(collection, {}))
    assert await store.fault() == "a reader found it damaged"
