"""Canonical JSON: the exact bytes under ids and signatures, in the two forms that clients compute.

PYTHON is the reference's form, JAVASCRIPT what `JSON.stringify` with sorted keys gives. Encoding is
deterministic on every machine: it must never depend on dict order, locale or the spelling of the JSON that
was read.
"""

import re
from collections.abc import Iterable, Iterator
from enum import Enum
from json import dumps
from math import isfinite
from typing import Any

import msgspec

from bcdb.model import limits
from bcdb.model.errors import InvalidJson
from bcdb.model.strict_json import integer_out_of_range, load, too_deep

__all__ = [
    "Form",
    "encode",
    "encode_javascript",
    "encode_python",
    "javascript_number",
    "javascript_representable",
    "load",
]

_SORTED = msgspec.json.Encoder(order="deterministic")
_AS_IS = msgspec.json.Encoder()
# In encoded JSON a control character without a short form is \u00 and two hex digits.
_ESCAPE = re.compile(rb"\\(?:u00([0-9a-f]{2})|.)", re.DOTALL)
_ASTRAL = re.compile(rb"[\xf0-\xf4]")
_JAVASCRIPT_DECIMAL_BELOW = 1e21


class Form(Enum):
    """Whose canonical JSON it is."""

    PYTHON = "python"
    JAVASCRIPT = "javascript"


def encode(obj: Any, form: Form, *, floats: bool | None = None) -> bytes:
    """`encode_python` or `encode_javascript`, as `form` says."""
    return encode_python(obj, floats=floats) if form is Form.PYTHON else encode_javascript(obj, floats=floats)


def encode_python(obj: Any, *, floats: bool | None = None) -> bytes:
    """The reference's form: keys in code-point order, Python's floats, upper-case `\\u00XX`.

    `obj` is of dict, list, str, int, float, bool, None and msgspec Structs (whose fields must stand in
    alphabetical order). For what `load` or another strict decoder made give `floats`: False if there is
    surely none, else True. Without it all of `obj` is looked at first, and InvalidJson or LimitExceeded
    raised for what `load` would refuse.
    """
    if floats is None:
        floats = _has_floats(obj)
    text = _dumps(msgspec.to_builtins(obj)) if floats else _encoded(_SORTED, obj)
    if b"\\u00" in text:
        text = _ESCAPE.sub(_upper_case_escape, text)
    return text


def encode_javascript(obj: Any, *, floats: bool | None = None) -> bytes:
    """The form of JavaScript clients: keys in UTF-16 order, ECMAScript numbers, lower-case `\\u00xx`.

    Arguments and errors are those of `encode_python`. What is not `javascript_representable` gets a text too,
    but no JavaScript program can have made it.
    """
    if floats is None:
        floats = _has_floats(obj)
    if not floats:
        text = _encoded(_SORTED, obj)
        # UTF-16 puts what lies beyond U+FFFF before U+E000. Without such characters the two orders agree.
        if text.isascii() or _ASTRAL.search(text) is None:
            return text
    return _encoded(_AS_IS, _javascript_tree(msgspec.to_builtins(obj)))


def javascript_representable(obj: Any) -> bool:
    """Whether a JavaScript program could hold every number of `obj` and write it back as it was.

    That is so when each number that it writes like an integer lies within 2^53 - 1 of zero.
    """
    return all(map(_representable, _scalars(obj)))


def javascript_number(value: float) -> str:
    """`value`, which is finite, as ECMA-262 writes it (Number::toString, radix 10)."""
    # Both languages choose the same digits, the shortest that read back as the value. The layout differs.
    text = repr(value)
    mantissa, _, exponent_text = text.partition("e")
    if not exponent_text:
        return "0" if value == 0 else text.removesuffix(".0")
    exponent = int(exponent_text)
    sign = "-" if mantissa.startswith("-") else ""
    digits = mantissa.lstrip("-").replace(".", "")
    if 0 < exponent < 21:
        return sign + digits.ljust(exponent + 1, "0")
    if -7 < exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    return f"{mantissa}e{exponent:+d}"


def _representable(value: Any) -> bool:
    if type(value) is int:
        return -limits.JAVASCRIPT_INTEGER_MAX <= value <= limits.JAVASCRIPT_INTEGER_MAX
    if type(value) is float and value.is_integer() and abs(value) < _JAVASCRIPT_DECIMAL_BELOW:
        return abs(value) <= limits.JAVASCRIPT_INTEGER_MAX
    return True


def _encoded(encoder: msgspec.json.Encoder, obj: Any) -> bytes:
    try:
        return encoder.encode(obj)
    except UnicodeEncodeError:
        raise InvalidJson("A text has a lone surrogate, which is not a character.") from None


def _dumps(obj: Any) -> bytes:
    text = dumps(obj, sort_keys=True, ensure_ascii=False, separators=(",", ":"), check_circular=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidJson("A text has a lone surrogate, which is not a character.") from None


def _upper_case_escape(match: re.Match[bytes]) -> bytes:
    digits: bytes | None = match[1]
    return match[0] if digits is None else b"\\u00" + digits.upper()


def _javascript_tree(value: Any) -> Any:
    """`value` with keys in UTF-16 order and floats written already. JSON_DEPTH_MAX bounds the recursion."""
    if type(value) is dict:
        return {key: _javascript_tree(value[key]) for key in sorted(value, key=_utf16)}
    if type(value) is list or type(value) is tuple:
        return [_javascript_tree(item) for item in value]
    if type(value) is float:
        return msgspec.Raw(javascript_number(value).encode("ascii"))
    return value


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")


def _scalars(tree: Any) -> Iterator[Any]:
    todo = [tree]
    while todo:
        value = todo.pop()
        members = _members(value)
        if members is None:
            yield value
        else:
            todo.extend(members)


def _has_floats(obj: Any) -> bool:
    """Whether there is a float in `obj`. Raises for what `load` would refuse, lone surrogates excepted."""
    floats = False
    depth = 0
    level = [obj]
    while level:
        below: list[Any] = []
        nested = False
        for value in level:
            kind = type(value)
            if kind is str or kind is bool or value is None:
                continue
            if kind is int:
                if not limits.INTEGER_MIN <= value <= limits.INTEGER_MAX:
                    raise integer_out_of_range(hex(value))
            elif kind is float:
                floats = True
                if not isfinite(value):
                    raise InvalidJson(f"JSON has no number {value}.")
            else:
                members = _members(value)
                if members is None or (kind is dict and not all(type(key) is str for key in value)):
                    raise InvalidJson(f"This {kind.__name__} can't be written as JSON.")
                nested = True
                below.extend(members)
        depth += nested
        if depth > limits.JSON_DEPTH_MAX:
            raise too_deep(depth)
        level = below
    return floats


def _members(value: Any) -> Iterable[Any] | None:
    """What an object or array contains; None for anything else."""
    kind = type(value)
    if kind is dict:
        members: Iterable[Any] = value.values()
        return members
    if kind is list or kind is tuple:
        return list(value)
    if isinstance(value, msgspec.Struct):
        fields = [getattr(value, name) for name in value.__struct_fields__]
        return [field for field in fields if field is not msgspec.UNSET]
    return None
