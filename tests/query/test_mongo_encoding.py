"""How documents stand in MongoDB: every value comes back as it was, however BSON would rather have it."""

import json
from typing import Any

import bson
import msgspec
import pytest
from bson import DatetimeMS
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pymongo.errors import BulkWriteError

from query.documents import Place
from query.mongo import encoding
from query.mongo.connection import said
from query.mongo.encoding import (
    CODEC,
    DEPTH_MAX,
    JSON_KEY,
    decode,
    decode_key,
    encode,
    encode_key,
    first_id,
    id_of,
    needs_care,
    place_of,
    to_json,
)

KEYS = st.text(alphabet=st.sampled_from('$.%a0é\0"\\_\U0001f600: ,'), max_size=4) | st.sampled_from(
    ["language", "_id", "$ref", "$id", "%json", "%24", "%", "%%", "$$", "..", "a.b", "$a", "", "length"]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | KEYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def exactly(value: Any) -> str:
    """Text that tells integers from floats and zero from minus zero."""
    return json.dumps(value, sort_keys=True)


def stored(value: Any) -> Any:
    """What is stored for a value, as the store writes it."""
    body = msgspec.json.encode(value)
    if not needs_care(body):
        try:
            bson.encode({"data": value})
        except OverflowError:
            return encoding.boxed(body)
        return value
    return encode(value, body)


def keys_of(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(key for inner in value.values() for key in keys_of(inner))]
    return [key for inner in value for key in keys_of(inner)] if isinstance(value, list) else []


@given(JSON)
@example({"%json": "x"})
@example({"%json": {"%json": 1}})
@example({"$ref": "x", "$id": 1})
@settings(max_examples=1000, deadline=None)
def test_every_value_comes_back_as_it_was(value: Any) -> None:
    made = stored(value)
    found = bson.decode(bson.encode({"data": made}), CODEC)["data"]
    assert exactly(msgspec.json.decode(to_json(decode(found)))) == exactly(value)
    if b"%" not in bson.encode({"data": made}):
        # Then nobody decodes it.
        assert exactly(msgspec.json.decode(to_json(found))) == exactly(value)


@given(JSON)
@settings(max_examples=1000, deadline=None)
def test_what_needs_no_care_has_plain_keys_only(value: Any) -> None:
    if needs_care(msgspec.json.encode(value)):
        return
    for key in keys_of(value):
        assert encode_key(key) == key
        assert key != "language"


@given(KEYS | st.text(), KEYS | st.text())
def test_keys_are_escaped_into_names_that_mongodb_takes(one: str, other: str) -> None:
    made = encode_key(one)
    assert made
    assert not made.startswith("$")
    assert not set(made) & set(".\0")
    assert decode_key(made) == one
    assert made != JSON_KEY
    assert (made == encode_key(other)) == (one == other)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a.b": {"$c": 1}}, {"a%2Eb": {"%24c": 1}}),
        ({"": [{"%": "%"}]}, {"%": [{"%25": "%"}]}),
        ({"language": "french"}, {"language": "french"}),
        ({"language": "klingon"}, {"%6Canguage": "klingon"}),
        ({"x": {"language": ["en"]}}, {"x": {"%6Canguage": ["en"]}}),
        # The order of keys is always that of code points.
        ({"\U0001f600": 1, "\ue000": 2}, {"\ue000": 2, "\U0001f600": 1}),
    ],
)
def test_values_that_need_care(value: Any, expected: Any) -> None:
    body = msgspec.json.encode(value)
    assert needs_care(body)
    made = encode(value, body)
    assert made == expected
    assert list(made) == list(expected)
    assert decode(made) == value


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize("value", [nested(DEPTH_MAX + 1), {"a\\": 2**63}, {"a\\": -(2**63) - 1}])
def test_what_bson_cannot_hold_is_kept_as_text(value: Any) -> None:
    body = msgspec.json.encode(value)
    assert needs_care(body)
    assert encode(value, body) == {JSON_KEY: body}
    assert decode({"x": {JSON_KEY: body}}) == {"x": value}


def test_text_that_somebody_has_spoilt_is_told_as_it_is() -> None:
    assert decode({JSON_KEY: b"{"}) == {JSON_KEY: b"{"}
    assert decode({JSON_KEY: "text", "a%zz": 1}) == {JSON_KEY: "text", "a%zz": 1}


@pytest.mark.parametrize("body", [b'{"a":"%b"}' % (b"." * 10**6), b'["a",' * 10**5, b'{"ab":1.5,' * 10**5])
def test_long_texts_are_looked_at_in_linear_time(body: bytes) -> None:
    # A look that is not linear would take hours.
    needs_care(body)


PLACES = st.builds(Place, st.integers(0, 2**63), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))


@given(st.lists(PLACES, min_size=2, max_size=2), st.sampled_from(sorted(encoding.PACKINGS)))
def test_ids_are_in_the_order_of_places(places: list[Place], collection: str) -> None:
    ids = [id_of(collection, place) for place in places]
    found = [place_of(collection, identifier) for identifier in ids]
    assert (ids[0] < ids[1]) == (found[0] < found[1])  # type: ignore[operator]
    for place, identifier in zip(places, ids, strict=True):
        assert first_id(collection, place.height) <= identifier
        assert place.height == 2**63 or identifier < first_id(collection, place.height + 1)


@pytest.mark.parametrize("identifier", [None, 1, "x", b"", b"x" * 11, b"x" * 13, bson.ObjectId()])
def test_what_is_no_place_is_told(identifier: Any) -> None:
    assert place_of("assets", identifier) is None
    assert place_of("assets", id_of("assets", Place(3, 4))) == Place(3, 4)
    assert place_of("outputs", id_of("outputs", Place(3, 4, 5))) == Place(3, 4, 5)


def test_times_beyond_the_calendar_are_milliseconds() -> None:
    assert to_json({"at": DatetimeMS(2**62)}) == b'{"at":4611686018427387904}'


def test_what_is_said_of_a_batch_has_no_document_in_it() -> None:
    failed = {"index": 0, "code": 14031, "errmsg": "no space left", "op": {"metadata": {"secret": 1}}}
    assert said(BulkWriteError({"writeErrors": [failed]})) == "no space left"
    assert "secret" not in said(BulkWriteError({"writeErrors": [], "writeConcernErrors": []}))
