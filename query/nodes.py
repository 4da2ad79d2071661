"""What a filter is made of: its tests, and what joins them. `query.filters` reads and writes it.

The types are the language, whatever store answers it: nothing here may be what no operator on its list says.
"""

from typing import Any

import msgspec

from query.paths import Path


class OnPath(msgspec.Struct, frozen=True, tag=True):
    """A test of what stands at `path`; the empty path is the element itself, within `Elements`."""

    path: Path


class Equal(OnPath, frozen=True, tag=True):
    """`$eq`, and a value that stands alone. Objects have their keys in order."""

    value: Any


class Range(OnPath, frozen=True, tag=True):
    """`$gt`, `$gte`, `$lt` or `$lte`, as `operator` says, than a number, a text or a boolean."""

    operator: str
    value: Any


class In(OnPath, frozen=True, tag=True):
    """`$in`: equal to one of the values."""

    values: tuple[Any, ...]


class Exists(OnPath, frozen=True, tag=True):
    """`$exists`: whether there is anything, null included."""

    wanted: bool


class All(OnPath, frozen=True, tag=True):
    """`$all`: equal to each of the values; or with `elements` each of those matches. Nothing if empty."""

    values: tuple[Any, ...]
    elements: "tuple[Elements, ...]" = ()


class Elements(OnPath, frozen=True, tag=True):
    """`$elemMatch`: an array with an element that matches `part`.

    With `values` the tests of `part` are of the element itself, else they are of fields within it.
    """

    part: "Filter"
    values: bool


class Size(OnPath, frozen=True, tag=True):
    """`$size`: an array of so many elements."""

    size: int


class Type(OnPath, frozen=True, tag=True):
    """`$type`: of one of the types, by MongoDB's names."""

    types: tuple[str, ...]


class Mod(OnPath, frozen=True, tag=True):
    """`$mod`: a number whose whole part has this remainder."""

    divisor: int
    remainder: int


class Regex(OnPath, frozen=True, tag=True):
    """`$regex`, checked; `options` of i, m and s. Texts of more than `chars_max` characters never match."""

    pattern: str
    options: str
    chars_max: int | None


class Not(msgspec.Struct, frozen=True, tag=True):
    """What does not match `part`. `operator` is how it was said: `$ne`, `$nin`, `$not` or `$nor`."""

    part: "Filter"
    operator: str


class And(msgspec.Struct, frozen=True, tag=True):
    """All parts match. Without parts: everything."""

    parts: "tuple[Filter, ...]"


class Or(msgspec.Struct, frozen=True, tag=True):
    """One of the parts matches."""

    parts: "tuple[Filter, ...]"


class Text(msgspec.Struct, frozen=True, tag=True):
    """`$text`: MongoDB's full text search; only among the `conjuncts` of a filter, and once."""

    search: str
    language: str | None


Filter = Equal | Range | In | Exists | All | Elements | Size | Type | Mod | Regex | Not | And | Or | Text

EVERYTHING = And(())
