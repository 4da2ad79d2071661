"""Paging: a page of rows, and the opaque cursor that says where the next one starts.

A cursor is the place of the last row shown (not an offset), so rows that come or change state between two
pages are neither missed nor shown twice. Cursors come back from outside: anything not made here raises
InvalidCursor.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import Generic, TypeVar

from msgspec import Struct

from bcdb.model.errors import InvalidCursor

Item = TypeVar("Item")


class Page(Struct, Generic[Item], frozen=True):
    """Some rows in order; `next` is the cursor for `after`, or None when these were the last."""

    items: list[Item]
    next: str | None


def encode_cursor(place: bytes) -> str:
    return urlsafe_b64encode(place).rstrip(b"=").decode("ascii")


def decode_cursor(text: str, size_bytes: int) -> bytes:
    """The place in a cursor, exactly `size_bytes` long. Raises InvalidCursor."""
    try:
        place = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (UnicodeEncodeError, Base64Error, ValueError):
        place = b""
    if len(place) != size_bytes or encode_cursor(place) != text:
        raise InvalidCursor("The cursor in `after` was not made by this server for this list.")
    return place
