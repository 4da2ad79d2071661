"""What a question's body may hold: a JSON object with members that are known, each read by its own rule.

The same tables describe the bodies in the OpenAPI document. JSON is read strictly: what two programs could
understand differently is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from bcdb.http.answer import to_json
from bcdb.http.errors import ArgumentError, RequestError
from bcdb.http.params import MISSING
from bcdb.model import limits, strict_json
from bcdb.model.errors import ValidationError

SHOWN_CHARS_MAX = 32
HEIGHT_MAX = 10**18 - 1
"""As many digits as a height may have in a query string."""

Body = TypeVar("Body")


@dataclass(frozen=True, slots=True)
class Member:
    """One member: `read` makes a value of its JSON or raises `ValueError` with the text for the client.

    A member that is null counts as left out.
    """

    read: Callable[[Any], Any]
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})
    required: bool = False


class Members(Generic[Body]):
    """The members of a body, in the order in which they are checked, and what they are read into.

    `shape` is called with the values of those that were given.
    """

    def __init__(self, shape: Callable[..., Body], **table: Member) -> None:
        self.table = table
        self._shape = shape

    def parse(self, raw: bytes) -> Body:
        """Read a body. Raises `RequestError` if it is no JSON object, `ArgumentError` for its members."""
        try:
            given = strict_json.load(raw)
        except ValidationError as error:
            raise RequestError(400, error.text) from None
        if not isinstance(given, dict):
            raise RequestError(400, f"The body must be a JSON object with {self._names()}")
        values: dict[str, Any] = {}
        for name, member in self.table.items():
            value = given.pop(name, None)
            if value is None:
                if member.required:
                    raise ArgumentError(name, MISSING)
                continue
            try:
                values[name] = member.read(value)
            except ValueError as error:
                raise ArgumentError(name, str(error)) from None
        if given:
            unknown = ", ".join(name[:SHOWN_CHARS_MAX] for name in list(given)[: len(self.table)])
            raise ArgumentError(None, f"Unknown members: {unknown}. There are {self._names()}")
        return self._shape(**values)

    def _names(self) -> str:
        *first, last = (f"`{name}`" for name in self.table)
        return f"{', '.join(first)} and {last}"


def read_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"It must be a JSON object, not {_shown(value)}")
    return value


def read_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"It must be a JSON array, not {_shown(value)}")
    return value


def read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"It must be a text, not {_shown(value)}")
    return value


def read_limit(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limits.PAGE_ITEMS_MAX:
        raise ValueError(f"A page has from 1 to {limits.PAGE_ITEMS_MAX} items, not {_shown(value)}")
    return value


def read_height(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= HEIGHT_MAX:
        raise ValueError(f"A height is a whole number from 0, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    text = to_json(value).decode()
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "..."
