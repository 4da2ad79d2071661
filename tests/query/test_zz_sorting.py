"""Orders: what may be asked, which are those of commitment, and a real MongoDB as the judge of all others."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from query import sorting
from query.errors import InvalidSearch
from tests.query.mongo_oracle import Oracle, oracle
from tests.query.questions import DOCUMENTS, SORTS

IN_ORDER: list[Any] = [
    [],
    None,
    -(2**63),
    2.0**53,
    2**53 + 1,
    1e300,
    "",
    "B",
    "a",
    "\ufffd",
    "\U0001f600",
    {},
    {"a": 1},
    {"a": 1, "b": 0},
    {"b": 0},
    {"a": "x"},
    [[]],
    [[1]],
    False,
    True,
]


@pytest.fixture(scope="module")
def judge() -> Iterator[Oracle]:
    with oracle() as made:
        yield made


def ordered(documents: list[dict[str, Any]], asked: dict[str, int]) -> list[int] | None:
    """Places of the documents in the order that is asked for, None if it is refused."""
    sort = sorting.parse(asked, "assets")
    try:
        keys = [sorting.sort_key(document, sort) for document in documents]
    except InvalidSearch:
        return None
    return sorted(range(len(documents)), key=lambda number: (keys[number], number))


@pytest.mark.parametrize("direction", [1, -1])
def test_types_and_values_have_one_order(judge: Oracle, direction: int) -> None:
    documents = [{"data": {"x": value}} for value in IN_ORDER]
    expected = list(range(len(IN_ORDER)))[::direction]
    assert ordered(documents, {"data.x": direction}) == expected
    judge.hold(documents)
    assert judge.ordered({"data.x": direction}) == expected


def test_what_is_missing_is_null() -> None:
    documents = [{"data": {"x": None}}, {"data": 1}, {"data": {}}, {"data": {"x": []}}]
    assert ordered(documents, {"data.x": 1}) == [3, 0, 1, 2]


@settings(max_examples=4000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(DOCUMENTS, min_size=1, max_size=8), st.lists(SORTS, min_size=1, max_size=6))
@example(
    [{"data": [{"a": 1, "b": 9}, {"a": 1, "b": 2}]}, {"data": {"a": 1, "b": 5}}],
    [{"data.a": 1, "data.b": -1}],
)
@example([{"data": [[5, 1], 2]}, {"data": [3]}], [{"data.0": 1}, {"data.0": -1}])
@example([{"data": {"a": [1], "b": [1]}}], [{"data.a": 1, "data.b": 1}])
@example([{"data": [{"0": 1}, 2]}], [{"data.0": 1}])
def test_random_orders_are_those_of_mongodb(
    judge: Oracle, documents: list[dict[str, Any]], asked: list[dict[str, int]]
) -> None:
    judge.hold(documents)
    for one in asked:
        assert ordered(documents, one) == judge.ordered(one), one


@pytest.mark.parametrize(
    ("collection", "asked", "direction"),
    [
        ("assets", {}, 1),
        ("assets", {"height": 1}, 1),
        ("assets", {"height": -1, "position": -1}, -1),
        ("assets", {"height": 1, "position": -1}, None),
        ("assets", {"position": 1}, None),
        ("assets", {"height": 1, "position": 1, "id": 1}, None),
        ("outputs", {"height": -1, "position": -1, "output_index": -1}, -1),
        ("outputs", {"height": 1, "output_index": 1}, None),
        ("blocks", {"height": -1}, -1),
        ("blocks", {"time": -1}, None),
    ],
)
def test_the_order_of_commitment_is_recognised(
    collection: str, asked: dict[str, int], direction: int | None
) -> None:
    assert sorting.natural_direction(sorting.parse(asked, collection), collection) == direction


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ([], "A sort takes an object, not an array"),
        ({"data.x": 2}, "takes 1 (upwards) or -1 (downwards)"),
        ({"data.x": True}, "takes 1 (upwards) or -1 (downwards)"),
        ({"data.x": 0}, "takes 1 (upwards) or -1 (downwards)"),
        ({"dat": 1}, "Did you mean data?"),
        ({f"data.{n}": 1 for n in range(5)}, "at most 4 paths, this one 5"),
        ({"data..x": 1}, "has an empty part"),
    ],
)
def test_what_is_refused(asked: Any, sentence: str) -> None:
    with pytest.raises(InvalidSearch) as caught:
        sorting.parse(asked, "assets")
    assert sentence in caught.value.text


def test_mongodb_is_told_stored_names() -> None:
    sort = sorting.parse({"data.x$": -1, "height": 1}, "assets")
    assert list(sorting.to_mongo(sort, lambda key: key.replace("$", "%24")).items()) == [
        ("data.x%24", -1),
        ("height", 1),
    ]
