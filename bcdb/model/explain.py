"""Says in the reference's words why a JSON document does not fit a schema.

It knows the part of JSON Schema draft 4 that the transaction schemas use, and picks among several faults
the same one as the `best_match` of the Python package `jsonschema` 3.2, whose wording clients know. It must
never be on the way of a document that is right: it is slow, and only called to find the sentence.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

Schema = Mapping[str, Any]
"""A schema; in the place of one inside it may stand a function that chooses it for a value (`Choice`)."""

Choice = Callable[[Any], Schema]

SHOWN_CHARS_MAX = 500
"""How much of a value that does not fit is shown in a sentence."""

FAULTS_MAX = 1_000
"""After so many faults the search ends, so that a hostile megabyte costs milliseconds, not seconds."""

_NAMES_SHOWN_MAX = 20

_TYPES: dict[str, Callable[[Any], bool]] = {
    "array": lambda value: isinstance(value, list),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "null": lambda value: value is None,
    "object": lambda value: isinstance(value, dict),
    "string": lambda value: isinstance(value, str),
}


class _Fault(NamedTuple):
    depth: int
    weak: bool
    sentence: Callable[[], str]

    def rank(self) -> tuple[int, bool]:
        return (-self.depth, not self.weak)


def shown(value: object) -> str:
    """The Python form of `value`, cut to a length that fits a sentence."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}... ({len(text)} characters)"


def why_not(schema: Schema, document: object) -> str | None:
    """The sentence that says why `document` does not fit `schema`; None if it does."""
    best: _Fault | None = None
    for fault in _Search().faults(schema, document, 0):
        if best is None or fault.rank() > best.rank():
            best = fault
    if best is None:
        return None
    return best.sentence()


class _Search:
    """One walk over a document, in the reference's order: by keyword, then by place."""

    def __init__(self) -> None:
        self.found = 0

    def faults(self, schema: Schema | Choice, value: Any, depth: int) -> Iterator[_Fault]:
        if callable(schema):
            schema = schema(value)
        for keyword, rule in schema.items():
            test = _TESTS.get(keyword)
            if test is not None:
                if test[0](rule, value):
                    yield self.fault(depth, partial(test[1], rule, value))
            elif keyword == "anyOf":
                yield from self.any_of(rule, value, depth)
            elif keyword == "required":
                yield from self.required(rule, value, depth)
            elif keyword == "additionalProperties":
                yield from self.additional(schema["properties"], value, depth)
            else:
                for below, item in _members(keyword, rule, value):
                    if self.found >= FAULTS_MAX:
                        return
                    yield from self.faults(below, item, depth + 1)

    def fault(self, depth: int, sentence: Callable[[], str]) -> _Fault:
        self.found += 1
        return _Fault(depth, False, sentence)

    def any_of(self, schemas: Sequence[Schema], value: Any, depth: int) -> Iterator[_Fault]:
        cause: _Fault | None = None
        for schema in schemas:
            fits = True
            for fault in self.faults(schema, value, 0):
                fits = False
                if cause is None or fault.rank() < cause.rank():
                    cause = fault
            if fits:
                return
        if cause is not None:
            # Like the reference, speak of the cause and not of the alternatives: they are `weak`.
            yield _Fault(depth, True, cause.sentence)

    def required(self, names: Sequence[str], value: Any, depth: int) -> Iterator[_Fault]:
        for name in names:
            if isinstance(value, dict) and name not in value:
                yield self.fault(depth, partial("{!r} is a required property".format, name))

    def additional(self, known: Mapping[str, Schema], value: Any, depth: int) -> Iterator[_Fault]:
        surplus = [name for name in value if name not in known] if isinstance(value, dict) else []
        if surplus:
            yield self.fault(depth, partial(_additional_sentence, surplus))


def _additional_sentence(surplus: list[str]) -> str:
    names = ", ".join(shown(name) for name in surplus[:_NAMES_SHOWN_MAX])
    if len(surplus) > _NAMES_SHOWN_MAX:
        names += f" and {len(surplus) - _NAMES_SHOWN_MAX} more"
    return (
        f"Additional properties are not allowed ({names} {'was' if len(surplus) == 1 else 'were'} unexpected)"
    )


def _members(keyword: str, rule: Any, value: Any) -> Iterator[tuple[Schema, Any]]:
    """The values below `value` that a rule is about, with the schema of each."""
    if keyword == "items" and isinstance(value, list):
        for item in value:
            yield rule, item
    elif keyword == "properties" and isinstance(value, dict):
        for name, schema in rule.items():
            if name in value:
                yield schema, value[name]


def _not_of_type(rule: str | list[str], value: Any) -> bool:
    return not any(_TYPES[name](value) for name in ([rule] if isinstance(rule, str) else rule))


def _type_sentence(rule: str | list[str], value: Any) -> str:
    return f"{shown(value)} is not of type {', '.join(map(repr, [rule] if isinstance(rule, str) else rule))}"


_Test = tuple[Callable[[Any, Any], bool], Callable[[Any, Any], str]]

_TESTS: dict[str, _Test] = {
    "type": (_not_of_type, _type_sentence),
    "enum": (
        lambda rule, value: value not in rule,
        lambda rule, value: f"{shown(value)} is not one of {rule!r}",
    ),
    "pattern": (
        lambda rule, value: isinstance(value, str) and rule.fullmatch(value) is None,
        lambda rule, value: f"{shown(value)} does not match {rule.pattern!r}",
    ),
    "minimum": (
        lambda rule, value: _TYPES["integer"](value) and value < rule,
        lambda rule, value: f"{value} is less than the minimum of {rule}",
    ),
    "maximum": (
        lambda rule, value: _TYPES["integer"](value) and value > rule,
        lambda rule, value: f"{value} is greater than the maximum of {rule}",
    ),
    "minItems": (
        lambda rule, value: isinstance(value, list) and len(value) < rule,
        lambda rule, value: f"{shown(value)} is too short",
    ),
    "maxItems": (
        lambda rule, value: isinstance(value, list) and len(value) > rule,
        lambda rule, value: f"{shown(value)} is too long",
    ),
    "minProperties": (
        lambda rule, value: isinstance(value, dict) and len(value) < rule,
        lambda rule, value: f"{shown(value)} does not have enough properties",
    ),
}
"""Keywords about one value: whether it is at fault, and the sentence for it."""
