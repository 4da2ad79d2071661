"""The filter language: MongoDB's, as far as operators stand on a list of those that are allowed.

A filter is read once, into the types of `query.nodes`, whatever store answers it; what is not on the list is
refused by name. So no operator reaches a database that was not thought about: none that runs code, reads
another collection, or takes unbounded time or memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from query.documents import TEXT_COLLECTIONS
from query.errors import InvalidSearch
from query.nodes import (
    EVERYTHING,
    All,
    And,
    Elements,
    Equal,
    Exists,
    Filter,
    In,
    Mod,
    Not,
    OnPath,
    Or,
    Range,
    Regex,
    Size,
    Text,
    Type,
)
from query.paths import (
    INTEGER_MIN,
    EncodeKey,
    Path,
    encode_operand,
    is_integer,
    is_number,
    joined,
    kind,
    operand,
    parse_path,
    require_object,
    shown,
    suggestion,
)
from query.regexes import OPTIONS, Checked, check_regex

__all__ = [
    "EVERYTHING",
    "LANGUAGES",
    "LOGICAL",
    "OPERATORS",
    "All",
    "And",
    "Elements",
    "Equal",
    "Exists",
    "Filter",
    "In",
    "Mod",
    "Not",
    "OnPath",
    "Or",
    "Range",
    "Regex",
    "Size",
    "Text",
    "Type",
    "conjuncts",
    "missing_in_embedded",
    "parse",
    "to_mongo",
]

FILTER_BYTES_MAX = 64 * 1024
"""Size of a filter as compact JSON."""
DEPTH_MAX = 10
"""How deep operators that hold others may be nested."""
NODES_MAX = 200
"""Operators of a filter, counted where they stand."""
VALUES_MAX = 1_000
"""Values of one `$in`, `$nin` or `$all`."""
SIZE_MAX = 2**31 - 1
LANGUAGES = frozenset(
    [
        *("none", "da", "danish", "de", "german", "en", "english", "es", "spanish", "fi", "finnish", "fr"),
        *("french", "hu", "hungarian", "it", "italian", "nb", "norwegian", "nl", "dutch", "pt", "portuguese"),
        *("ro", "romanian", "ru", "russian", "sv", "swedish", "tr", "turkish"),
    ]
)
"""What `$language` takes."""
TEXT_CHARS_MAX = 1_024
REGEXES_MAX = 4
"""Regular expressions of a filter: each may take some seconds on a large document."""

COMMON = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$not", "$exists")
MONGO_ONLY = ("$all", "$elemMatch", "$size", "$type", "$mod", "$regex", "$options")
LOGICAL = ("$and", "$or", "$nor")
OPERATORS = (*COMMON, *LOGICAL, *MONGO_ONLY, "$text")

TYPES: dict[str | int, tuple[str, ...]] = {
    "number": ("number",),
    "string": ("string",),
    "object": ("object",),
    "array": ("array",),
    "bool": ("bool",),
    "null": ("null",),
    "double": ("double",),
    "int": ("int", "long"),
    "long": ("int", "long"),
    1: ("double",),
    2: ("string",),
    3: ("object",),
    4: ("array",),
    8: ("bool",),
    10: ("null",),
    16: ("int", "long"),
    18: ("int", "long"),
}
"""What `$type` takes: names and MongoDB's numbers for them. Integers of all sizes are one type here."""

WHY_NOT = {
    "$where": "it would run a program in the database",
    "$function": "it would run a program in the database",
    "$expr": "$addFields and then $match in an aggregation say the same",
    "$jsonSchema": "$type, $exists and comparisons say the same",
    "$comment": "it means nothing here",
}


def parse(value: Any, collection: str | None) -> Filter:
    """The filter that a JSON value says. Its paths begin with fields of the collection.

    Without a collection (behind the stages of an aggregation that make documents of another shape) all paths
    are free, and there is no `$text`. Raises `InvalidSearch`, which names the operator, path or bound.
    """
    try:
        size_bytes = len(msgspec.json.encode(value))
    except (RecursionError, TypeError, ValueError, OverflowError):
        raise InvalidSearch("The filter is nested too deep, or holds what JSON can't hold") from None
    if size_bytes > FILTER_BYTES_MAX:
        raise InvalidSearch(f"The filter has {size_bytes:,} bytes; {FILTER_BYTES_MAX:,} are allowed")
    return _Reader(collection).filter(require_object(value, "A filter"), 1, top=True)


