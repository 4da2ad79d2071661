"""Whether a document matches a filter, as MongoDB decides it: for stores that have no such language.

A path through an array leads to each of its elements, and a test holds if it holds for one of them. Nothing
here may differ from MongoDB on a document that a store can hold.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from query.documents import Document
from query.filters import And, Equal, Exists, Filter, In, Not, Or, Range, conjuncts, missing_in_embedded
from query.paths import Path, index

Matcher = Callable[[Document], bool]
_Test = Callable[[Any], bool]
"""Of one value; of `_MISSING` where there is none."""


class _Missing:
    """Stands for what is not there."""


_MISSING = _Missing()
_BOOLEAN = _Missing
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def matcher(filter: Filter) -> Matcher:
    """A function that says whether a document matches; making it costs, calling it is cheap.

    Only for filters that `filters.missing_in_embedded` finds nothing in; else ValueError.
    """
    if isinstance(filter, And):
        return _all([matcher(part) for part in conjuncts(filter)])
    if isinstance(filter, Or):
        return _any([matcher(part) for part in filter.parts])
    if isinstance(filter, Not):
        return _none(matcher(filter.part))
    match filter:
        case Equal():
            return _at(filter.path, _equal(filter.value))
        case In():
            return _at(filter.path, _in(filter.values))
        case Range():
            return _at(filter.path, _range(filter.operator, filter.value))
        case Exists():
            exists = _at(filter.path, lambda value: value is not _MISSING)
            return exists if filter.wanted else _none(exists)
    raise ValueError(f"{missing_in_embedded(filter)} is evaluated by MongoDB only")


def _all(parts: Sequence[Matcher]) -> Matcher:
    if len(parts) == 1:
        return parts[0]

    def match(document: Document) -> bool:
        for part in parts:  # noqa: SIM110 - a generator would cost more than most tests
            if not part(document):
                return False
        return True

    return match


def _any(parts: Sequence[Matcher]) -> Matcher:
    def match(document: Document) -> bool:
        for part in parts:  # noqa: SIM110 - see above
            if part(document):
                return True
        return False

    return match


def _none(part: Matcher) -> Matcher:
    return lambda document: not part(document)


def _at(path: Path, test: _Test) -> Matcher:
    """Whether `test` holds for one of the values that a path leads to in a document."""
    places = tuple([(part, index(part)) for part in path])
    end = len(places)

    def match(value: Any, start: int = 0) -> bool:
        for number in range(start, end):
            if type(value) is dict:
                value = value.get(path[number], _MISSING)
            elif type(value) is list:
                return match_elements(value, number)
            else:
                value = _MISSING
                break
        if type(value) is list:
            for element in value:
                if test(element):
                    return True
        return test(value)

    def match_elements(array: list[Any], start: int) -> bool:
        """The path goes on with the part `start`: a key of objects in the array, or a place in it."""
        for element in array:
            if type(element) is dict and match(element, start):
                return True
        place = places[start][1]
        if place is None or place >= len(array):
            return False
        element = array[place]
        if start + 1 == end:
            return test(element)
        if type(element) is dict:
            return match(element, start + 1)
        return type(element) is list and match_elements(element, start + 1)

    return match


def _equal(wanted: Any) -> _Test:
    if wanted is None:
        return lambda value: value is None or value is _MISSING
    if isinstance(wanted, bool):
        return lambda value: value is wanted
    if isinstance(wanted, str):
        return lambda value: type(value) is str and value == wanted
    if isinstance(wanted, int | float):
        return lambda value: (type(value) is int or type(value) is float) and value == wanted
    return lambda value: same(value, wanted)


def _in(wanted: Sequence[Any]) -> _Test:
    texts = frozenset(each for each in wanted if isinstance(each, str))
    numbers = frozenset(
        each for each in wanted if isinstance(each, int | float) and not isinstance(each, bool)
    )
    booleans = frozenset(each for each in wanted if isinstance(each, bool))
    null = any(each is None for each in wanted)
    others = frozenset(_frozen(each) for each in wanted if isinstance(each, dict | list))

    def test(value: Any) -> bool:
        kind = type(value)
        if kind is str:
            return value in texts
        if kind is int or kind is float:
            return value in numbers
        if kind is bool:
            return value in booleans
        if value is None or value is _MISSING:
            return null
        return bool(others) and _frozen(value) in others

    return test


def _frozen(value: Any) -> Any:
    """Equal for equal values, and hashable: so that the number of values to compare with costs nothing."""
    if type(value) is dict:
        return frozenset([(key, _frozen(each)) for key, each in value.items()])
    if type(value) is list:
        return tuple([_frozen(each) for each in value])
    return (_BOOLEAN, value) if type(value) is bool else value


def _range(name: str, bound: Any) -> _Test:
    """Values of another type than the bound's are neither more nor less than it."""
    compare = _COMPARE[name]
    if isinstance(bound, bool):
        return lambda value: type(value) is bool and compare(value, bound)
    if isinstance(bound, str):
        return lambda value: type(value) is str and compare(value, bound)
    return lambda value: (type(value) is int or type(value) is float) and compare(value, bound)


def same(value: Any, wanted: Any) -> bool:
    """Whether two JSON values are equal: numbers by their size, booleans never to numbers."""
    if isinstance(wanted, dict):
        return (
            type(value) is dict
            and len(value) == len(wanted)
            and all(key in value and same(value[key], each) for key, each in wanted.items())
        )
    if isinstance(wanted, list):
        return (
            type(value) is list
            and len(value) == len(wanted)
            and all(same(one, each) for one, each in zip(value, wanted, strict=True))
        )
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return bool(value == wanted)
