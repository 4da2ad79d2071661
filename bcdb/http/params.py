"""What stands behind the `?` of a request: which arguments a route knows, what they may be, the texts if not.

As in the reference every value of a repeated argument is checked and the first one counts, and the first
argument that is wrong is the one that is told. The same tables describe the arguments in the OpenAPI
document.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl, urlencode

from bcdb.http.errors import ArgumentError
from bcdb.model import limits

MISSING = "Missing required parameter in the JSON body or the post body or the query string"
BAD_KEY = "Invalid base58 ed25519 key"
BAD_BOOLEAN = 'Boolean value must be "true" or "false" (lowercase)'
BAD_HASH = "Invalid hash"
BAD_OPERATION = 'Operation must be "CREATE" or "TRANSFER"'
BAD_MODE = 'Mode must be "async", "sync" or "commit"'
BAD_FORMAT = 'Format must be "json", "dot" or "csv"'
MODES = ("async", "sync", "commit")
FORMATS = ("json", "dot", "csv")

_HASH = re.compile(r"[a-fA-F0-9]{64}")
_KEY = re.compile(r"[1-9A-HJ-NP-Za-km-z]{43,44}")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
_SIGNED_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*", re.ASCII)

Query = TypeVar("Query")


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: `read` makes a value of its text or raises `ValueError` with the text for the client."""

    read: Callable[[str], Any]
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    required: bool = False


class Arguments(Generic[Query]):
    """The arguments of a route, in the order in which they are checked, and what they are read into.

    `shape` is called with the values of those that were given. `strict`: unknown ones are an error.
    """

    def __init__(self, shape: Callable[..., Query], *, strict: bool = False, **table: Argument) -> None:
        self.table = table
        self._shape = shape
        self._strict = strict

    def parse(self, query: bytes) -> Query:
        """Read a query string. Raises `ArgumentError`."""
        given = fields(query)
        values: dict[str, Any] = {}
        for name, argument in self.table.items():
            texts = given.pop(name, None)
            if texts is None:
                if argument.required:
                    raise ArgumentError(name, MISSING)
                continue
            try:
                values[name], *_ = [argument.read(text) for text in texts]
            except ValueError as error:
                raise ArgumentError(name, str(error)) from None
        if given and self._strict:
            raise ArgumentError(None, "Unknown arguments: " + ", ".join(given))
        return self._shape(**values)


def fields(query: bytes) -> dict[str, list[str]]:
    """The names and values of a query string or a form, in order. What is no UTF-8 becomes U+FFFD."""
    result: dict[str, list[str]] = {}
    if not query:
        return result
    try:
        pairs = parse_qsl(
            query.decode("utf-8", "replace"),
            keep_blank_values=True,
            errors="replace",
            max_num_fields=limits.QUERY_FIELDS_MAX,
        )
    except ValueError:
        raise ArgumentError(None, f"A request has at most {limits.QUERY_FIELDS_MAX} arguments") from None
    for name, value in pairs:
        result.setdefault(name, []).append(value)
    return result


def link_next(path: str, arguments: Mapping[str, str | None]) -> tuple[bytes, bytes]:
    """The `Link` header (RFC 8288) to the next page: the same path with these arguments."""
    query = urlencode({name: value for name, value in arguments.items() if value is not None})
    return b"link", f'<{path}?{query}>; rel="next"'.encode()


# --- what an argument may be --------------------------------------------------------------------------------


def read_text(text: str) -> str:
    return text


def read_hash(text: str) -> bytes:
    if not _HASH.fullmatch(text):
        raise ValueError(BAD_HASH)
    return bytes.fromhex(text)


def read_operation(text: str) -> str:
    if text.upper() not in ("CREATE", "TRANSFER"):
        raise ValueError(BAD_OPERATION)
    return text.upper()


def read_boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(BAD_BOOLEAN)
    return text.lower() == "true"


def read_key(text: str) -> str:
    if not _KEY.fullmatch(text):
        raise ValueError(BAD_KEY)
    return text


def read_mode(text: str) -> str:
    if text not in MODES:
        raise ValueError(BAD_MODE)
    return text


def read_format(text: str) -> str:
    if text not in FORMATS:
        raise ValueError(BAD_FORMAT)
    return text


def read_limit(text: str) -> int:
    value = int(text) if _WHOLE_NUMBER.fullmatch(text) else 0
    if not 1 <= value <= limits.PAGE_ITEMS_MAX:
        raise ValueError(f"A page has from 1 to {limits.PAGE_ITEMS_MAX} items, not {text[:32]!r}")
    return value


def read_search_limit(text: str) -> int:
    """As the reference: 0 means no limit, the sign does not count; the largest page bounds both."""
    if not _SIGNED_NUMBER.fullmatch(text):
        raise ValueError(f"invalid literal for int() with base 10: {text[:64]!r}")
    return min(abs(int(text)) or limits.PAGE_ITEMS_MAX, limits.PAGE_ITEMS_MAX)


def read_height(text: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(text):
        raise ValueError(f"A height is a whole number from 0, not {text[:32]!r}")
    return int(text)


LIMIT = Argument(
    read_limit,
    'How many items a page has at most. A `Link` header with rel="next" tells where the next page is.',
    {
        "type": "integer",
        "minimum": 1,
        "maximum": limits.PAGE_ITEMS_MAX,
        "default": limits.PAGE_ITEMS_DEFAULT,
    },
)
AFTER = Argument(read_text, "Where to go on: the value from the `Link` header of the page before.")
MIN_HEIGHT = Argument(
    read_height,
    "Answer once this block is in what is asked, or with 503 if that takes too long.",
    {"type": "integer", "minimum": 0},
)
WRITE_MIN_HEIGHT = Argument(
    read_height,
    "Take it once this block is in the ledger here, so that what the block made can be spent; 503 if that "
    f"takes more than {limits.WRITE_WAIT_S_MAX:g} s, and then nothing is stored.",
    {"type": "integer", "minimum": 0},
)
AT_HEIGHT = Argument(
    read_height,
    "The state as it was after this block; that of now if left out.",
    {"type": "integer", "minimum": 0},
)
MODE = Argument(
    read_mode,
    "When to answer: `async` and `sync` once the transaction is durable, `commit` once it is committed.",
    {"type": "string", "enum": list(MODES), "default": "async"},
)
