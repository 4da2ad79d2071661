"""Cursors: they come back as they were, for their own question alone, and nothing else passes for one."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from query import cursors, fields, filters, sorting
from query.cursors import Cursor
from query.documents import Place
from query.errors import InvalidCursor
from query.store import SKIP_MAX, Find

HEIGHTS = st.integers(0, 2**63 - 1)
SMALL = st.integers(0, 2**32 - 1)


def question(
    asked: dict[str, Any],
    sort: dict[str, int] | None = None,
    projection: dict[str, int] | None = None,
    **rest: Any,
) -> Find:
    return Find(
        "assets",
        filters.parse(asked, "assets"),
        *fields.parse(projection or {}, "assets"),
        sort=sorting.parse(sort or {}, "assets"),
        **rest,
    )


def after(asked: Find, text: str | None) -> Find:
    return msgspec.structs.replace(asked, after=text)


ONE = question({"data.x": 1})
CURSOR = Cursor(9, place=Place(7, 2))


@given(HEIGHTS, HEIGHTS, SMALL, SMALL)
def test_a_place_comes_back(height: int, other: int, position: int, index: int) -> None:
    cursor = Cursor(max(height, other), place=Place(min(height, other), position, index))
    text = cursors.encode(ONE, cursor)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert cursors.decode(after(ONE, text)) == cursor


@given(HEIGHTS, st.integers(0, SKIP_MAX))
def test_an_offset_comes_back(height: int, offset: int) -> None:
    cursor = Cursor(height, offset=offset)
    assert cursors.decode(after(ONE, cursors.encode(ONE, cursor))) == cursor


def test_a_first_page_has_none() -> None:
    assert cursors.decode(ONE) is None


def test_the_limit_of_a_page_may_change() -> None:
    text = cursors.encode(ONE, CURSOR)
    assert cursors.decode(msgspec.structs.replace(ONE, after=text, limit=3)) == CURSOR


@pytest.mark.parametrize(
    "other",
    [
        question({"data.x": 2}),
        question({"data.x": 1.0}),
        question({"data.x": True}),
        question({"data.x": "1"}),
        question({"data.x": {"$ne": 1}}),
        question({"data.x": {"$gt": 1}}),
        question({"data": {"x": 1}}),
        question({"data.x": 1}, {"height": -1}),
        question({"data.x": 1}, None, {"id": 1}),
        question({"data.x": 1}, None, {"id": 0}),
        msgspec.structs.replace(ONE, collection="metadata"),
    ],
)
def test_another_question_refuses_it(other: Find) -> None:
    with pytest.raises(InvalidCursor, match="for this question"):
        cursors.decode(after(other, cursors.encode(ONE, CURSOR)))


def test_the_order_of_the_keys_of_an_object_is_not_another_question() -> None:
    one = question({"data": {"a": 1, "b": {"c": 2, "d": 3}}})
    other = question({"data": {"b": {"d": 3, "c": 2}, "a": 1}})
    assert cursors.decode(after(other, cursors.encode(one, CURSOR))) == CURSOR


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: urlsafe_b64encode(raw).decode()))
@example("")
@example("=")
@example("é")
@example("\ud800")
def test_nothing_else_is_one(text: str) -> None:
    with pytest.raises(InvalidCursor, match="was not made by this server"):
        cursors.decode(after(ONE, text))


@given(st.integers(0, 33), st.integers(1, 255))
def test_a_changed_one_is_refused_or_within_its_bounds(place: int, change: int) -> None:
    text = cursors.encode(ONE, CURSOR)
    raw = bytearray(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    raw[place % len(raw)] ^= change
    try:
        made = cursors.decode(after(ONE, urlsafe_b64encode(raw).rstrip(b"=").decode()))
    except InvalidCursor:
        return
    assert made is not None
    assert (made.place is None) is not (made.offset is None)
    assert made.place is None or made.place.height <= made.height
    assert made.offset is None or made.offset <= SKIP_MAX


def test_one_with_something_behind_it_is_refused() -> None:
    text = cursors.encode(ONE, CURSOR)
    for changed in (text + "A", text + "=", text[:-1], text + " "):
        with pytest.raises(InvalidCursor):
            cursors.decode(after(ONE, changed))
