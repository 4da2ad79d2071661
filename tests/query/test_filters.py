"""The filter language: what is read, what MongoDB is told of it, and the sentences that refuse the rest."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query import filters
from query.documents import COLLECTIONS, documents
from query.errors import InvalidSearch
from query.filters import And, Elements, Equal, Exists, In, Not, Or, Range, Regex, Text
from tests.query.documents import block_of, create, transfer
from tests.query.mongo_oracle import Oracle, oracle
from tests.query.questions import FILTERS

DATA_X = ("data", "x")


@pytest.fixture(scope="module")
def judge() -> Iterator[Oracle]:
    with oracle() as made:
        yield made


def parse(asked: Any, collection: str | None = "assets") -> filters.Filter:
    return filters.parse(asked, collection)


def mongo(asked: Any, collection: str | None = "assets") -> dict[str, Any]:
    return filters.to_mongo(parse(asked, collection), lambda key: key.replace("%", "%25").replace("$", "%24"))


class TestReading:
    @pytest.mark.parametrize(
        ("asked", "read"),
        [
            ({}, And(())),
            ({"id": "a"}, Equal(("id",), "a")),
            ({"data.x": None}, Equal(DATA_X, None)),
            ({"data": {}}, Equal(("data",), {})),
            ({"data.x": {"$gt": 1, "$lt": 5}}, And((Range(DATA_X, "$gt", 1), Range(DATA_X, "$lt", 5)))),
            ({"data.x": {"$ne": 1}}, Not(Equal(DATA_X, 1), "$ne")),
            ({"data.x": {"$nin": [1]}}, Not(In(DATA_X, (1,)), "$nin")),
            ({"data.x": {"$exists": 0}}, Exists(DATA_X, False)),
            ({"data.x": {"$not": {"$gt": 1}}}, Not(Range(DATA_X, "$gt", 1), "$not")),
            ({"$nor": [{"id": "a"}]}, Not(Or((Equal(("id",), "a"),)), "$nor")),
            ({"$text": {"$search": "a"}}, Text("a", None)),
            ({"data.x": {"$elemMatch": {"$gt": 1}}}, Elements(DATA_X, Range((), "$gt", 1), True)),
            ({"data.x": {"$elemMatch": {"y": 1}}}, Elements(DATA_X, Equal(("y",), 1), False)),
            ({"data.x": {"$regex": "^a.*z", "$options": "si"}}, Regex(DATA_X, "^a.*z", "is", 50_000)),
        ],
        ids=str,
    )
    def test_what_is_read(self, asked: Any, read: filters.Filter) -> None:
        assert parse(asked) == read

    def test_objects_to_compare_with_get_their_keys_in_order(self) -> None:
        read = parse({"data": {"b": [{"d": 1, "c": 2}], "a": 3}})
        assert isinstance(read, Equal)
        assert list(read.value) == ["a", "b"]
        assert list(read.value["b"][0]) == ["c", "d"]

    def test_the_objects_in_documents_have_theirs_in_the_same_order(self) -> None:
        """Or MongoDB, where an object with other order is another one, would never find them equal."""
        made = block_of(1, create(1, {}), transfer(2, 1, [(1, 0)]))
        for collection in COLLECTIONS:
            for _, document in documents(collection, made):
                for name, value in document.items():
                    again = parse({name: value}, collection)
                    assert isinstance(again, Equal)
                    assert json.dumps(again.value) == json.dumps(value)

    def test_what_was_asked_is_not_changed(self) -> None:
        asked = {"data": {"b": [1], "a": 3}}
        read = parse(asked)
        assert isinstance(read, Equal)
        asked["data"]["b"] = [2]
        assert read.value == {"a": 3, "b": [1]}

    def test_the_parts_that_must_all_match(self) -> None:
        read = parse(
            {"id": "a", "$and": [{"height": 1}, {"$or": [{"height": 2}]}], "data.x": {"$gt": 1, "$lt": 2}}
        )
        assert filters.conjuncts(read) == (
            Equal(("id",), "a"),
            Equal(("height",), 1),
            Or((Equal(("height",), 2),)),
            Range(DATA_X, "$gt", 1),
            Range(DATA_X, "$lt", 2),
        )

    @pytest.mark.parametrize(
        ("asked", "name"),
        [
            ({"data.x": {"$size": 1}}, "$size"),
            ({"data.x": {"$all": [1]}}, "$all"),
            ({"data.x": {"$type": "int"}}, "$type"),
            ({"data.x": {"$mod": [2, 0]}}, "$mod"),
            ({"$or": [{"id": "a"}, {"$nor": [{"data.x": {"$not": {"$regex": "a"}}}]}]}, "$regex"),
            ({"id": "a", "data.x": {"$elemMatch": {"$gt": 1}}}, "$elemMatch"),
            ({"$text": {"$search": "a"}}, "$text"),
        ],
        ids=str,
    )
    def test_what_only_mongodb_answers_is_named(self, asked: Any, name: str) -> None:
        assert filters.missing_in_embedded(parse(asked)) == name

    @given(FILTERS)
    def test_the_common_language_is_answered_by_both(self, asked: dict[str, Any]) -> None:
        assert filters.missing_in_embedded(parse(asked)) is None


class TestMongo:
    @pytest.mark.parametrize(
        ("asked", "told"),
        [
            ({}, {}),
            ({"data.$x": {"$eq": {"$y": [{"%": 1}]}}}, {"data.%24x": {"$eq": {"%24y": [{"%25": 1}]}}}),
            (
                {"data.x": {"$ne": 1, "$exists": True}},
                {"$and": [{"data.x": {"$ne": 1}}, {"data.x": {"$exists": True}}]},
            ),
            ({"$nor": [{"id": "a"}, {"id": "b"}]}, {"$nor": [{"id": {"$eq": "a"}}, {"id": {"$eq": "b"}}]}),
            (
                {"data.x": {"$elemMatch": {"$gt": 1, "$ne": 5, "$not": {"$eq": 7, "$lt": 3}}}},
                {"data.x": {"$elemMatch": {"$gt": 1, "$ne": 5, "$not": {"$eq": 7, "$lt": 3}}}},
            ),
            (
                {"data.x": {"$elemMatch": {"$or": [{"y": 1}, {"$z%": 2}]}}},
                None,
            ),
            (
                {"data.x": {"$all": [{"$elemMatch": {"y%": 1}}]}},
                {"data.x": {"$all": [{"$elemMatch": {"y%25": {"$eq": 1}}}]}},
            ),
            ({"data.x": {"$type": ["int", 1]}}, {"data.x": {"$type": ["int", "long", "double"]}}),
            (
                {"$text": {"$search": "a", "$language": "none"}},
                {"$text": {"$search": "a", "$language": "none"}},
            ),
            (
                {"data.x": {"$in": [{"$b": 1}], "$not": {"$regex": "a", "$options": "i"}}},
                {
                    "$and": [
                        {"data.x": {"$in": [{"%24b": 1}]}},
                        {"data.x": {"$not": {"$regex": "a", "$options": "i"}}},
                    ]
                },
            ),
        ],
        ids=str,
    )
    def test_what_it_is_told(self, asked: Any, told: Any) -> None:
        if told is None:
            with pytest.raises(InvalidSearch, match="is not offered"):
                mongo(asked)
        else:
            assert mongo(asked) == told

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            ({"data.n": {"$mod": [5, 2]}}, [0, 1]),
            ({"data.n": {"$type": "int"}}, [0, 2]),
            ({"data.n": {"$type": "double"}}, [1]),
            ({"data.n": {"$type": 16}}, [0, 2]),
            ({"data.l": {"$size": 2}}, [0]),
            ({"data.l": {"$all": [1, 2]}}, [0]),
            ({"data.l": {"$all": []}}, []),
            ({"data.l": {"$elemMatch": {"$gt": 1, "$lt": 3}}}, [0]),
            ({"data.l": {"$elemMatch": {"k": {"$gte": 5}, "$nor": [{"k": 6}]}}}, [1]),
            ({"data.l": {"$all": [{"$elemMatch": {"k": 5}}, {"$elemMatch": {"k": 6}}]}}, [1]),
            ({"data.l": {"$elemMatch": {}}}, [1]),
            ({"data.s": {"$regex": "^r.*e$"}}, [0]),
            ({"data.s": {"$regex": "RYE", "$options": "i"}}, [0]),
            ({"data.s": {"$regex": "^two$", "$options": "m"}}, [1]),
            ({"data.s": {"$regex": "one.two", "$options": "s"}}, [1]),
            ({"data.s": {"$regex": "one.two"}}, []),
            ({"data.s": {"$not": {"$regex": "r"}}}, [1, 2]),
        ],
        ids=str,
    )
    def test_what_it_answers(self, judge: Oracle, asked: Any, expected: list[int]) -> None:
        judge.hold(
            [
                {"data": {"n": 7, "l": [1, 2], "s": "rye"}},
                {"data": {"n": 7.5, "l": [{"k": 5}, {"k": 6}, 3], "s": "one\ntwo"}},
                {"data": {"n": 2**40, "l": 2, "s": 5}},
            ]
        )
        assert judge.matching(filters.to_mongo(parse(asked), str)) == expected


class TestRefusals:
    @pytest.mark.parametrize(
        ("asked", "sentence"),
        [
            ([], "A filter takes an object, not an array"),
            (
                {"dat.x": 1},
                "The collection assets has no field `dat`. Did you mean data? There are: id, height",
            ),
            ({"data..x": 1}, "The path `data..x` has an empty part"),
            ({"data." + "x" * 1024: 1}, "is longer than 1,024 characters"),
            ({"data" + ".x" * 20: 1}, "has more than 20 parts"),
            ({"data" + ".1" * 9: 1}, "has more than 8 numbers"),
            ({"data.\ud800": 1}, "what JSON can't hold"),
            ({"$where": "1"}, "`$where` is not offered, as it would run a program in the database"),
            ({"$expr": {}}, "`$expr` is not offered"),
            ({"data.x": {"$gtt": 1}}, "`$gtt` is not offered. Did you mean $gt? There are: $eq, $ne"),
            ({"data.x": {"$where": "1"}}, "`$where` is not offered"),
            ({"data.x": {"$and": []}}, "$and does not stand behind a path: `data.x`"),
            ({"$gt": 1}, "$gt can't stand here"),
            ({"$and": []}, "$and takes an array of filters that is not empty"),
            ({"$or": {"id": 1}}, "$or takes an array of filters that is not empty"),
            ({"$or": [1]}, "Each part of $or takes an object, not a number"),
            ({"data.x": {"y": 1, "$gt": 1}}, "has operators and other keys"),
            ({"data.x": {"$gt": None}}, "$gt for `data.x` takes a number, a text or a boolean, not null"),
            (
                {"data.x": {"$lte": [1]}},
                "$lte for `data.x` takes a number, a text or a boolean, not an array",
            ),
            ({"data.x": {"$in": 1}}, "$in for `data.x` takes an array of values, not a number"),
            ({"data.x": {"$nin": [1] * 1001}}, "$nin for `data.x` has 1,001 values; 1,000 are allowed"),
            ({"data.x": {"$exists": "yes"}}, "$exists for `data.x` takes true or false, not a text"),
            ({"data.x": {"$not": 1}}, "$not for `data.x` takes an object, not a number"),
            ({"data.x": {"$not": {}}}, "$not for `data.x` takes an object of operators"),
            ({"data.x": {"$not": {"y": 1}}}, "$not for `data.x` takes an object of operators"),
            ({"data.x": {"$size": -1}}, "$size for `data.x` takes an integer from 0"),
            ({"data.x": {"$size": True}}, "$size for `data.x` takes an integer from 0"),
            ({"data.x": {"$type": "decimal"}}, "$type for `data.x` takes one of number, string"),
            ({"data.x": {"$type": [True]}}, "$type for `data.x` takes one of"),
            ({"data.x": {"$type": []}}, "$type for `data.x` takes at least one type"),
            ({"data.x": {"$mod": [0, 1]}}, "$mod for `data.x` takes [divisor, remainder]"),
            ({"data.x": {"$mod": [2]}}, "$mod for `data.x` takes [divisor, remainder]"),
            ({"data.x": {"$all": [1, {"$elemMatch": {}}]}}, "either values or $elemMatch objects, not both"),
            ({"data.x": {"$elemMatch": 1}}, "$elemMatch for `data.x` takes an object, not a number"),
            ({"data.x": {"$regex": 1}}, "$regex for `data.x` takes a text, not a number"),
            ({"data.x": {"$regex": "a", "$options": "x"}}, "$options for `data.x` are letters of"),
            ({"data.x": {"$options": "i"}}, "$options for `data.x` belongs to a $regex"),
            ({f"data.x{n}": {"$regex": "a"} for n in range(5)}, "more than 4 regular expressions"),
            ({"data.x": 2**63}, "The value for `data.x`: an integer has at most 64 bits"),
            ({"data.x": [{"y": -(2**63) - 1}]}, "an integer has at most 64 bits"),
            ({"data.x": "x" * 65536}, "The filter has 65,549 bytes; 65,536 are allowed"),
            ({"$or": [{"id": str(n)} for n in range(200)]}, "The filter has more than 200 operators"),
            ({"$text": {"$search": 1}}, "$text takes $search, a text"),
            ({"$text": {"$search": "a", "$caseSensitive": True}}, "$text has no `$caseSensitive`"),
            ({"$text": {"$search": "a", "$language": "klingon"}}, "$language is not one of"),
            ({"$text": {"$search": "a", "$language": []}}, "$language is not one of"),
            ({"$text": {"$search": "a", "$language": {}}}, "$language is not one of"),
            ({"$or": [{"$text": {"$search": "a"}}]}, "$text may stand once, at the top"),
            ({"data.x": {"$text": {"$search": "a"}}}, "$text does not stand behind a path"),
        ],
        ids=str,
    )
    def test_what_is_refused(self, asked: Any, sentence: str) -> None:
        with pytest.raises(InvalidSearch) as caught:
            parse(asked)
        assert sentence in caught.value.text

    @pytest.mark.parametrize("collection", ["outputs", "transactions", "blocks"])
    def test_text_is_searched_where_there_is_some(self, collection: str) -> None:
        with pytest.raises(InvalidSearch, match="assets and metadata are"):
            parse({"$text": {"$search": "a"}}, collection)

    def test_paths_are_free_without_a_collection(self) -> None:
        assert parse({"_id.x": 1}, None) == Equal(("_id", "x"), 1)
        with pytest.raises(InvalidSearch, match="once, at the top"):
            parse({"$text": {"$search": "a"}}, None)

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
    def test_what_no_json_has_is_refused(self, number: float) -> None:
        with pytest.raises(InvalidSearch, match="is not a number that JSON has"):
            parse({"data.x": number})

    def test_depth_has_a_bound(self) -> None:
        def nested(levels: int) -> dict[str, Any]:
            made: dict[str, Any] = {"id": "a"}
            for _ in range(levels):
                made = {"$and": [made]}
            return made

        def negated(levels: int) -> dict[str, Any]:
            made: dict[str, Any] = {"$gt": 1}
            for _ in range(levels):
                made = {"$not": made}
            return made

        assert mongo(nested(9)) == {"id": {"$eq": "a"}}
        parse({"data.x": negated(9)})
        for asked in (nested(10), {"data.x": negated(10)}, nested(500), nested(5000)):
            with pytest.raises(InvalidSearch, match="nested"):
                parse(asked)

    def test_the_depth_of_a_value_has_a_bound(self) -> None:
        value: Any = 1
        for _ in range(63):
            value = [value]
        parse({"data.x": value})
        with pytest.raises(InvalidSearch, match="nested more than 64 deep"):
            parse({"data.x": [value]})

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from([*filters.OPERATORS, "$where", "$", "", "id", "data.x", "$x.y"])
                    | st.text(max_size=3),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=12,
        )
    )
    def test_anything_is_read_or_refused_with_a_sentence(self, asked: Any) -> None:
        try:
            read = parse(asked)
        except InvalidSearch:
            return
        filters.to_mongo(read, str)
        filters.conjuncts(read)
        filters.missing_in_embedded(read)
