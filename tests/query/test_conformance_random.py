"""Random documents and random filters of the common language: both query stores must answer them alike."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from query.store import Find, InvalidSearch, QueryStore
from tests.query.documents import block_of, create
from tests.query.places import KINDS, Place, everything, exactly, question
from tests.support import mongod

KEYS = st.sampled_from(["a", "b", "c", "0", "1", "é", "a.b", "$a", "%", "", "%41", "length"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, -0.0, 1.0, 2.5, -1.5, 1e300, 2**53, 2**53 + 1, float(2**53), 2**63 - 1, -(2**63)])
    | st.sampled_from(["", "a", "b", "A", "é", "\U0001f600", "\0", "a\0b", "0"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
PATHS = st.lists(st.sampled_from(["a", "b", "c", "0", "1", "é", "$a", "%", "%41"]), max_size=3).map(
    lambda parts: ".".join(["data", *parts])
)
BOUNDS = st.integers(-3, 3) | st.sampled_from([1.0, 2.5, "a", "", "é", True, False, 2**53, float(2**53)])


def said(pair: tuple[str, Any]) -> dict[str, Any]:
    return {pair[0]: pair[1]}


TESTS = st.one_of(
    VALUES.map(lambda value: {"$eq": value}),
    VALUES.map(lambda value: {"$ne": value}),
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), BOUNDS).map(said),
    st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(VALUES, max_size=3)).map(said),
    st.booleans().map(lambda wanted: {"$exists": wanted}),
)
PATH_TESTS = st.tuples(PATHS, TESTS | TESTS.map(lambda test: {"$not": test})).map(said)
FILTERS = st.recursive(
    PATH_TESTS,
    lambda inner: st.tuples(
        st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1, max_size=3)
    ).map(said),
    max_leaves=4,
)
SORTS = st.none() | st.dictionaries(PATHS, st.sampled_from([1, -1]), min_size=1, max_size=2)


@pytest.fixture
def database() -> Iterator[str]:
    with mongod.shared().database() as name:
        yield name


@pytest.fixture
async def both(tmp_path: Path, database: str) -> AsyncIterator[tuple[QueryStore, QueryStore]]:
    places = [Place(kind, tmp_path, database) for kind in KINDS]
    # Characters such as NUL are no text for this.
    yield (await places[0].writer(text_search=False), await places[1].writer(text_search=False))
    for each in places:
        await each.close()


@given(
    values=st.lists(VALUES, min_size=1, max_size=6),
    asked=st.lists(st.tuples(FILTERS, SORTS), min_size=1, max_size=4),
    limit=st.integers(1, 4),
)
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
async def test_random_documents_and_filters_are_answered_alike(
    values: list[Any], asked: list[tuple[Any, Any]], limit: int, both: tuple[QueryStore, QueryStore]
) -> None:
    height = await both[0].height() + 1
    block = block_of(height, *[create(1000 * height + n, canonical(value)) for n, value in enumerate(values)])
    for opened in both:
        await opened.project([block])
    for filter, sort in asked:
        question_of_both = question("assets", {"$and": [{"height": height}, filter]}, sort, limit=limit)
        answers = [await answer(opened, question_of_both) for opened in both]
        assert answers[0] == answers[1], (filter, sort)


def canonical(value: Any) -> Any:
    """The value as transactions have it, with the keys of its objects in order."""
    return json.loads(json.dumps(value, sort_keys=True))


async def answer(opened: QueryStore, asked: Find) -> list[str] | str:
    try:
        return [exactly(document) for document in await everything(opened, asked)]
    except InvalidSearch:
        return "refused"
