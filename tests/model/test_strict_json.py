"""Reading JSON from anybody: what is JSON comes through unchanged, all else is a named error, soon."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bcdb.model import limits
from bcdb.model.canonical import encode_python, load
from bcdb.model.errors import InvalidJson, LimitExceeded, ValidationError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    [":", '":{', "\\", "\\u003a", '"']
)
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=30,
)
MEBIBYTE = 2**20
EXAMPLE = b'{"a":[1,-2.5e3,"\\u00e9\\ud83d\\ude00\\n",null,true,{"b:":{}}],"c":9223372036854775807}'


@given(documents, st.booleans(), st.sampled_from([None, 2, "\t"]))
@settings(max_examples=200, deadline=None)
def test_what_is_json_is_read(document: Any, ascii_only: bool, indent: Any) -> None:
    raw = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()
    read = load(raw)
    assert read == document
    assert encode_python(read) == encode_python(document)


@given(st.binary(max_size=60) | st.text('[]{}",:\\u0123dD8c9.eE+- \ntruefalsn').map(str.encode))
@settings(max_examples=500)
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        read = load(raw)
    except ValidationError:
        return
    assert encode_python(load(encode_python(read))) == encode_python(read)


@given(st.data())
@settings(max_examples=500)
def test_damaged_json_is_read_or_refused(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(EXAMPLE)))
    cut = data.draw(st.integers(0, 4))
    raw = EXAMPLE[:place] + data.draw(st.binary(max_size=4)) + EXAMPLE[place + cut :]
    try:
        read = load(raw)
    except ValidationError:
        return
    assert read == json.loads(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"nul",
        b"[1,]",
        b'{"a":1,}',
        b"{'a':1}",
        b"{a:1}",
        b"[1] 2",
        b"[01]",
        b"[+1]",
        b"[.5]",
        b"[1.]",
        b"[1e]",
        b"[0x1]",
        b"[NaN]",
        b"[Infinity]",
        b"[-Infinity]",
        b"[--11111111111111111111]",
        b'["\t"]',
        b'["\0"]',
        b'["\\x41"]',
        b'["\\ud800"]',
        b'["\\ud800\\u0041"]',
        b'["\\udc00"]',
        b'["\\ud83d\\ud83d"]',
        b'["\xed\xa0\x80"]',
        b'["\xc0\x80"]',
        b'["\xff"]',
        b'{"\xff":1}',
        b"\xef\xbb\xbf[1]",
        "[1]".encode("utf-16"),
        "[1]".encode("utf-32-le"),
        b"/* a */ 1",
        b"[1]\x0c",
        b"[1]\xc2\xa0",
    ],
)
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidJson):
        load(raw)


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (b'{"a":1,"a":1}', '"a"'),
        (b'{"a":1,"\\u0061":2}', '"a"'),
        (b'[{"b":{"":1,"c":2,"":3}}]', '""'),
        (b'{"x":{"y:":1,"y\\u003a":1}}', '"y:"'),
        (b'{"y\\u003A":1,"z":"\\u003a\\u003a","y\\u003a":"::"}', '"y:"'),
        (b'{"a":"::","a":"\\u003a"}', '"a"'),
        ('{"é":1,"\\u00E9":2}'.encode(), '"é"'),
        (b'{"' + b"k" * 99 + b'":1,"' + b"k" * 99 + b'":1}', '"kkk'),
    ],
)
def test_doubled_keys_are_refused_by_name(raw: bytes, key: str) -> None:
    with pytest.raises(InvalidJson, match="stands twice") as caught:
        load(raw)
    assert key in caught.value.text
    assert len(caught.value.text) < 150


@pytest.mark.parametrize(
    "raw",
    [b'{"a":{"a":{"a":1}},"b":{"a":"\\u003a"}}', b'[{"a":1},{"a":":\\u003A"}]', b'{"\\u003a":1,"::":2}'],
)
def test_the_same_key_in_different_objects_is_fine(raw: bytes) -> None:
    assert load(raw) == json.loads(raw)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4), st.booleans())
@settings(max_examples=100)
def test_doubled_keys_are_always_found(members: list[tuple[str, str]], escaped: bool) -> None:
    def colon(text: str) -> str:
        return json.dumps(text).replace(":", "\\u003a") if escaped else json.dumps(text)

    raw = ("[{" + ",".join(f"{json.dumps(key)}:{colon(value)}" for key, value in members) + "}]").encode()
    if len({key for key, _ in members}) == len(members):
        assert load(raw) == [dict(members)]
    else:
        with pytest.raises(InvalidJson, match="stands twice"):
            load(raw)


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 10**18, 0, -1])
def test_integers_in_range(number: int) -> None:
    assert load(b"%d" % number) == number
    assert load(b'{"11111111111111111111": [%d, 1.5]}' % number) == {"1" * 20: [number, 1.5]}


@pytest.mark.parametrize("template", ["%s", "[1,%s]", '{"a": %s }', '["\\"",%s]'])
@pytest.mark.parametrize(
    "digits",
    [str(2**63), str(-(2**63) - 1), str(2**64), str(10**19), str(-(10**20)), "9" * 4000, "-" + "9" * 5000],
    ids=lambda digits: f"{digits[:12]} of {len(digits)}",
)
def test_integers_out_of_range(template: str, digits: str) -> None:
    with pytest.raises(LimitExceeded, match="An integer must be within -9223372036854775808") as caught:
        load((template % digits).encode())
    assert digits[:20] in caught.value.text
    assert len(caught.value.text) < 250


@pytest.mark.parametrize(
    "raw", [b"12345678901234567890.5", b"1e20", b"12345678901234567890e1", b'"12345678901234567890"']
)
def test_what_only_looks_like_a_long_integer(raw: bytes) -> None:
    assert load(raw) == json.loads(raw)


@pytest.mark.parametrize("raw", [b"1e309", b"[-1e400]", b"1" + b"0" * 400 + b".0", b"1e99999999999999999999"])
def test_numbers_too_large_for_a_float(raw: bytes) -> None:
    with pytest.raises(LimitExceeded, match="too large for a double"):
        load(raw)


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["%r", "%.17e", "%.30f", "%.25g"]))
def test_floats_are_rounded_as_python_rounds(value: float, spelling: str) -> None:
    text = spelling % value
    read = load(text.encode())
    if isinstance(read, float):
        assert read == float(text)
        assert math.copysign(1, read) == math.copysign(1, float(text))


@pytest.mark.parametrize("brackets", ["[]", "{}", "both"])
def test_depth(brackets: str) -> None:
    def nested(depth: int) -> bytes:
        if brackets == "[]":
            return b"[" * depth + b"]" * depth
        if brackets == "{}":
            return b'{"[":' * (depth - 1) + b"{}" + b"}" * (depth - 1)
        return b'[{"a":' * (depth // 2) + b"[]" * (depth % 2) + b"1" * (1 - depth % 2) + b"}]" * (depth // 2)

    load(nested(limits.JSON_DEPTH_MAX))
    wide = b"[" + b"[],{}," * 200 + nested(limits.JSON_DEPTH_MAX - 1) + b',"[[[[{{{{\\"[[[["]'
    load(wide)
    for depth in (limits.JSON_DEPTH_MAX + 1, 500, 5_000, 100_000):
        with pytest.raises(
            LimitExceeded, match=f"may be nested {limits.JSON_DEPTH_MAX} deep, this is nested {depth} deep"
        ):
            load(nested(depth))


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "open brackets": lambda size: b"[" * size,
    "open objects": lambda size: b'{"":' * (size // 4),
    "closed brackets": lambda size: b"]" * size,
    "empty arrays": lambda size: b"[" + b"[]," * (size // 3) + b"[]]",
    "deep and wide": lambda size: b"[" + (b"[" * 62 + b"]" * 62 + b",") * (size // 125) + b"1]",
    "small objects": lambda size: b"[" + b'{"a":1},' * (size // 8) + b"1]",
    "escaped colons": lambda size: b'["\\u003a",' + b'{"a":1},' * (size // 8) + b"1]",
    "quotes": lambda size: b'"' * size,
    "escaped quotes": lambda size: b"[" * 70 + b'\\"' * (size // 2),
    "open text": lambda size: b"[" * 70 + b'"' + b'\\"' * (size // 2),
    "backslashes": lambda size: b"[" * 70 + b'"' + b"\\" * size,
    "digits": lambda size: b"1" * size,
    "long integers": lambda size: b"[" + (b"9" * 4000 + b",") * (size // 4001) + b"1]",
    "numbers run together": lambda size: b"[" + b"-1111111111111111111" * (size // 20),
    "dots": lambda size: b"[1111111111111111111" + b"." * size,
    "exponents": lambda size: b"1e" * (size // 2),
    "fraction": lambda size: b"0." + b"1" * size,
    "floats": lambda size: b"[" + b"1.5," * (size // 4) + b"1]",
    "keys": lambda size: b"{" + b",".join(b'"%d":1' % number for number in range(size // 11)) + b"}",
    "colliding keys": lambda size: b"{" + b'"a":1,' * (size // 6) + b'"a":1}',
    "control characters": lambda size: b'"' + b"\\u001f" * (size // 6) + b'"',
    "surrogates": lambda size: b'"' + b"\\ud83d\\ude00" * (size // 12) + b'"',
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_mebibyte_is_answered(make: Callable[[int], bytes]) -> None:
    # Work that grew with the square of the size would not end here.
    raw = make(MEBIBYTE)
    try:
        text = encode_python(load(raw))
    except ValidationError:
        assert len(str(refusal(raw))) < 300
    else:
        assert len(text) <= len(raw) * 2


def refusal(raw: bytes) -> ValidationError | None:
    try:
        load(raw)
    except ValidationError as error:
        return error
    return None
