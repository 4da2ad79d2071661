"""The comparison of examples with their answers sees what it should; `...` covers no more than is told."""

from __future__ import annotations

import pytest

from tests.docs.examples import examples_of, fits_text, json_difference


@pytest.mark.parametrize(
    ("shown", "seen"),
    [
        ({"a": "..."}, {"a": [1]}),
        ({"a": 1, "...": "..."}, {"a": 1, "b": 2}),
        ([1, "..."], [1, 2, 3]),
        ([1, "..."], [1]),
        ([], []),
    ],
)
def test_json_that_fits(shown: object, seen: object) -> None:
    assert json_difference(shown, seen) == ""


@pytest.mark.parametrize(
    ("shown", "seen"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1, "...": "..."}, {"b": 2}),
        ([1], [1, 2]),
        ([1, 2, "..."], [1]),
        ({}, []),
    ],
)
def test_json_that_differs(shown: object, seen: object) -> None:
    assert json_difference(shown, seen)


def test_text() -> None:
    assert fits_text("a ... c\n", "a b c \n")
    assert fits_text("a\n...\nz\n", "a\nb\nc\nz")
    assert fits_text("a\n...\n", "a\n")
    assert not fits_text("a ... c", "a b d")
    assert not fits_text("a...", "a\nb")
    assert not fits_text("a", "a\nb")


def test_examples_and_their_answers() -> None:
    page = "x\n```sh run\necho 1\n```\n\n```json answer\n1\n```\n```text\n-\n```\n```python run\n2\n```\n"
    first, second = examples_of(page)
    assert (first.code, first.answer_kind, first.answer) == ("echo 1\n", "json", "1\n")
    assert (second.kind, second.answer_kind, second.line) == ("python run", "", 12)
    with pytest.raises(ValueError, match="nothing"):
        examples_of("```json answer\n1\n```\n")