def conjuncts(filter: Filter) -> tuple[Filter, ...]:
    """The parts that must all match, taken out of all `And`."""
    if isinstance(filter, And):
        return tuple(found for part in filter.parts for found in conjuncts(part))
    return (filter,)


def missing_in_embedded(filter: Filter) -> str | None:
    """The first operator in the filter that only MongoDB answers, None if there is none."""
    if isinstance(filter, Not):
        return missing_in_embedded(filter.part)
    if isinstance(filter, And | Or):
        return next(_each(missing_in_embedded, filter.parts), None)
    return _MONGO_ONLY_NAMES.get(type(filter))


def _each(function: Callable[[Filter], str | None], parts: Sequence[Filter]) -> Iterator[str]:
    return (found for part in parts if (found := function(part)) is not None)


_MONGO_ONLY_NAMES: Mapping[type, str] = {
    All: "$all",
    Elements: "$elemMatch",
    Size: "$size",
    Type: "$type",
    Mod: "$mod",
    Regex: "$regex",
    Text: "$text",
}


def to_mongo(filter: Filter, encode_key: EncodeKey) -> dict[str, Any]:
    """The filter as MongoDB takes it. `encode_key` gives the stored name of a key."""
    if isinstance(filter, And):
        made = [to_mongo(part, encode_key) for part in conjuncts(filter)]
        if len(made) > 1:
            return {"$and": made}
        return made[0] if made else {}
    if isinstance(filter, Or):
        return {"$or": [to_mongo(part, encode_key) for part in filter.parts]}
    if isinstance(filter, Text):
        language = {} if filter.language is None else {"$language": filter.language}
        return {"$text": {"$search": filter.search} | language}
    if isinstance(filter, Not) and filter.operator == "$nor":
        return {"$nor": [to_mongo(part, encode_key) for part in _alternatives(filter.part)]}
    path, tests = _tests(filter, encode_key)
    return {joined(path, encode_key): tests}


def _alternatives(filter: Filter) -> tuple[Filter, ...]:
    return filter.parts if isinstance(filter, Or) else (filter,)


def _tests(filter: Filter, encode_key: EncodeKey) -> tuple[Path, dict[str, Any]]:
    """The path that all of the filter is about, and the operators that are said of it."""
    if isinstance(filter, And):
        made: dict[str, Any] = {}
        path: Path = ()
        for part in filter.parts:
            path, tests = _tests(part, encode_key)
            made |= tests
        return path, made
    if isinstance(filter, Not):
        path, tests = _tests(filter.part, encode_key)
        return path, {"$not": tests} if filter.operator == "$not" else {
            filter.operator: next(iter(tests.values()))
        }
    assert not isinstance(filter, Or | Text)
    return filter.path, _operators(filter, encode_key)


def _operators(test: OnPath, encode_key: EncodeKey) -> dict[str, Any]:
    match test:
        case Equal():
            return {"$eq": encode_operand(test.value, encode_key)}
        case Range():
            return {test.operator: test.value}
        case In():
            return {"$in": encode_operand(test.values, encode_key)}
        case Exists():
            return {"$exists": test.wanted}
        case All():
            elements = [_operators(each, encode_key) for each in test.elements]
            return {"$all": elements or encode_operand(test.values, encode_key)}
        case Elements():
            if test.values:
                return {"$elemMatch": _tests(test.part, encode_key)[1]}
            return {"$elemMatch": to_mongo(test.part, encode_key)}
        case Size():
            return {"$size": test.size}
        case Type():
            return {"$type": list(test.types)}
        case Mod():
            return {"$mod": [test.divisor, test.remainder]}
        case Regex():
            pattern = Checked(test.pattern, test.chars_max).bounded
            return {"$regex": pattern} | ({"$options": test.options} if test.options else {})
    raise TypeError(f"{type(test).__name__} is not a test that MongoDB is told about")


