"""Orders of documents: how a `sort` is read, which ones follow the order of commitment, and MongoDB's order
of values of different types.

Every store must sort alike, so that the pages of a question mean the same whoever answers it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from query.documents import FIELDS, Document
from query.errors import InvalidSearch
from query.paths import EncodeKey, Path, index, is_integer, joined, parse_path, require_object, shown

Sort = tuple[tuple[Path, int], ...]
"""Paths, the first counting most, each with 1 (upwards) or -1. Empty: the order of commitment."""

SORT_PATHS_MAX = 4

_EMPTY, _NULL, _NUMBER, _TEXT, _OBJECT, _ARRAY, _BOOLEAN = range(7)
"""Ranks of types. An empty array stands below null, as MongoDB takes it for undefined."""
_NOWHERE: tuple[int] = (_NULL,)


def parse(value: Any, collection: str | None) -> Sort:
    """The order that a JSON object `{"path": 1, "other": -1}` says; its keys count in their order.

    Without a collection (in an aggregation) paths are free. Raises `InvalidSearch`.
    """
    asked = require_object(value, "A sort")
    if len(asked) > SORT_PATHS_MAX:
        raise InvalidSearch(f"A sort has at most {SORT_PATHS_MAX} paths, this one {len(asked)}")
    made = []
    for text, direction in asked.items():
        path = parse_path(text, collection)
        if not is_integer(direction, -1, 1) or direction == 0:
            raise InvalidSearch(f"The sort by {shown(text)} takes 1 (upwards) or -1 (downwards)")
        made.append((path, int(direction)))
    return tuple(made)


def natural_order(collection: str) -> tuple[Path, ...]:
    """The paths that tell the order of commitment in a collection."""
    order = (("height",), ("position",), ("output_index",))
    return tuple(path for path in order if path[0] in FIELDS[collection])


def natural_direction(sort: Sort, collection: str) -> int | None:
    """1 if a sort is no other than the order of commitment, -1 if than its reverse, else None."""
    if not sort:
        return 1
    directions = {direction for _, direction in sort}
    paths = tuple(path for path, _ in sort)
    if len(directions) == 1 and natural_order(collection)[: len(paths)] == paths:
        return directions.pop()
    return None


def to_mongo(sort: Sort, encode_key: EncodeKey) -> dict[str, int]:
    """The sort as MongoDB takes it. `encode_key` gives the stored name of a key."""
    return {joined(path, encode_key): direction for path, direction in sort}


class _Empty:
    """What a sort takes for an empty array."""


class _Unknown:
    """Not looked up yet."""


_EMPTY_ARRAY = _Empty()
_UNKNOWN = _Unknown()


class Down:
    """Turns an order round: a key that is less the greater what it holds is."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __lt__(self, other: "Down") -> bool:
        return bool(other.key < self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Down) and bool(self.key == other.key)

    def __hash__(self) -> int:
        return hash(self.key)


SortKey = tuple[Any, ...]


def value_key(value: Any) -> tuple[Any, ...]:
    """Values in MongoDB's order are in the order of their keys. Objects have theirs in order, as always."""
    if value is None:
        return (_NULL,)
    if isinstance(value, str):
        return (_TEXT, value)
    if isinstance(value, bool):
        return (_BOOLEAN, value)
    if isinstance(value, int | float):
        return (_NUMBER, value)
    if isinstance(value, dict):
        return (_OBJECT, tuple([_member_key(name, value[name]) for name in sorted(value)]))
    if isinstance(value, list):
        return (_ARRAY, tuple([value_key(each) for each in value]))
    return (_EMPTY,)


def _member_key(name: str, value: Any) -> tuple[int, str, tuple[Any, ...]]:
    key = value_key(value)
    return key[0], name, key


def sort_key(document: Document, sort: Sort) -> SortKey:
    """Documents in the order of `sort` are in the order of their keys; equal keys are as `sort` leaves them.

    An array counts as its element that comes first in that order. Raises `InvalidSearch` as MongoDB does: for
    two paths through different arrays, and for a number in a path that is both a place and a key.
    """
    values = []
    for path, _ in sort:
        value: Any = document
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
            if isinstance(value, list):
                return min(_directed(found, sort) for found in _combinations(document, sort))
        values.append(value)
    return _directed(values, sort)


def _directed(values: Sequence[Any], sort: Sort) -> SortKey:
    return tuple(
        [
            value_key(value) if direction > 0 else Down(value_key(value))
            for value, (_, direction) in zip(values, sort, strict=True)
        ]
    )


class _Reached:
    """How far a path leads into a value: to what it names, or to the array where it branches."""

    __slots__ = ("rest", "value", "whole")

    def __init__(self, value: Any, path: Path, *, whole: bool = False) -> None:
        """`whole`: an array at the end of the path stands for itself, not for its elements."""
        self.whole = whole
        self.value: Any
        self.rest: Path
        for length, part in enumerate(path):
            if isinstance(value, list):
                self.value, self.rest = value, path[length:]
                return
            value = value.get(part) if isinstance(value, dict) else None
        self.value, self.rest = value, ()


def _combinations(document: Document, sort: Sort) -> Iterator[list[Any]]:
    """All combinations of values that the paths of a sort have in a document with arrays.

    There is one for each element of an array: what paths name in one element belongs together.
    """
    yield from _expanded(document, [path for path, _ in sort], [_UNKNOWN] * len(sort), {})


def _expanded(
    value: Any, paths: list[Path], known: list[Any], placed: Mapping[int, _Reached]
) -> Iterator[list[Any]]:
    """The combinations below `value`; `placed` are those paths that name a place in the array around it."""
    array: list[Any] | None = None
    branching: dict[int, _Reached] = {}
    known = list(known)
    for number, path in enumerate(paths):
        if known[number] is not _UNKNOWN:
            continue
        reached = placed.get(number)
        if reached is None:
            reached = _Reached(value, path)
        elif isinstance(value, dict) and path[0] in value:
            raise InvalidSearch(
                f"The sort names {shown(path[0])} in a path, which in a document is both a place in an array "
                "and a key of an object in that array"
            )
        if not isinstance(reached.value, list):
            known[number] = reached.value
        elif array is None or array is reached.value:
            array = reached.value
            branching[number] = reached
        else:
            raise InvalidSearch(
                "Two paths of the sort lead through different arrays of a document; sort by one"
            )
    if array is None:
        yield known
        return
    paths = [branching[number].rest if number in branching else path for number, path in enumerate(paths)]
    below = {
        number: _Reached(array[place], rest[1:], whole=isinstance(array[place], list))
        for number, reached in branching.items()
        if (rest := reached.rest) and (place := index(rest[0])) is not None and place < len(array)
    }
    for element in array or [_EMPTY_ARRAY]:
        for number, reached in branching.items():
            if reached.rest:
                known[number] = _UNKNOWN
            else:
                known[number] = array if reached.whole and array else element
        yield from _expanded(element if isinstance(element, dict) else {}, paths, known, below)
