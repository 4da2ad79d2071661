"""Reads JSON (RFC 8259) from hostile bytes, and refuses what the RFC leaves to the reader.

Doubled keys, lone surrogates, NaN, integers beyond 64 bits and deep nesting mean different things to
different programs, so none of them may get in. The work grows linearly with the size of the text, which the
caller bounds.
"""

import json
import re
from itertools import accumulate
from math import isfinite
from typing import Any

import msgspec

from bcdb.model import limits
from bcdb.model.errors import InvalidJson, LimitExceeded

SHOWN_CHARS_MAX = 60

# The end quote is optional and nothing is given back, so that a text of unclosed quotes costs one pass too.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NUMBER_OF_19_CHARS = re.compile(rb"[-+.0-9eE]{19,}")
_INTEGER = re.compile(rb"-?[0-9]+")
# The longest integers in range, -2^63 and 2^63 - 1, have 20 and 19 characters.
_INTEGER_CHARS_MAX = 20
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789", b"000000000")
_NINETEEN_ZEROS = b"0" * 19
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def load(raw: bytes) -> Any:
    """The dicts, lists, texts, ints, floats, booleans and None of one JSON text in UTF-8.

    Raises InvalidJson for what is not JSON, doubled keys and lone surrogates; LimitExceeded for nesting
    deeper than JSON_DEPTH_MAX, integers outside INTEGER_MIN to INTEGER_MAX and numbers too large for a float.
    """
    _refuse_depth(raw)
    _refuse_long_integers(raw)
    try:
        value = _decode(raw)
    except UnicodeDecodeError:
        raise InvalidJson("The body is not UTF-8, or a text in it has a lone surrogate.") from None
    except msgspec.DecodeError as error:
        raise InvalidJson(f"The body is not valid JSON: {error}.") from None
    except RecursionError:
        raise InvalidJson("The body is nested too deep to be read here.") from None
    # Each member of an object has one colon of its own and those in texts are copied: a difference is a lost
    # member. That count fails only where a colon is written as an escape.
    if b"\\u003" in raw or raw.count(b":") != _encode(value).count(b":"):
        _refuse_doubled_keys(raw)
    return value


def too_deep(depth: int) -> LimitExceeded:
    """The error for `depth` arrays and objects inside each other."""
    return LimitExceeded(f"JSON may be nested {limits.JSON_DEPTH_MAX} deep, this is nested {depth} deep.")


def integer_out_of_range(shown: str) -> LimitExceeded:
    """The error for an integer that 64 bits with a sign can't hold."""
    return LimitExceeded(
        f"An integer must be within {limits.INTEGER_MIN} and {limits.INTEGER_MAX}; {_cut(shown)} is not. "
        "Write it as a text."
    )


def _refuse_depth(raw: bytes) -> None:
    # The decoder recurses, so the depth is known before it starts. Few brackets can't be nested deep.
    if raw.count(b"[") + raw.count(b"{") > limits.JSON_DEPTH_MAX:
        structure = _STRING.sub(b"", raw).translate(None, _NOT_BRACKETS)
        depth = max(accumulate(map(_STEPS.__getitem__, structure)), default=0)
        if depth > limits.JSON_DEPTH_MAX:
            raise too_deep(depth)


def _refuse_long_integers(raw: bytes) -> None:
    if _NINETEEN_ZEROS not in raw.translate(_DIGITS_AS_ZERO):
        return
    for match in _NUMBER_OF_19_CHARS.finditer(_STRING.sub(b"", raw)):
        number = match[0]
        if _INTEGER.fullmatch(number) and not _in_range(number):
            raise integer_out_of_range(number[: SHOWN_CHARS_MAX + 1].decode("ascii"))


def _in_range(number: bytes) -> bool:
    return len(number) <= _INTEGER_CHARS_MAX and limits.INTEGER_MIN <= int(number) <= limits.INTEGER_MAX


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise LimitExceeded(f"The number {_cut(text)} is too large for a double-precision float.")
    return value


def _refuse_doubled_keys(raw: bytes) -> None:
    json.loads(raw.decode("utf-8"), object_pairs_hook=_refuse_doubled, parse_int=str, parse_float=str)


def _refuse_doubled(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) == len(pairs):
        return
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise InvalidJson(
                f"The key {json.dumps(_cut(key), ensure_ascii=False)} stands twice in one object."
            )
        seen.add(key)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "..."


_decode = msgspec.json.Decoder(float_hook=_finite).decode
_encode = msgspec.json.Encoder().encode