class _Reader:
    """Reads one filter, and counts its operators."""

    def __init__(self, collection: str | None) -> None:
        self._collection = collection
        self._nodes = 0
        self._regexes = 0
        self._has_text = False

    def filter(
        self, value: Mapping[str, Any], depth: int, *, top: bool = False, free: bool = False
    ) -> Filter:
        """The filter that an object says. `free`: its paths are not those of the collection."""
        if depth > DEPTH_MAX:
            raise InvalidSearch(f"The filter is nested more than {DEPTH_MAX} deep")
        parts: list[Filter] = []
        for name, given in value.items():
            if name in LOGICAL:
                parts.append(self._logical(name, given, depth, free))
            elif name == "$text":
                parts.append(self._text(given, top))
            elif name.startswith("$"):
                _refuse(name, "stands where only a path or $and, $or, $nor, $text may")
            else:
                path = parse_path(name, None if free else self._collection)
                parts.append(self._field(path, given, depth))
        return _all_of(parts)

    def _logical(self, name: str, given: Any, depth: int, free: bool) -> Filter:
        self._count()
        if not isinstance(given, list | tuple) or not given:
            raise InvalidSearch(f"{name} takes an array of filters that is not empty")
        parts = tuple(
            self.filter(require_object(each, f"Each part of {name}"), depth + 1, free=free) for each in given
        )
        if name == "$and":
            return And(parts)
        return Or(parts) if name == "$or" else Not(Or(parts), "$nor")

    def _text(self, given: Any, top: bool) -> Filter:
        self._count()
        if not top or self._collection is None or self._has_text:
            raise InvalidSearch("$text may stand once, at the top of a filter, beside the paths")
        if self._collection not in TEXT_COLLECTIONS:
            raise InvalidSearch(
                f"$text: the collection {self._collection} is not searched for text; "
                f"{' and '.join(TEXT_COLLECTIONS)} are"
            )
        self._has_text = True
        asked = require_object(given, "$text")
        for name in asked:
            if name not in ("$search", "$language"):
                raise InvalidSearch(
                    f"$text has no {shown(name)}" + suggestion(name, ("$search", "$language"))
                )
        search, language = asked.get("$search"), asked.get("$language")
        if not isinstance(search, str) or len(search) > TEXT_CHARS_MAX:
            raise InvalidSearch(f"$text takes $search, a text of at most {TEXT_CHARS_MAX:,} characters")
        if language is not None and not (isinstance(language, str) and language in LANGUAGES):
            raise InvalidSearch("$language is not one of " + ", ".join(sorted(LANGUAGES)))
        return Text(search, language)

    def _field(self, path: Path, given: Any, depth: int) -> Filter:
        """What is said of a path: operators, or a value to be equal to."""
        if isinstance(given, Mapping) and any(name.startswith("$") for name in given):
            return _all_of(self._operators(path, given, depth))
        self._count()
        return Equal(path, operand(given, f"The value for {_at(path)}"))

    def _operators(self, path: Path, given: Mapping[str, Any], depth: int) -> list[Filter]:
        if depth > DEPTH_MAX:
            raise InvalidSearch(f"The filter is nested more than {DEPTH_MAX} deep")
        if not all(name.startswith("$") for name in given):
            raise InvalidSearch(
                f"The object for {_at(path)} has operators and other keys; to compare with an object "
                'with a key like $x say {"$eq": …}'
            )
        if "$options" in given and "$regex" not in given:
            raise InvalidSearch(f"$options for {_at(path)} belongs to a $regex, and there is none")
        return [
            self._operator(path, name, value, given, depth)
            for name, value in given.items()
            if name != "$options"
        ]

    def _operator(self, path: Path, name: str, value: Any, given: Mapping[str, Any], depth: int) -> Filter:
        self._count()
        where = f"{name} for {_at(path)}"
        match name:
            case "$eq":
                return Equal(path, operand(value, where))
            case "$ne":
                return Not(Equal(path, operand(value, where)), name)
            case "$gt" | "$gte" | "$lt" | "$lte":
                if not isinstance(value, str | bool) and not is_number(value):
                    raise InvalidSearch(f"{where} takes a number, a text or a boolean, not {kind(value)}")
                return Range(path, name, operand(value, where))
            case "$in":
                return In(path, _values(value, where))
            case "$nin":
                return Not(In(path, _values(value, where)), name)
            case "$exists":
                if not isinstance(value, bool) and not (is_integer(value, 0, 1)):
                    raise InvalidSearch(f"{where} takes true or false, not {kind(value)}")
                return Exists(path, bool(value))
            case "$not":
                return self._not(path, value, where, depth)
            case "$all":
                return self._all(path, value, where, depth)
            case "$elemMatch":
                return self._elements(path, value, where, depth)
            case "$size":
                if not is_integer(value, 0, SIZE_MAX):
                    raise InvalidSearch(f"{where} takes an integer from 0 to {SIZE_MAX:,}")
                return Size(path, value)
            case "$type":
                return _type(path, value, where)
            case "$mod":
                if not (
                    isinstance(value, list | tuple)
                    and len(value) == 2
                    and is_integer(value[0], 1)
                    and is_integer(value[1], INTEGER_MIN)
                ):
                    raise InvalidSearch(f"{where} takes [divisor, remainder], integers, the divisor from 1")
                return Mod(path, *value)
            case "$regex":
                return self._regex(path, value, given.get("$options", ""), where)
            case _ if name in LOGICAL or name == "$text":
                raise InvalidSearch(f"{name} does not stand behind a path: {_at(path)}")
        _refuse(name, f"was said of {_at(path)}")

    def _not(self, path: Path, value: Any, where: str, depth: int) -> Filter:
        tests = require_object(value, where)
        if not tests or not all(name.startswith("$") for name in tests):
            raise InvalidSearch(f'{where} takes an object of operators, like {{"$gt": 5}}')
        return Not(_all_of(self._operators(path, tests, depth + 1)), "$not")

    def _all(self, path: Path, value: Any, where: str, depth: int) -> All:
        if isinstance(value, list | tuple) and any(
            isinstance(each, Mapping) and "$elemMatch" in each for each in value
        ):
            if len(value) > VALUES_MAX or any(
                not isinstance(each, Mapping) or list(each) != ["$elemMatch"] for each in value
            ):
                raise InvalidSearch(f"{where} takes either values or $elemMatch objects, not both")
            elements = []
            for each in value:
                self._count()
                elements.append(self._elements(path, each["$elemMatch"], where, depth))
            return All(path, (), tuple(elements))
        return All(path, _values(value, where))

    def _elements(self, path: Path, value: Any, where: str, depth: int) -> Elements:
        asked = require_object(value, f"$elemMatch for {_at(path)}" if "$all" in where else where)
        first = next(iter(asked), "")
        if first.startswith("$") and first not in LOGICAL:
            return Elements(path, _all_of(self._operators((), asked, depth + 1)), values=True)
        return Elements(path, self.filter(asked, depth + 1, free=True), values=False)

    def _regex(self, path: Path, value: Any, options: Any, where: str) -> Regex:
        self._regexes += 1
        if self._regexes > REGEXES_MAX:
            raise InvalidSearch(f"The filter has more than {REGEXES_MAX} regular expressions")
        if not isinstance(value, str):
            raise InvalidSearch(f"{where} takes a text, not {kind(value)}")
        if not isinstance(options, str) or len(options) > len(OPTIONS) or set(options) - set(OPTIONS):
            raise InvalidSearch(
                f"$options for {_at(path)} are letters of: i (capitals don't matter), m (^ and $ at lines), "
                "s (the dot takes ends of lines)"
            )
        checked = check_regex(value, options, where)
        return Regex(path, value, "".join(sorted(set(options))), checked.chars_max)

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise InvalidSearch(f"The filter has more than {NODES_MAX} operators")


