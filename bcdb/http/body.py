"""Reading the body of a request without ever holding more of it than is allowed.

A body that is announced too long is refused before a byte of it is read.
"""

from collections.abc import AsyncIterator
from time import monotonic

from bcdb.http.answer import Receive
from bcdb.http.errors import RequestError
from bcdb.model import limits


class Disconnected(Exception):
    """The client went away before its request was complete; nobody reads an answer."""


def check_head(head: dict[bytes, bytes], bytes_max: int) -> None:
    """Raise `RequestError` 413 or 415 if the headers announce a body that will not be read."""
    length = head.get(b"content-length")
    if length is not None:
        # The server has checked that it is a number where it matters; other text has no meaning here.
        if not length.isdigit() or len(length) > 18:
            raise RequestError(400, "Content-Length must be a decimal number of bytes")
        if int(length) > bytes_max:
            raise too_long(bytes_max, f"this one has {int(length)}")
    encoding = head.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        raise RequestError(415, "A body must be sent as it is, without a Content-Encoding")


async def read_body(head: dict[bytes, bytes], receive: Receive, bytes_max: int) -> bytes:
    """The whole body. Raises `RequestError` 413 or 415, `Disconnected`."""
    check_head(head, bytes_max)
    message = await receive()
    if message["type"] != "http.request":
        raise Disconnected
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > bytes_max:
            raise too_long(bytes_max, f"this one has {len(body)}")
        return body
    gathered = bytearray(body)
    async for piece in _pieces(receive):
        gathered += piece
        if len(gathered) > bytes_max:
            raise too_long(bytes_max, "this one has more")
    return bytes(gathered)


async def pieces(head: dict[bytes, bytes], receive: Receive, bytes_max: int) -> AsyncIterator[bytes]:
    """The body piece by piece as it arrives. Raises `RequestError` 413 or 415, `Disconnected`."""
    check_head(head, bytes_max)
    seen = 0
    async for piece in _pieces(receive):
        seen += len(piece)
        if seen > bytes_max:
            raise too_long(bytes_max, "this one has more")
        yield piece


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    started, seen = monotonic(), 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected
        piece: bytes = message.get("body", b"")
        yield piece
        if not message.get("more_body", False):
            return
        seen += len(piece)
        # A body that only drips would hold its place, and what is gathered of it, for as long as it likes.
        in_time_s = limits.REQUEST_BODY_PAUSE_S_MAX + seen / limits.REQUEST_BODY_BYTES_PER_S_MIN
        if monotonic() - started > in_time_s:
            least = limits.REQUEST_BODY_BYTES_PER_S_MIN
            raise RequestError(408, f"A body must bring at least {least} bytes a second; this one is slower")


def too_long(bytes_max: int, seen: str) -> RequestError:
    return RequestError(413, f"A body has at most {bytes_max} bytes here, {seen}")
