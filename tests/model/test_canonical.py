"""Canonical JSON against others: the golden texts, Python's json, and Node's JSON.stringify."""

import json
import math
import random
import struct
import subprocess
from collections.abc import Callable, Iterator
from hashlib import sha3_256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Struct, UnsetType

from bcdb.model import limits
from bcdb.model.canonical import (
    Form,
    encode,
    encode_javascript,
    encode_python,
    javascript_number,
    javascript_representable,
    load,
)
from bcdb.model.errors import InvalidJson, LimitExceeded
from tests.support.nodejs import node_path
from tests.support.vectors import TRANSACTIONS

Stringify = Callable[[Any], bytes]

odd_characters = st.sampled_from(
    '\0\1\x07\b\t\n\v\f\r\x1a\x1f "\\/:\x7f\x80é\u2028\u2029\ud7ff\ue000\uffff\U0001f600\U0010ffff'
)
texts = st.text(st.characters(exclude_categories=["Cs"]) | odd_characters, max_size=8)
numbers = st.integers(limits.INTEGER_MIN, limits.INTEGER_MAX) | st.floats(
    allow_nan=False, allow_infinity=False
)
javascript_numbers = (
    st.integers(-(2**53) + 1, 2**53 - 1)
    | st.integers(-1000, 1000)
    | st.floats(-1e9, 1e9)
    | st.floats(allow_nan=False, allow_infinity=False)
)


def documents_of(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | numbers | texts,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
        max_leaves=20,
    )


documents = documents_of(numbers)
edge_floats = st.sampled_from(
    [
        sign * 10.0**power * factor
        for sign in (1, -1)
        for power in range(-9, 24)
        for factor in (1, 1.5, 1 / 3, 9.999)
    ]
)