def _all_of(parts: Sequence[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _at(path: Path) -> str:
    return shown(".".join(path)) if path else "the elements"


def _values(value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise InvalidSearch(f"{where} takes an array of values, not {kind(value)}")
    if len(value) > VALUES_MAX:
        raise InvalidSearch(f"{where} has {len(value):,} values; {VALUES_MAX:,} are allowed")
    return tuple(operand(each, where) for each in value)


def _type(path: Path, value: Any, where: str) -> Type:
    given = value if isinstance(value, list | tuple) else [value]
    found: dict[str, None] = {}
    for each in given:
        if not isinstance(each, str | int) or isinstance(each, bool) or each not in TYPES:
            names = ", ".join(str(name) for name in TYPES)
            raise InvalidSearch(f"{where} takes one of {names}, or an array of them")
        found |= dict.fromkeys(TYPES[each])
    if not found:
        raise InvalidSearch(f"{where} takes at least one type")
    return Type(path, tuple(found))


def _refuse(name: str, place: str) -> NoReturn:
    why = WHY_NOT.get(name)
    if why is None and name in OPERATORS:
        raise InvalidSearch(f"{name} can't stand here: it {place}")
    raise InvalidSearch(
        f"The operator {shown(name)} is not offered"
        + (f", as {why}" if why else "")
        + suggestion(name, OPERATORS)
    )
