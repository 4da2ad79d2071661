"""Which documents match: a table of what is peculiar, and a real MongoDB as the judge of random questions."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from query import filters
from query.matching import matcher, same
from tests.query.mongo_oracle import Oracle, oracle
from tests.query.questions import DOCUMENTS, FILTERS, VALUES

CASES: list[tuple[Any, dict[str, Any], bool]] = [
    # A path through an array leads to its elements, and to the array itself only at its end.
    ([1, 2], {"data": 1}, True),
    ([1, 2], {"data": [1, 2]}, True),
    ([[1, 2]], {"data": 1}, False),
    ([[1, 2]], {"data": [1, 2]}, True),
    ([[1, 2]], {"data.0": 1}, False),
    ([[1, 2]], {"data.0": [1, 2]}, True),
    ([[1, 2]], {"data.0.0": 1}, True),
    ([[[1, 2]]], {"data.0.0": 1}, False),
    ([{"0": 5}], {"data.0": 5}, True),
    ([{"b": 5}], {"data.0.b": 5}, True),
    ([[{"b": 1}]], {"data.b": 1}, False),
    ([[{"b": 1}]], {"data.0.b": 1}, True),
    ([[{"b": 1}]], {"data.00.b": 1}, False),
    # Null, and what is not there.
    ([], {"data.b": None}, False),
    ([1], {"data.b": None}, False),
    ([{"c": 1}], {"data.b": None}, True),
    (1, {"data.b": None}, True),
    ([], {"data": None}, False),
    ([None], {"data": None}, True),
    ([], {"data.b": {"$exists": False}}, True),
    ([1], {"data.b": {"$ne": None}}, True),
    # Types.
    (True, {"data": 1}, False),
    (1, {"data": 1.0}, True),
    ({"x": 1.0}, {"data": {"x": 1}}, True),
    (2**53 + 1, {"data": 2.0**53}, False),
    (True, {"data": {"$gt": False}}, True),
    (True, {"data": {"$gt": 0}}, False),
    ("x", {"data": {"$not": {"$gt": 3}}}, True),
    ([1, 9], {"data": {"$gt": 5, "$lt": 3}}, True),
    ([5], {"data": {"$nin": [5]}}, False),
    ({"b": 1, "a": 2}, {"data": {"a": 2, "b": 1}}, True),
    ({"b": 1, "a": 2}, {"data": {"a": 2}}, False),
]


@pytest.fixture(scope="module")
def judge() -> Iterator[Oracle]:
    with oracle() as made:
        yield made


def matches(document: dict[str, Any], asked: dict[str, Any]) -> bool:
    return matcher(filters.parse(asked, "assets"))(document)


@pytest.mark.parametrize(("value", "asked", "expected"), CASES, ids=str)
def test_what_is_peculiar(judge: Oracle, value: Any, asked: dict[str, Any], expected: bool) -> None:
    assert matches({"data": value}, asked) is expected
    judge.hold([{"data": value if value != {"b": 1, "a": 2} else {"a": 2, "b": 1}}])
    parsed = filters.parse(asked, "assets")
    assert judge.matching(filters.to_mongo(parsed, str)) == [0] * expected


@settings(max_examples=6000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(DOCUMENTS, min_size=1, max_size=10), st.lists(FILTERS, min_size=1, max_size=10))
@example([{"data": [{"0": [{"0": 1}]}]}], [{"data.0.0": 1}, {"data.0.0.0": 1}])
def test_random_filters_match_what_they_match_in_mongodb(
    judge: Oracle, documents: list[dict[str, Any]], asked: list[dict[str, Any]]
) -> None:
    judge.hold(documents)
    for one in asked:
        parsed = filters.parse(one, "assets")
        assert filters.missing_in_embedded(parsed) is None
        here = [number for number, document in enumerate(documents) if matcher(parsed)(document)]
        assert here == judge.matching(filters.to_mongo(parsed, str)), one


@given(VALUES, VALUES)
def test_what_is_the_same_is_found_among_others(one: Any, other: Any) -> None:
    assert same(one, one)
    among = matches({"data": {"x": one}}, {"data": {"$in": [{"x": other}, [None]]}})
    assert among is same(one, other) is same(other, one)


def test_an_operator_of_mongodb_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match=r"\$size"):
        matcher(filters.parse({"data": {"$not": {"$size": 1}}}, "assets"))


def test_a_path_of_numbers_has_not_ways_without_end() -> None:
    deep: Any = 1
    for _ in range(25):
        deep = [{"0": deep}]
    path = "data" + ".0" * 8
    assert not matches({"data": [deep] * 1000}, {path: "x"})
