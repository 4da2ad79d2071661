"""An answer as bytes, and how it is sent; the one way out for hot and other routes.

Nothing here knows of transactions or of errors by name.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple, Protocol

import msgspec

from bcdb.ledger.times import rfc3339 as rfc3339

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

WRITE_WHOLE = "bcdb.write_whole"
"""Key of the scope under which a server may offer to write a whole answer: status, headers, body."""


class WriteWhole(Protocol):
    """What such a server offers."""

    async def __call__(self, status: int, headers: list[Header], body: bytes) -> None:
        """Write the answer."""
        ...

    def gone(self) -> bool:
        """Whether nobody is there any more to read it."""
        ...


JSON = b"application/json"
NDJSON = b"application/x-ndjson"
TEXT = b"text/plain; charset=utf-8"
HTML = b"text/html; charset=utf-8"

_VISIBLE = re.compile(rb"[\x20-\x7e]{0,1024}")


class Answer(NamedTuple):
    """What is sent back: status, the whole body, its media type, and headers beside type and length."""

    status: int
    body: bytes
    media_type: bytes = JSON
    headers: tuple[Header, ...] = ()


def to_json(value: Any) -> bytes:
    """Compact JSON in UTF-8, keys in the order given; lone surrogates, which have no UTF-8, become `?`."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_without_surrogates(value))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def json_array(items: Iterable[bytes]) -> bytes:
    """A JSON array of items that are JSON already."""
    return b"[" + b",".join(items) + b"]"


def height_header(height: int) -> Header:
    """The header that tells up to which block an answer is good."""
    return b"bcdb-height", b"%d" % height


def visible(value: bytes | None) -> bytes | None:
    """A header value of a request if it may be sent back in an answer: printable ASCII, not endless."""
    return value if value is not None and _VISIBLE.fullmatch(value) else None


def gone_of(scope: Scope) -> Callable[[], bool]:
    """What tells whether the client has gone away, as far as the server lets that be known."""
    write: WriteWhole | None = scope.get(WRITE_WHOLE)
    return write.gone if write is not None else _never


def _never() -> bool:
    return False


async def send_answer(scope: Scope, send: Send, answer: Answer, more: Iterable[Header]) -> None:
    """Send `answer` whole, with the headers `more` (CORS) after its own.

    A server that offers it in the scope writes all of it at once; others get the two messages of ASGI.
    """
    status, body, media_type, headers = answer
    lines = [
        (b"content-type", media_type),
        (b"content-length", b"%d" % len(body)),
        *headers,
        *more,
    ]
    write: WriteWhole | None = scope.pop(WRITE_WHOLE, None)
    if write is not None:
        return await write(status, lines, body)
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})