@pytest.fixture(scope="module")
def stringify() -> Iterator[Stringify]:
    """One Node.js process for all examples: a document goes in as a line, its text comes back as one."""
    script = Path(__file__).with_name("canonical_oracle.js")
    with subprocess.Popen(
        [str(node_path()), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as node:
        sending, reading = node.stdin, node.stdout
        assert sending is not None
        assert reading is not None

        def ask(document: Any) -> bytes:
            sending.write(json.dumps(document).encode() + b"\n")
            sending.flush()
            return reading.readline().removesuffix(b"\n")

        yield ask
        sending.close()


def written_by_python(value: Any) -> str:
    """The reference's form, from Python's own json and the rules of its text escapes."""
    if isinstance(value, dict):
        return (
            "{"
            + ",".join(f"{written_by_python(key)}:{written_by_python(value[key])}" for key in sorted(value))
            + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(map(written_by_python, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(map(written_character, value)) + '"'
    return json.dumps(value)


def written_character(character: str) -> str:
    short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return short.get(character) or (f"\\u{ord(character):04X}" if character < " " else character)


@pytest.mark.parametrize("golden", TRANSACTIONS, ids=lambda golden: golden["name"])
def test_golden_texts(golden: dict[str, Any]) -> None:
    transaction, digests = golden["transaction"], []
    hashed = {**transaction, "id": None}
    unsigned = {**hashed, "inputs": [{**item, "fulfillment": None} for item in transaction["inputs"]]}
    for form in Form:
        assert encode(hashed, form).decode() == golden["hashed"]
        assert encode(unsigned, form).decode() == golden["unsigned"]
    assert sha3_256(encode_python(hashed)).hexdigest() == transaction["id"]
    for item in transaction["inputs"]:
        link = item["fulfills"]
        suffix = f"{link['transaction_id']}{link['output_index']}" if link else ""
        digests.append(sha3_256(encode_python(unsigned) + suffix.encode()).hexdigest())
    assert digests == golden["digests"]


@given(documents)
@settings(max_examples=250, deadline=None)
@example({"a": "\\u001f", "b": "\x1f", "\\": "\\\\u000b\x0b"})
@example([1e16, 1e-5, 1e21, 1e22, -0.0, 5e-324, 1.7976931348623157e308, 123456789.0])
def test_python_form(document: Any) -> None:
    text = encode_python(document)
    assert text.decode() == written_by_python(document)
    assert encode_python(document, floats=True) == text
    assert encode_python(load(text)) == text


@given(documents)
@settings(max_examples=150, deadline=None)
def test_python_form_is_what_json_writes_but_for_the_case_of_escapes(document: Any) -> None:
    said = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert json.loads(encode_python(document)) == json.loads(said)
    assert encode_python(document).decode().lower() == said.lower()


@given(documents_of(javascript_numbers))
@settings(max_examples=300, deadline=None)
@example({"\ue000": 1, "\U0001f600": 2, "z": 3})
@example({"10": 1, "9": 2, "1": 3, "": 4, "-1": 5, "__proto__": {"b": 1, "a": 2}, "constructor": 1})
@example({"\x1f": "\x1f\x7f\u2028", "n": [1e21, 1.0, -0.0, 1e-7, 1e-6, 0.00001, 1e300, 5e-324, 2**53 - 1]})
def test_javascript_form(stringify: Stringify, document: Any) -> None:
    if not javascript_representable(document):
        return
    text = encode_javascript(document)
    assert text == stringify(document)
    assert encode_javascript(document, floats=True) == text
    again = load(text)
    assert javascript_representable(again)
    assert encode_javascript(again) == text


@given(st.lists(edge_floats | st.floats(allow_nan=False, allow_infinity=False), max_size=30))
@settings(max_examples=150, deadline=None)
def test_javascript_numbers(stringify: Stringify, floats: list[float]) -> None:
    expected = stringify(floats).decode()[1:-1]
    assert ",".join(map(javascript_number, floats)) == expected


def test_javascript_numbers_of_any_bits(stringify: Stringify) -> None:
    dice = random.Random(1)
    floats = [value for value in struct.unpack("<20000d", dice.randbytes(160_000)) if math.isfinite(value)]
    floats += [float(f"{dice.randrange(10**17)}e{dice.randrange(-30, 10)}") for _ in range(20_000)]
    assert ",".join(map(javascript_number, floats)) == stringify(floats).decode()[1:-1]


@pytest.mark.parametrize(
    "value", [2**53 - 1, -(2**53) + 1, 1e21, 1e300, 0.5, 1.0, -0.0, float(2**53 - 1), "9" * 30, True]
)
def test_what_javascript_can_hold(value: Any) -> None:
    assert javascript_representable({"a": [value]})
    text = encode_javascript([value])
    assert encode_javascript(load(text)) == text


@pytest.mark.parametrize(
    "value", [2**53, -(2**53), 2**63 - 1, float(2**53), 1e16, -1e20, 999999999999999900000.0]
)
def test_what_javascript_can_not_hold(value: Any) -> None:
    assert not javascript_representable(value)
    assert not javascript_representable({"a": [{"b": value}], "c": 1})


def test_the_forms_differ_where_they_should() -> None:
    document = {"\U0001f600": 1e-7, "\uffff": 1.0, "c": "\x1f"}
    assert encode_python(document) == '{"c":"\\u001F","\uffff":1.0,"\U0001f600":1e-07}'.encode()
    assert encode_javascript(document) == '{"c":"\\u001f","\U0001f600":1e-7,"\uffff":1}'.encode()


class Leaf(Struct):
    name: str
    number: float | int
    surplus: int | UnsetType = UNSET


class Tree(Struct):
    leaves: list[Leaf]
    other: Any


@given(st.lists(st.tuples(texts, numbers, st.just(UNSET) | numbers), max_size=3), documents)
@settings(max_examples=60, deadline=None)
def test_structs_are_written_like_objects(leaves: list[tuple[str, Any, Any]], other: Any) -> None:
    tree = Tree([Leaf(*leaf) for leaf in leaves], other)
    plain = [
        {"name": name, "number": number} | ({} if surplus is UNSET else {"surplus": surplus})
        for name, number, surplus in leaves
    ]
    document = {"leaves": plain, "other": other}
    for form in Form:
        assert encode(tree, form) == encode(document, form)
    assert javascript_representable(tree) == javascript_representable(document)


def nested(depth: int) -> Any:
    document: Any = []
    for _ in range(depth - 1):
        document = {"a": document}
    return document


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"a": math.nan}, InvalidJson),
        ([math.inf], InvalidJson),
        (["\ud800"], InvalidJson),
        ({"\udfff": 1}, InvalidJson),
        ([1.5, "\ud800"], InvalidJson),
        ({1: "a"}, InvalidJson),
        ({None: 1, "a": 2}, InvalidJson),
        ([b"bytes"], InvalidJson),
        ([{1, 2}], InvalidJson),
        (object(), InvalidJson),
        (UNSET, InvalidJson),
        ([2**63], LimitExceeded),
        ([-(2**63) - 1], LimitExceeded),
        ([10**5000], LimitExceeded),
        (nested(limits.JSON_DEPTH_MAX + 1), LimitExceeded),
        (nested(5000), LimitExceeded),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_json_is_not_written(document: Any, error: type[Exception]) -> None:
    for form in Form:
        with pytest.raises(error) as caught:
            encode(document, form)
        assert len(str(caught.value)) < 300


def test_what_contains_itself_is_not_written() -> None:
    document: list[Any] = []
    document.append(document)
    with pytest.raises(LimitExceeded):
        encode_python(document)


def test_the_limits_themselves_are_written() -> None:
    for document in (nested(limits.JSON_DEPTH_MAX), [limits.INTEGER_MIN, limits.INTEGER_MAX], ({},)):
        assert load(encode_python(document)) == json.loads(json.dumps(document))
