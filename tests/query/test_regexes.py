"""Regular expressions: which are let through, that MongoDB takes those, and that none costs it too much."""

import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from query.errors import InvalidSearch
from query.regexes import Checked, check_regex
from tests.query.mongo_oracle import Oracle, oracle

WORST_S_MAX = 20.0
"""Some seconds, on a machine that is busy with other tests as well. Unbounded ones take minutes."""


@pytest.fixture(scope="module")
def judge() -> Iterator[Oracle]:
    with oracle() as made:
        yield made


def check(pattern: str, options: str = "") -> Checked:
    return check_regex(pattern, options, "$regex")


@pytest.mark.parametrize(
    ("pattern", "chars_max"),
    [
        ("", None),
        ("rye flour", None),
        ("^rye|^spelt", None),
        (r"[a-z]{2}-\d{4}", None),
        (r"\bfl(our|oor)\b", None),
        (r"(?:a|b)[[:alpha:]_][^\]\-x]\x41\.$", None),
        ("colou?r", None),
        ("a{0,32}", None),
        ("^rye.*flour$", 50_000),
        (r"\Arye.+", 50_000),
        ("^(?:rye.*|spelt.*)flour", 50_000),
        ("rye.*flour", 500),
        ("a{0,33}", 500),
        ("a{2,}?b", 500),
        ("^a.*b.*c", 500),
        ("rye.*flour|spelt.*flour", 500),
        ("(rye|spelt|wheat|oats|corn).*flour", 500),
    ],
)
def test_what_is_allowed(pattern: str, chars_max: int | None) -> None:
    assert check(pattern) == Checked(pattern, chars_max)


def test_lines_begin_anywhere() -> None:
    assert check("^a.*b", "m").chars_max == 500
    with pytest.raises(InvalidSearch, match="more than 2 quantifiers"):
        check("^a.*b.*c", "m")


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("a" * 257, "at most 256 characters"),
        ("(a+)+", "a quantifier on a group is not allowed (at character 5"),
        ("(a){2}", "a quantifier on a group"),
        ("^*", "a quantifier on an anchor"),
        (r"\b+", "a quantifier on an anchor"),
        ("a**", "a quantifier on a quantifier"),
        ("a+?+", "a quantifier on a quantifier"),
        ("*a", "a * with nothing before it"),
        ("a|+", "a + with nothing before it"),
        ("{2}", "a { with nothing before it"),
        ("a{", "a { that begins none of"),
        ("a{,3}", "a { that begins none of"),
        ("a{x}", "a { that begins none of"),
        ("a{\u0662}", "a { that begins none of"),
        ("a{1001}", "with more than 1,000"),
        ("a{3,2}", "with m above n"),
        ("(?=a)", "what begins with (? other than (?:"),
        ("(?i)a", "what begins with (? other than (?:"),
        ("(?<n>a)", "what begins with (? other than (?:"),
        ("(?R)", "what begins with (? other than (?:"),
        ("(*UTF8)a", "(* is not allowed"),
        ("(a", "a ( without a )"),
        ("a)", "a ) without a ("),
        ("[a", "a [ without a ]"),
        ("[]", "[] (a bracket itself is"),
        ("[z-a]", "a range whose ends"),
        (r"[\d-z]", "a range whose ends"),
        (r"[\b]", r"\b is not allowed"),
        ("[[:foo:]]", "a named class other than [:alnum:]"),
        ("[[=a=]]", "a named class other than"),
        (r"(a)\1", r"\1 is not allowed"),
        (r"\Qa", r"\Q is not allowed"),
        (r"\p{L}", r"\p is not allowed"),
        ("\\", "a \\ at the end"),
        (r"\xg", r"\x without two hexadecimal digits"),
        ("\0", "the character 0"),
        ("[\0]", "the character 0"),
        (".*a.*", "more than 2 quantifiers without bound"),
        ("^.*a.*b.*", "more than 2 quantifiers without bound"),
        ("(" * 11 + ")" * 11, "a group more than 10 deep"),
        ("(a|a)" * 6, "so many alternatives"),
        ("a?" * 6, "so many alternatives"),
        ("(ab|ac)(ab|ac)(ab|ac).*", "so many alternatives"),
        ("a{32}" * 20, "so many alternatives"),
    ],
)
def test_what_is_refused(pattern: str, sentence: str) -> None:
    with pytest.raises(InvalidSearch) as caught:
        check(pattern)
    assert sentence in caught.value.text
    assert caught.value.text.startswith("$regex: ")


PIECES = st.sampled_from(
    [
        *("a", "b", "é", ".", "^", "$", "|", "(", "(?:", ")", "*", "+", "?", "{2}", "{1,}", "{0,40}", "[ab]"),
        *("[^a-c\\d]", "\\d", "\\W", "\\.", "\\b", "\\A", "\\x41", "[[:alpha:]-]", "-", "]", "}", "{", "["),
        *("\\", "#", " ", "[a-]", "[--a]", "[é-ü]", "\\]", "[a\\]]", "[[a]", "[:alpha:]"),
    ]
)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(PIECES, max_size=10).map("".join), st.sampled_from(["", "i", "m", "ims"]))
def test_mongodb_takes_whatever_is_allowed(judge: Oracle, pattern: str, options: str) -> None:
    try:
        checked = check(pattern, options)
    except InvalidSearch:
        return
    judge.matching({"x": {"$regex": checked.bounded, "$options": options}})
    judge.matching({"x": {"$regex": checked.pattern, "$options": options}})


@pytest.mark.parametrize("options", ["", "i", "m"])
@pytest.mark.parametrize("pattern", ["a.*c", "^a.*c", "c$|^b", "(x|b+)c", ".c", "b{1,}", "c$"])
def test_a_bounded_one_finds_what_it_finds_without(judge: Oracle, pattern: str, options: str) -> None:
    judge.hold(
        [{"x": text} for text in ("abc", "xabc", "ab\nabc", "ABC\n", "", "b", "\nc", "a", "é" * 400 + "abc")]
    )
    checked = check(pattern, options)
    assert judge.matching({"x": {"$regex": checked.bounded, "$options": options}}) == judge.matching(
        {"x": {"$regex": pattern, "$options": options}}
    )


def test_texts_that_are_too_long_never_match(judge: Oracle) -> None:
    judge.hold([{"x": "é" * 498 + "ab"}, {"x": "é" * 499 + "ab"}, {"x": ["c", "é" * 499 + "ab", "ab"]}])
    assert judge.matching({"x": {"$regex": check("ab*").bounded}}) == [0, 2]
    assert judge.matching({"x": {"$regex": check("ab").bounded}}) == [0, 1, 2]


@pytest.mark.parametrize(
    "pattern",
    [
        *("a*[bc]", "a.*a[bc]", "[ab]+[bc]", "^a*a*[bc]", "^.*[ab]*[bc]", "a?a?a?a?a?[bc]", "a{0,32}[bc]"),
        *("(a|aa)(a|a)(a|aa)[bc]", "^.*(a|a)[bc]", "(a|aa).*[bc]", "a{32}a{32}a{32}[bc]", ".{0,1000}[bc]"),
        "a" * 250 + "[bc]",
    ],
)
@pytest.mark.parametrize("count", [1, 20, 2_000])
def test_none_costs_too_much(judge: Oracle, pattern: str, count: int) -> None:
    """On as much text as a document has, in one piece or in many."""
    checked = check(pattern)
    judge.hold([{"x": ["a" * (1_000_000 // count)] * count}])
    started = time.monotonic()
    assert judge.matching({"x": {"$regex": checked.bounded}}) == []
    assert time.monotonic() - started < WORST_S_MAX
