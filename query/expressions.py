"""The expressions of aggregations: which of MongoDB's operators may stand in them, and what they cost.

The list leaves out whatever runs code, makes values out of nothing or takes more time than a few looks at
each value: MongoDB looks at its clock only between documents. How often values are copied is counted, as
copies of copies grow without end.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from query.errors import InvalidSearch
from query.paths import (
    EncodeKey,
    Path,
    encode_operand,
    joined,
    operand,
    parse_path,
    require_object,
    shown,
    suggestion,
)

DEPTH_MAX = 20
NODES_MAX = 500
"""Operators, paths and constants of a pipeline."""
DELIMITER_CHARS_MAX = 32
SPLIT_WEIGHT = 8
"""The parts of a text take more room than the text: `$split` counts as so many copies."""

ROOTS = ("$$ROOT", "$$CURRENT")
REMOVE = "$$REMOVE"

MANY = 1_000_000


class Operator(msgspec.Struct, frozen=True):
    """How many arguments an operator takes, or (`named`) under which names.

    `copies`: what it makes may be as large as its arguments.
    """

    least: int = 1
    most: int = 1
    named: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    copies: bool = False


def _of(names: str, operator: Operator) -> dict[str, Operator]:
    return {f"${name}": operator for name in names.split()}


_DATE_PART = Operator(named=("date", "timezone"), needed=("date",))

OPERATORS: Mapping[str, Operator] = {
    **_of("abs ceil floor sqrt exp ln log10", Operator()),
    **_of("add multiply", Operator(1, MANY)),
    **_of("subtract divide mod pow log", Operator(2, 2)),
    **_of("round trunc", Operator(1, 2)),
    **_of("cmp eq ne gt gte lt lte", Operator(2, 2)),
    **_of("and or", Operator(0, MANY)),
    **_of("not", Operator()),
    **_of("cond", Operator(3, 3, named=("if", "then", "else"), needed=("if", "then", "else"), copies=True)),
    **_of("ifNull", Operator(2, MANY, copies=True)),
    **_of("switch", Operator(0, 0)),
    **_of("literal", Operator()),
    **_of("concat", Operator(1, MANY, copies=True)),
    **_of("toLower toUpper", Operator(copies=True)),
    **_of("substrCP", Operator(3, 3, copies=True)),
    **_of("strLenCP strLenBytes", Operator()),
    **_of("strcasecmp", Operator(2, 2)),
    **_of("split", Operator(2, 2, copies=True)),
    **_of("trim ltrim rtrim", Operator(0, 0, named=("input", "chars"), needed=("input",), copies=True)),
    **_of("size isArray isNumber type", Operator()),
    **_of("arrayElemAt", Operator(2, 2, copies=True)),
    **_of("first last", Operator(copies=True)),
    **_of("slice", Operator(2, 3, copies=True)),
    **_of("concatArrays", Operator(1, MANY, copies=True)),
    **_of("in", Operator(2, 2)),
    **_of("sum avg", Operator(1, MANY)),
    **_of("min max", Operator(1, MANY, copies=True)),
    **_of("year month week dayOfYear dayOfMonth dayOfWeek hour minute second millisecond", _DATE_PART),
    **_of("isoWeekYear isoWeek isoDayOfWeek", _DATE_PART),
    **_of(
        "dateFromString",
        Operator(
            0, 0, named=("dateString", "format", "timezone", "onError", "onNull"), needed=("dateString",)
        ),
    ),
    **_of("dateToString", Operator(0, 0, named=("date", "format", "timezone", "onNull"), needed=("date",))),
    **_of(
        "dateTrunc",
        Operator(0, 0, named=("date", "unit", "binSize", "timezone", "startOfWeek"), needed=("date", "unit")),
    ),
    **_of(
        "dateDiff",
        Operator(
            0,
            0,
            named=("startDate", "endDate", "unit", "timezone", "startOfWeek"),
            needed=("startDate", "endDate", "unit"),
        ),
    ),
    **_of("toBool toDate toDouble toInt toLong", Operator()),
    **_of("toString", Operator(copies=True)),
}
"""All operators of expressions."""

ACCUMULATORS: Mapping[str, bool] = {
    "$sum": False,
    "$avg": False,
    "$stdDevPop": False,
    "$stdDevSamp": False,
    "$min": True,
    "$max": True,
    "$first": True,
    "$last": True,
    "$push": True,
    "$addToSet": True,
    "$count": False,
}
"""What groups may gather, and whether that is as large as what they gather."""

WHY_NOT = {
    **dict.fromkeys(("$function", "$accumulator", "$where"), "it would run a program in the database"),
    **dict.fromkeys(("$range", "$reduce", "$map", "$zip"), "it could take any amount of memory"),
    **dict.fromkeys(
        ("$filter", "$indexOfCP", "$indexOfBytes", "$replaceAll"), "it could take any amount of time"
    ),
    "$rand": "the same question must have the same answer",
    "$toDecimal": "JSON has no such numbers, and there is $toDouble",
    "$convert": "there are $toBool, $toDate, $toDouble, $toInt, $toLong and $toString",
}


class Copy(msgspec.Struct, frozen=True):
    """A path whose value goes into what a stage makes, and how often that must be reckoned."""

    path: Path
    weight: int


class Expressions:
    """Reads expressions: `read` answers them as MongoDB is to have them, and notes what they copy.

    `collection`: paths begin with its fields; None: paths are free. The same object reads all of a pipeline,
    so that it counts all of it.
    """

    def __init__(self, encode_key: EncodeKey, collection: str | None) -> None:
        self._encode_key = encode_key
        self.collection = collection
        self._nodes = 0
        self._weight = 1
        self.copies: list[Copy] = []

    def read(self, value: Any, where: str, depth: int = 1) -> Any:
        """One expression. Raises `InvalidSearch`; `where` says in its sentence where that stands."""
        self.count(depth)
        if isinstance(value, str) and value.startswith("$"):
            return self._path(value, where)
        if isinstance(value, list | tuple):
            return [self.read(each, where, depth + 1) for each in value]
        if not isinstance(value, Mapping):
            return operand(value, where)
        if not any(name.startswith("$") for name in value):
            return {self.name(name, where): self.read(each, where, depth + 1) for name, each in value.items()}
        if len(value) != 1:
            raise InvalidSearch(f"{where}: an object has one operator and nothing beside it")
        ((name, given),) = value.items()
        return {name: self._operator(name, given, f"{name} in {where}", depth)}

    def uncopied(self, value: Any, where: str, depth: int = 1) -> Any:
        """An expression whose value decides or is computed with, but does not go on."""
        before, self._weight = self._weight, 0
        try:
            return self.read(value, where, depth)
        finally:
            self._weight = before

    def name(self, name: str, where: str) -> str:
        """The key of an object that is made. Raises `InvalidSearch`."""
        if not name or name.startswith("$") or "." in name or "\0" in name:
            raise InvalidSearch(f"{where}: {shown(name)} is no name for a field: no dots, no $ in front")
        return self._encode_key(name)

    def note(self, path: Path) -> None:
        """The value at `path` goes into what the stage makes."""
        if self._weight:
            self.copies.append(Copy(path, self._weight))

    def count(self, depth: int) -> None:
        """One more part of a pipeline. Raises `InvalidSearch`."""
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise InvalidSearch(f"The pipeline has more than {NODES_MAX} operators, paths and constants")
        if depth > DEPTH_MAX:
            raise InvalidSearch(f"An expression is nested more than {DEPTH_MAX} deep")

    def _path(self, text: str, where: str) -> str:
        if not text.startswith("$$"):
            path = parse_path(text[1:], self.collection)
            self._named(path, text, where)
            return "$" + joined(path, self._encode_key)
        variable, _, rest = text.partition(".")
        if variable == REMOVE and not rest and text == variable:
            return text
        if variable not in ROOTS:
            raise InvalidSearch(
                f"{where}: the variable {shown(variable)} is not offered"
                + suggestion(variable, (*ROOTS, REMOVE))
            )
        if text == variable:
            self.note(())
            return text
        path = parse_path(rest, self.collection)
        self._named(path, text, where)
        return f"{variable}.{joined(path, self._encode_key)}"

    def _named(self, path: Path, text: str, where: str) -> None:
        if any(part.startswith("$") for part in path):
            raise InvalidSearch(
                f"{where}: {shown(text)} has a part that begins with $; aggregations can't name it"
            )
        self.note(path)

    def _operator(self, name: str, given: Any, where: str, depth: int) -> Any:
        operator = OPERATORS.get(name)
        if operator is None:
            why = WHY_NOT.get(name)
            raise InvalidSearch(
                f"The operator {shown(name)} is not offered in expressions"
                + (f", as {why}" if why else "")
                + suggestion(name, tuple(OPERATORS))
            )
        if name == "$literal":
            return encode_operand(operand(given, where), self._encode_key)
        before = self._weight
        self._weight = before * (SPLIT_WEIGHT if name == "$split" else 1) if operator.copies else 0
        try:
            if name == "$switch":
                self._weight = before
                return self._switch(given, where, depth)
            if (
                operator.named
                and isinstance(given, Mapping)
                and not any(key.startswith("$") for key in given)
            ):
                return self._named_arguments(operator, given, where, depth)
            return self._arguments(name, operator, given, where, depth)
        finally:
            self._weight = before

    def _arguments(self, name: str, operator: Operator, given: Any, where: str, depth: int) -> Any:
        if not operator.most and operator.named:
            raise InvalidSearch(f"{where} takes an object with {', '.join(operator.named)}")
        listed = isinstance(given, list | tuple)
        count = len(given) if listed else 1
        if not operator.least <= count <= operator.most:
            wanted = str(operator.least) if operator.least == operator.most else f"at least {operator.least}"
            raise InvalidSearch(f"{where} takes {wanted} argument(s), not {count}")
        if name == "$split":
            _require_delimiter(given[1], where)
        if name == "$cond":
            return [
                self.uncopied(given[0], where, depth + 1),
                *(self.read(e, where, depth + 1) for e in given[1:]),
            ]
        if not listed:
            return self.read(given, where, depth + 1)
        return [self.read(each, where, depth + 1) for each in given]

    def _named_arguments(
        self, operator: Operator, given: Mapping[str, Any], where: str, depth: int
    ) -> dict[str, Any]:
        _require_names(given, operator.named, operator.needed, where)
        if "chars" in given:
            _require_delimiter(given["chars"], where)
        return {
            name: (self.uncopied if name == "if" else self.read)(each, where, depth + 1)
            for name, each in given.items()
        }

    def _switch(self, given: Any, where: str, depth: int) -> dict[str, Any]:
        asked = require_object(given, where)
        _require_names(asked, ("branches", "default"), ("branches",), where)
        branches = asked["branches"]
        if not isinstance(branches, list | tuple) or not branches:
            raise InvalidSearch(f"{where} takes an array of branches that is not empty")
        made: list[dict[str, Any]] = []
        for branch in branches:
            _require_names(require_object(branch, f"Each branch of {where}"), *(("case", "then"),) * 2, where)
            made.append(
                {
                    "case": self.uncopied(branch["case"], where, depth + 1),
                    "then": self.read(branch["then"], where, depth + 1),
                }
            )
        otherwise = {"default": self.read(asked["default"], where, depth + 1)} if "default" in asked else {}
        return {"branches": made} | otherwise

    # --- groups ---

    def gathered(self, value: Any, where: str) -> dict[str, Any]:
        """One accumulator of a group. Raises `InvalidSearch`."""
        asked = require_object(value, where)
        if len(asked) != 1:
            raise InvalidSearch(f'{where} takes an object with one accumulator, like {{"$sum": "$amount"}}')
        ((name, given),) = asked.items()
        if name not in ACCUMULATORS:
            why = WHY_NOT.get(name)
            raise InvalidSearch(
                f"The accumulator {shown(name)} is not offered"
                + (f", as {why}" if why else "")
                + suggestion(name, tuple(ACCUMULATORS))
            )
        if name == "$count":
            if given != {}:
                raise InvalidSearch(f"{where}: $count takes {{}}")
            return {name: {}}
        if isinstance(given, list | tuple):
            raise InvalidSearch(f"{where}: {name} of a group takes one expression, not an array")
        read = self.read if ACCUMULATORS[name] else self.uncopied
        return {name: read(given, where)}


def _require_names(
    given: Mapping[str, Any], known: tuple[str, ...], needed: tuple[str, ...], where: str
) -> None:
    for name in given:
        if name not in known:
            raise InvalidSearch(f"{where} has no argument {shown(name)}" + suggestion(name, known))
    for name in needed:
        if name not in given:
            raise InvalidSearch(f"{where} needs the argument {name}")


def _require_delimiter(value: Any, where: str) -> None:
    """Of a constant text the cost has a bound, as it is compared at each place of another."""
    if not isinstance(value, str) or value.startswith("$") or not 1 <= len(value) <= DELIMITER_CHARS_MAX:
        raise InvalidSearch(
            f"{where}: it takes a constant of 1 to {DELIMITER_CHARS_MAX} characters, with no $ in front"
        )
