"""Paths into documents, and the constants that questions compare with: how they are read and bounded.

A path is `data.origin.farm`: a field of the collection, then keys, a number for a place in an array. No key
with a dot in it can be named. Everything here comes from outside and is refused with a sentence.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from math import isfinite
from typing import Any

from query.documents import FIELDS
from query.errors import InvalidSearch

Path = tuple[str, ...]
EncodeKey = Callable[[str], str]
"""The name that a database has for a key of a document."""

PATH_PARTS_MAX = 20
PATH_CHARS_MAX = 1_024
PATH_NUMBERS_MAX = 8
"""Numbers in a path. Each may be a place and a key, so they multiply the ways that a path has."""
OPERAND_DEPTH_MAX = 64
"""As deep as documents are."""
INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**63 - 1
SHOWN_CHARS_MAX = 60
"""So much of what was asked stands in the sentence that refuses it."""


def shown(text: str) -> str:
    """`text` as a sentence shows it, in backquotes and not too long."""
    return f"`{text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 1] + '…'}`"


def suggestion(name: str, known: tuple[str, ...]) -> str:
    """The end of a sentence that refuses `name`: the nearest of those there are, and all of them."""
    close = get_close_matches(name[:SHOWN_CHARS_MAX], known, 1)
    return (f". Did you mean {close[0]}?" if close else ".") + " There are: " + ", ".join(known)


def parse_path(text: str, collection: str | None = None) -> Path:
    """The parts of a path. With a collection its first part must be one of its fields.

    Raises `InvalidSearch`.
    """
    if len(text) > PATH_CHARS_MAX:
        raise InvalidSearch(f"The path {shown(text)} is longer than {PATH_CHARS_MAX:,} characters")
    path = tuple(text.split("."))
    if len(path) > PATH_PARTS_MAX:
        raise InvalidSearch(f"The path {shown(text)} has more than {PATH_PARTS_MAX} parts")
    if "" in path:
        raise InvalidSearch(f"The path {shown(text)} has an empty part; write it like data.origin.farm")
    if sum(index(part) is not None for part in path) > PATH_NUMBERS_MAX:
        raise InvalidSearch(f"The path {shown(text)} has more than {PATH_NUMBERS_MAX} numbers")
    if collection is not None and path[0] not in FIELDS[collection]:
        raise InvalidSearch(
            f"The collection {collection} has no field {shown(path[0])}"
            + suggestion(path[0], FIELDS[collection])
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidSearch("A path has half of a surrogate pair in it, which no document has") from None
    return path


def joined(path: Path, encode_key: EncodeKey) -> str:
    """The path as a database has it."""
    return ".".join(map(encode_key, path))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def kind(value: Any) -> str:
    """What a value is, for a sentence."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if is_number(value):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "an object" if isinstance(value, Mapping) else "an array"


def operand(value: Any, where: str, depth: int = 1) -> Any:
    """A copy of a constant, with the keys of its objects in order, as in all documents.

    `where` says in a sentence whose operand it is. Raises `InvalidSearch` for what no document can hold.
    """
    if depth > OPERAND_DEPTH_MAX:
        raise InvalidSearch(f"{where}: the value is nested more than {OPERAND_DEPTH_MAX} deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            raise InvalidSearch(f"{where}: an integer has at most 64 bits, and there is a longer one")
        return value
    if isinstance(value, float):
        if not isfinite(value):
            raise InvalidSearch(f"{where}: {value} is not a number that JSON has")
        return value
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {key: operand(value[key], where, depth + 1) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [operand(item, where, depth + 1) for item in value]
    raise InvalidSearch(f"{where}: {type(value).__name__} is not a type that JSON has")


def encode_operand(value: Any, encode_key: EncodeKey) -> Any:
    """The constant as a database has it: the keys of its objects encoded, their order kept."""
    if isinstance(value, Mapping):
        return {encode_key(key): encode_operand(item, encode_key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode_operand(item, encode_key) for item in value]
    return value


def is_integer(value: Any, minimum: int, maximum: int = INTEGER_MAX) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum


def require_object(value: Any, where: str) -> Mapping[str, Any]:
    """`value`, which must be an object. Raises `InvalidSearch`."""
    if not isinstance(value, Mapping):
        raise InvalidSearch(f"{where} takes an object, not {kind(value)}")
    return value


def index(part: str) -> int | None:
    """The place in an array that a part of a path names, None if it can only be a key."""
    if part.isascii() and part.isdigit() and (part == "0" or part[0] != "0"):
        return int(part)
    return None
