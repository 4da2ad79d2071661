"""The language of text search against tables that a real mongod (6.0.5) filled in."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query import text
from query.characters import FOLD, LOWER, STRIP, split_words
from query.stemmer import stem
from query.text import Search, fold, parse, strings_in, terms_of

HERE = Path(__file__).parent
MONGODB_CHARACTERS = "43fd4cf628510b0ca8e5a33f5fe9a18a15c2603c08622f2100e0f5ae034ce11d"
"""SHA-256 over what mongod makes of every character: a line each of its code point in hexadecimal and what is
stored for it within a term, a blank for a delimiter. Read by `explain` of searches for `q…z<character>9`."""


def terms(*texts: str) -> list[str]:
    return sorted(terms_of(texts).split())


def test_every_character_is_seen_as_mongodb_sees_it() -> None:
    digest = hashlib.sha256()
    for code in range(1, 0x110000):
        if 0xD800 <= code < 0xE000:
            continue
        character = chr(code)
        seen = character.translate(LOWER).translate(STRIP) if split_words(character) else " "
        digest.update(f"{code:x} {seen}\n".encode())
    assert digest.hexdigest() == MONGODB_CHARACTERS


def test_words_are_stemmed_as_mongodb_stems_them() -> None:
    pairs = [line.split() for line in (HERE / "mongodb_stems.txt").read_text().splitlines()]
    assert len(pairs) > 700
    assert [stem(word) for word, _ in pairs] == [expected for _, expected in pairs]


@given(st.text(alphabet=st.characters(max_codepoint=0x2FF), max_size=40))
@settings(max_examples=300)
def test_the_short_way_for_ascii_finds_the_same_words(value: str) -> None:
    words = [word for word in text._words(value) if word]
    assert words == split_words(value.translate(LOWER))
    assert fold(value) == value.translate(FOLD)


@given(st.text(alphabet="abcdeghilmnrstuy'", max_size=14))
@settings(max_examples=500)
def test_a_stem_is_no_longer_than_its_word_and_never_fails(word: str) -> None:
    assert len(stem(word)) <= len(word) + 1


def test_stop_words_are_left_out_and_terms_repeat() -> None:
    assert terms("The fox and THE foxes") == ["fox", "fox"]


def test_a_term_has_no_character_that_the_store_would_cut_at() -> None:
    for term in terms("o'neil x_y \x01z ' _ ¨ 日本語 a\x7fb"):
        assert all(character.isalnum() or ord(character) > 127 for character in term), term


def test_a_long_word_is_one_short_term_of_its_own() -> None:
    long = "x" * 1_000_000
    (term,) = terms(long)
    assert len(term) == text.TERM_CHARS_MAX
    assert terms(long + "y") != [term]
    assert terms(long.upper()) == [term]


def test_the_memo_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MEMO_TERMS_MAX", 10)
    memo = text._Memo({"": ""})
    for letter in "abcdefghijkmnopqrstuvwxyz":
        assert memo[letter * 3] == letter * 3
        assert len(memo) <= 11
    assert memo[""] == ""
    assert memo["the"] == ""


def test_strings_are_values_at_any_depth() -> None:
    document = {"key": "a", "list": ["b", ["c", {"x": "d"}], 1, True, None], "n": 1.5, "o": {"p": "e"}}
    assert sorted(strings_in(document)) == ["a", "b", "c", "d", "e"]


def test_what_mongodb_does_not_index_is_no_string() -> None:
    assert strings_in({"language": "english", "in": [{"language": "en", "note": "cut\0off"}]}) == ["cut"]


def test_a_very_deep_value_is_walked() -> None:
    value: object = "bottom"
    for _ in range(100_000):
        value = [value]
    assert strings_in(value) == ["bottom"]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("running -cats", Search(("run",), ("cat",))),
        ('"Quick Fox" Dog', Search(("dog", "fox", "quick"), (), ("quick fox",))),
        ('-"Lazy dog" fox', Search(("fox",), (), (), ("lazy dog",))),
        ("foo-bar", Search(("bar", "foo"))),
        ("foo - bar", Search(("bar", "foo"))),
        ("foo -bar-baz", Search(("foo",), ("bar", "baz"))),
        ('foo "bar', Search(("bar", "foo"))),
        ("the and of", Search(())),
        ("", Search(())),
        ("\ud800 x", Search(("x",))),
    ],
)
def test_a_search_text_is_read(question: str, expected: Search) -> None:
    assert parse(question) == expected


@given(st.text(max_size=60) | st.text(alphabet='ab -"\t\n\0the', max_size=30))
@settings(max_examples=300)
def test_any_search_text_can_be_read(question: str) -> None:
    asked = parse(question)
    assert asked.strings_match([]) == (not asked.phrases)
