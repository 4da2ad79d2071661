"""Projections: what may be asked, and a real MongoDB as the judge of what is left of a document."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from query import fields
from query.errors import InvalidSearch
from tests.query.mongo_oracle import Oracle, oracle
from tests.query.questions import DOCUMENTS, PATHS


@pytest.fixture(scope="module")
def judge() -> Iterator[Oracle]:
    with oracle() as made:
        yield made


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(DOCUMENTS, min_size=1, max_size=6),
    st.lists(PATHS, min_size=1, max_size=3, unique=True),
    st.booleans(),
)
def test_random_projections_are_those_of_mongodb(
    judge: Oracle, documents: list[dict[str, Any]], paths: list[str], exclude: bool
) -> None:
    judge.hold(documents)
    asked = dict.fromkeys(paths, 0 if exclude else 1)
    if any(longer.startswith(f"{path}.") for path in paths for longer in paths):
        with pytest.raises(InvalidSearch, match="within it"):
            fields.parse(asked, "assets")
        return
    parsed = fields.parse(asked, "assets")
    before = json.dumps(documents)
    made = [fields.apply(document, *parsed) for document in documents]
    assert json.dumps(made) == json.dumps(judge.projected(fields.to_mongo(*parsed, str)))
    assert json.dumps(documents) == before


def test_everything_is_answered_without_one() -> None:
    assert fields.parse({}, "assets") == ((), False)
    assert fields.apply({"id": 1}, (), False) == {"id": 1}


def test_fields_keep_their_order() -> None:
    parsed = fields.parse({"data.b": 1, "id": True}, "assets")
    made = fields.apply({"id": "x", "height": 1, "data": {"a": 1, "b": [2]}}, *parsed)
    assert msgspec.json.encode(made) == b'{"id":"x","data":{"b":[2]}}'


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (5, "A projection takes an object, not a number"),
        ({"id": 1, "data": 0}, "not both"),
        ({"id": 2}, "takes 1 (answer it) or 0 (leave it out) for `id`"),
        ({"data": {"$slice": 1}}, "takes 1 (answer it) or 0 (leave it out) for `data`"),
        ({"data": 1, "data.x.y": 1}, "names `data` and, within it, `data.x.y`"),
        ({"owner": 1}, "has no field `owner`"),
        ({f"data.x{n}": 1 for n in range(51)}, "at most 50 paths, this one 51"),
    ],
)
def test_what_is_refused(asked: Any, sentence: str) -> None:
    with pytest.raises(InvalidSearch) as caught:
        fields.parse(asked, "assets")
    assert sentence in caught.value.text
