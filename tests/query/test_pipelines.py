"""Aggregations: which stages and expressions are let through, what MongoDB makes of them, what is refused."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query import pipelines
from query.errors import InvalidSearch
from query.expressions import ACCUMULATORS, OPERATORS
from tests.query.mongo_oracle import Oracle, oracle

LOTS = [
    {
        "id": "a",
        "height": 1,
        "data": {"kind": "rye", "lot": 7, "at": "2026-01-01T10:00:00.123456789Z", "l": [1, 2]},
    },
    {
        "id": "b",
        "height": 2,
        "data": {"kind": "rye", "lot": 8, "at": "2026-01-01T11:00:00.000000000Z", "l": []},
    },
    {"id": "c", "height": 2, "data": {"kind": "spelt", "lot": 9.5, "at": "2026-01-02T00:00:00.000000000Z"}},
]


@pytest.fixture(scope="module")
def judge() -> Iterator[Oracle]:
    with oracle() as made:
        yield made


def encode_key(key: str) -> str:
    return key.replace("%", "%25").replace("$", "%24")


def told(*stages: Any, collection: str = "assets") -> list[dict[str, Any]]:
    return pipelines.to_mongo(pipelines.check(list(stages), collection), encode_key)


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([{"$match": {"data.kind": "rye"}}, {"$count": "n"}], [{"n": 2}]),
        (
            [
                {"$group": {"_id": "$data.kind", "lots": {"$sum": "$data.lot"}, "n": {"$count": {}}}},
                {"$sort": {"_id": 1}},
            ],
            [{"_id": "rye", "lots": 15, "n": 2}, {"_id": "spelt", "lots": 9.5, "n": 1}],
        ),
        ([{"$sortByCount": "$data.kind"}, {"$limit": 1}], [{"_id": "rye", "count": 2}]),
        ([{"$skip": 2}, {"$project": {"id": 1}}], [{"id": "c"}]),
        ([{"$project": {"data": {"lot": 1}, "id": "$$REMOVE"}}, {"$limit": 1}], [{"data": {"lot": 7}}]),
        ([{"$unset": ["data", "height"]}, {"$limit": 1}], [{"id": "a"}]),
        (
            [
                {"$unwind": {"path": "$data.l", "includeArrayIndex": "n"}},
                {"$project": {"x": "$data.l", "n": 1}},
            ],
            [{"n": 0, "x": 1}, {"n": 1, "x": 2}],
        ),
        (
            [
                {"$addFields": {"day": {"$substrCP": ["$data.at", 0, 10]}}},
                {"$sortByCount": "$day"},
                {"$limit": 1},
            ],
            [{"_id": "2026-01-01", "count": 2}],
        ),
        (
            [
                {"$set": {"day": {"$dateToString": {"date": {"$toDate": "$data.at"}, "format": "%d"}}}},
                {"$match": {"day": "02", "id": {"$ne": "x"}}},
                {"$project": {"day": 1, "hour": {"$hour": {"$dateFromString": {"dateString": "$data.at"}}}}},
            ],
            [{"day": "02", "hour": 0}],
        ),
        (
            [
                {
                    "$bucket": {
                        "groupBy": "$data.lot",
                        "boundaries": [0, 8, 9],
                        "default": "more",
                        "output": {"ids": {"$push": "$id"}},
                    }
                }
            ],
            [{"_id": 0, "ids": ["a"]}, {"_id": 8, "ids": ["b"]}, {"_id": "more", "ids": ["c"]}],
        ),
        (
            [
                {"$limit": 1},
                {
                    "$project": {
                        "a": {"$cond": {"if": {"$gt": ["$data.lot", 5]}, "then": "many", "else": "few"}},
                        "b": {"$cond": [{"$in": [2, "$data.l"]}, {"$literal": {"$x": "$y"}}, 0]},
                        "c": {
                            "$switch": {
                                "branches": [{"case": {"$eq": ["$id", "z"]}, "then": 1}],
                                "default": 2,
                            }
                        },
                        "d": {"$ifNull": ["$data.none", {"e": "$$ROOT.id"}]},
                        "f": {"$split": ["$data.kind", "y"]},
                        "g": {"$trim": {"input": " x "}},
                    }
                },
            ],
            [
                {
                    "a": "many",
                    "b": {"%24x": "$y"},
                    "c": 2,
                    "d": {"e": "a"},
                    "f": ["r", "e"],
                    "g": "x",
                }
            ],
        ),
    ],
    ids=str,
)
def test_what_is_made(judge: Oracle, stages: list[Any], expected: list[Any]) -> None:
    judge.hold(LOTS)
    assert judge.aggregated(told(*stages)) == expected


def test_all_stored_names_are_encoded() -> None:
    assert told(
        {"$match": {"data.$a": {"$eq": {"$b": 1}}}},
        {"$match": {"data.%": 1}},
        {"$sort": {"data.%": -1}},
        {"$unwind": "$data.%"},
        {"$group": {"_id": {"%": "$data.%.x"}, "n%": {"$max": ["$data.%"][0]}}},
        {"$project": {"_id.%": 1, "o": {"n%": {"$concat": ["$n%", "$$ROOT.n%"]}}}},
        {"$unset": "o.n%"},
        {"$count": "c%"},
    ) == [
        {"$match": {"data.%24a": {"$eq": {"%24b": 1}}}},
        {"$match": {"data.%25": {"$eq": 1}}},
        {"$sort": {"data.%25": -1}},
        {"$unwind": {"path": "$data.%25"}},
        {"$group": {"_id": {"%25": "$data.%25.x"}, "n%25": {"$max": "$data.%25"}}},
        {"$project": {"_id.%25": 1, "o": {"n%25": {"$concat": ["$n%25", "$$ROOT.n%25"]}}}},
        {"$unset": ["o.n%25"]},
        {"$count": "c%25"},
    ]


def test_what_is_let_through_is_a_copy() -> None:
    asked = [{"$match": {"data.x": [1]}}]
    checked = pipelines.check(asked, "assets")
    asked[0]["$match"]["data.x"].append(2)
    assert checked == [{"$match": {"data.x": [1]}}]


def test_text_may_be_searched_first() -> None:
    assert told({"$match": {"height": 1}}, {"$limit": 1})
    pipelines.check([{"$match": {"$text": {"$search": "a"}}}], "assets")
    for stages in (
        [{"$limit": 1}, {"$match": {"$text": {"$search": "a"}}}],
        [{"$match": {}}, {"$match": {"$text": {"$search": "a"}}}],
    ):
        with pytest.raises(InvalidSearch, match="in the first stage only"):
            pipelines.check(stages, "assets")


DATE = {"$toDate": {"$toLong": 0}}
DATE_PARTS = frozenset(name for name, each in OPERATORS.items() if each.named == ("date", "timezone"))

ARGUMENTS: dict[str, Any] = {
    "$switch": {"branches": [{"case": True, "then": 1}]},
    "$trim": {"input": "a"},
    "$ltrim": {"input": "a"},
    "$rtrim": {"input": "a", "chars": "a"},
    "$substrCP": ["abc", 0, 1],
    "$split": ["abc", "b"],
    "$cond": [True, 1, 2],
    "$slice": [[1, 2], 1],
    "$arrayElemAt": [[1], 0],
    "$in": [1, [1]],
    "$size": [[1]],
    "$first": [[1]],
    "$last": [[1]],
    "$concatArrays": [[1], [2]],
    "$dateFromString": {"dateString": "2026-01-01"},
    "$dateToString": {"date": DATE},
    "$dateTrunc": {"date": DATE, "unit": "day"},
    "$dateDiff": {"startDate": DATE, "endDate": DATE, "unit": "day"},
    "$concat": ["a", "b"],
    "$strLenCP": "a",
    "$strLenBytes": "a",
    "$toDate": {"$toLong": 0},
}


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_mongodb_has_each_operator(judge: Oracle, name: str) -> None:
    """With the least and with the most arguments that are let through."""
    judge.hold([{"x": 1}])
    operator = OPERATORS[name]
    given = [ARGUMENTS[name]] if name in ARGUMENTS else []
    if name in DATE_PARTS:
        given = [DATE, {"date": DATE, "timezone": "UTC"}]
    elif not given:
        given = [[2] * max(operator.least, 1), [2] * min(operator.most, 3)]
    for each in given:
        assert judge.aggregated(told({"$project": {"made": {name: each}}}))


@pytest.mark.parametrize("name", sorted(ACCUMULATORS))
def test_mongodb_has_each_accumulator(judge: Oracle, name: str) -> None:
    judge.hold(LOTS)
    given: Any = {} if name == "$count" else "$data.lot"
    assert len(judge.aggregated(told({"$group": {"_id": None, "made": {name: given}}}))) == 1


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        ({}, "A pipeline is an array of stages, not an object"),
        ([1], "Stage 1 of the pipeline takes an object, not a number"),
        ([{}], "Stage 1 of the pipeline has 0 keys, not one"),
        ([{"$limit": 1}, {"$limit": 1, "$skip": 1}], "Stage 2 of the pipeline has 2 keys, not one"),
        (
            [{"$lookup": {}}],
            "The stage `$lookup` is not offered, as an aggregation reads one collection only",
        ),
        ([{"$out": "x"}], "`$out` is not offered, as nothing is written by asking"),
        ([{"$merge": "x"}], "`$merge` is not offered, as nothing is written by asking"),
        ([{"$grop": {}}], "`$grop` is not offered. Did you mean $group?"),
        ([{"$match": {"dat": 1}}], "The collection assets has no field `dat`"),
        ([{"$match": {"$where": "1"}}], "`$where` is not offered"),
        ([{"$match": {"$expr": {}}}], "`$expr` is not offered"),
        ([{"$group": {"_id": "$kind"}}], "The collection assets has no field `kind`"),
        ([{"$sort": {"kind": 1}}], "The collection assets has no field `kind`"),
        ([{"$sort": {}}], "$sort takes at least one path"),
        ([{"$sort": {"id": {"$meta": "textScore"}}}], "takes 1 (upwards) or -1"),
        ([{"$limit": 0}], "$limit takes an integer from 1"),
        ([{"$skip": True}], "$skip takes an integer from 0"),
        ([{"$group": {}}], "$group needs `_id`"),
        ([{"$group": {"_id": None, "a.b": {"$sum": 1}}}], "`a.b` is no name for a field"),
        ([{"$group": {"_id": None, "$a": {"$sum": 1}}}], "`$a` is no name for a field"),
        ([{"$group": {"_id": None, "a": 1}}], "takes an object, not a number"),
        (
            [{"$group": {"_id": None, "a": {"$accumulator": {}}}}],
            "`$accumulator` is not offered, as it would run",
        ),
        ([{"$group": {"_id": None, "a": {"$summ": 1}}}], "`$summ` is not offered. Did you mean $sum?"),
        ([{"$group": {"_id": None, "a": {"$sum": [1, 2]}}}], "$sum of a group takes one expression"),
        ([{"$group": {"_id": None, "a": {"$count": 1}}}], "$count takes {}"),
        ([{"$project": {}}], "$project takes at least one field"),
        ([{"$project": {"$x": 1}}], "`$x` is no name for a field"),
        ([{"$project": {"a..b": 1}}], "has an empty part"),
        ([{"$addFields": {}}], "$addFields takes at least one field"),
        (
            [{"$project": {"a": {"$map": {}}}}],
            "`$map` is not offered in expressions, as it could take any amount",
        ),
        ([{"$project": {"a": {"$function": {}}}}], "as it would run a program in the database"),
        ([{"$project": {"a": {"$addd": 1}}}], "`$addd` is not offered in expressions. Did you mean $add?"),
        ([{"$project": {"a": {"$add": 1, "$abs": 1}}}], "an object has one operator and nothing beside it"),
        (
            [{"$project": {"a": {"$subtract": [1]}}}],
            "$subtract in $project, field `a` takes 2 argument(s), not 1",
        ),
        ([{"$project": {"a": {"$trim": "x"}}}], "takes an object with input, chars"),
        ([{"$project": {"a": {"$trim": {"chars": "x"}}}}], "needs the argument input"),
        ([{"$project": {"a": {"$trim": {"input": "x", "all": 1}}}}], "has no argument `all`"),
        ([{"$project": {"a": {"$trim": {"input": "x", "chars": "$id"}}}}], "takes a constant of 1 to 32"),
        ([{"$project": {"a": {"$split": ["$id", "$id"]}}}], "takes a constant of 1 to 32"),
        ([{"$project": {"a": {"$split": ["$id", {"$concat": ["a"]}]}}}], "takes a constant of 1 to 32"),
        (
            [{"$project": {"a": {"$switch": {"branches": []}}}}],
            "takes an array of branches that is not empty",
        ),
        ([{"$project": {"a": {"$switch": {"branches": [{"case": 1}]}}}}], "needs the argument then"),
        ([{"$project": {"a": "$$NOW"}}], "the variable `$$NOW` is not offered"),
        ([{"$project": {"a": "$$ROOT.x"}}], "has no field `x`"),
        ([{"$project": {"a": "$data.$x"}}], "a part that begins with $"),
        ([{"$project": {"a": "$"}}], "has an empty part"),
        (
            [{"$project": {"a": {"x.y": "$id"}}}, {"$group": {"_id": {"x.y": "$id"}}}],
            "`x.y` is no name for a field",
        ),
        ([{"$project": {"a": [2**63]}}], "at most 64 bits"),
        ([{"$unset": []}], "$unset takes a path or an array of paths"),
        ([{"$unset": "kind"}], "has no field `kind`"),
        ([{"$unwind": "data"}], "$unwind takes a path with a $ in front"),
        ([{"$unwind": {"path": "$data", "as": "x"}}], "$unwind has no argument `as`"),
        ([{"$unwind": {"path": "$data", "includeArrayIndex": 1}}], "includeArrayIndex takes a name"),
        ([{"$unwind": {"path": "$data", "preserveNullAndEmptyArrays": 1}}], "takes true or false"),
        ([{"$count": 1}], "$count takes a name"),
        ([{"$count": "$n"}], "`$n` is no name for a field"),
        ([{"$sortByCount": "id"}], '$sortByCount takes a path like "$data.kind"'),
        ([{"$bucket": {"groupBy": "$height"}}], "$bucket takes boundaries"),
        ([{"$bucket": {"groupBy": "$height", "boundaries": [2, 1]}}], "boundaries stand in order"),
        ([{"$bucket": {"groupBy": "$height", "boundaries": [1, "2"]}}], "all numbers, or all texts"),
        ([{"$bucket": {"groupBy": 1, "boundaries": [1, 2]}}], "$bucket takes a path"),
        (
            [{"$bucket": {"groupBy": "$height", "boundaries": [1, 2], "default": "$x"}}],
            "default takes a constant",
        ),
        (
            [{"$bucket": {"groupBy": "$height", "boundaries": [1, 2], "buckets": 1}}],
            "$bucket has no argument `buckets`",
        ),
        ([{"$limit": 1}] * 21, "The pipeline has 21 stages; 20 are allowed"),
        ([{"$match": {"id": "x" * 65536}}], "bytes; 65,536 are allowed"),
        (
            [{"$project": {f"a{n}": {"$abs": 1} for n in range(250)}}],
            "more than 500 operators, paths and constants",
        ),
        ([{"$addFields": {"x": "$$ROOT", "y": "$$ROOT"}}] * 5, "at most 32 copies of a value"),
        ([{"$addFields": {"x": ["$id"] * 40}}], "at most 32 copies of a value"),
        ([{"$project": {"x": {"$split": ["$id", "a"]}}}] * 2, "at most 32 copies of a value"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_refused(stages: Any, sentence: str) -> None:
    with pytest.raises(InvalidSearch) as caught:
        pipelines.check(stages, "assets")
    assert sentence in caught.value.text


def test_the_depth_of_an_expression_has_a_bound() -> None:
    value: Any = 1
    for _ in range(19):
        value = {"$abs": value}
    told({"$project": {"a": value}})
    with pytest.raises(InvalidSearch, match="nested more than 20 deep"):
        told({"$project": {"a": {"$abs": value}}})


def test_many_stages_that_copy_little_are_allowed() -> None:
    told(
        {"$match": {"height": {"$gt": 1}}},
        {"$addFields": {"day": {"$substrCP": ["$data.at", 0, 10]}, "big": {"$gt": ["$data.lot", 5]}}},
        {"$unwind": "$data.l"},
        {
            "$group": {
                "_id": {"day": "$day", "big": "$big"},
                **{f"n{n}": {"$sum": "$data.l"} for n in range(50)},
            }
        },
        {"$addFields": {"more": {"$add": [f"$n{n}" for n in range(50)]}}},
        {"$project": {"_id": 0, "day": "$_id.day", "big": "$_id.big", "more": 1}},
        {"$sort": {"more": -1}},
        {"$limit": 5},
    )


@pytest.mark.parametrize(
    "stages",
    [
        [{"$addFields": {"data": {"$concat": ["$data.t"] * 8}}}, {"$project": {"n": {"$strLenCP": "$data"}}}],
        [{"$addFields": {"a": "$$ROOT", "b": "$$ROOT"}}] * 3
        + [{"$group": {"_id": "$$ROOT"}}, {"$count": "n"}],
        [{"$project": {"x": [{"$split": ["$data.t", "a"]}] * 4}}, {"$project": {"n": {"$size": "$x"}}}],
    ],
    ids=str,
)
def test_copies_cost_no_more_than_some_memory_and_time(judge: Oracle, stages: list[Any]) -> None:
    judge.hold([{"data": {"t": "a" * 900_000}}])
    started = time.monotonic()
    assert len(judge.aggregated(told(*stages))) == 1
    assert time.monotonic() - started < 10


NAMES = st.sampled_from(
    [
        "$match",
        "$group",
        "$project",
        "$addFields",
        "$unwind",
        "$bucket",
        "$count",
        "_id",
        "id",
        "data.x",
        "a",
        "$",
        "",
        "$add",
        "$cond",
        "$switch",
        "branches",
        "case",
        "$sum",
        "$literal",
        "$split",
        "path",
        "groupBy",
        "boundaries",
    ]
)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["$id", "$$ROOT", "$", "$$", "a", "$data.x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=12,
)


@given(ANYTHING | st.lists(st.dictionaries(NAMES, ANYTHING, min_size=1, max_size=1), max_size=3))
def test_anything_is_let_through_or_refused_with_a_sentence(asked: Any) -> None:
    try:
        checked = pipelines.check(asked, "assets")
    except InvalidSearch:
        return
    pipelines.to_mongo(checked, encode_key)
