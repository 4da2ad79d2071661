"""Cursors: the opaque text that says where a question goes on, the same whichever store made it.

It carries the height of the question's first page and a digest of the question, so that one can't go on with
another's. It is no secret and no proof: what is in it may be anybody's, and every reader of it checks all.
"""

import hashlib
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec

from query.documents import Place
from query.errors import InvalidCursor
from query.store import SKIP_MAX, Find

_FORM = struct.Struct(">B8sQBQII")
_VERSION = 1
_DIGEST_BYTES = 8
_HEIGHT_MAX = 2**63 - 1
_PLACE, _OFFSET = 0, 1
_encode = msgspec.json.Encoder(order="deterministic").encode


class Cursor(msgspec.Struct, frozen=True, gc=False):
    """Where a question goes on: behind a place, in the order of commitment, or at an offset in another order.

    `height`: that of the first page, above which no page shows a document. One of `place` and `offset` is
    None.
    """

    height: int
    place: Place | None = None
    offset: int | None = None


def encode(question: Find, cursor: Cursor) -> str:
    """The text for `Page.next`, of URL-safe characters."""
    if cursor.place is not None:
        place = cursor.place
        where = (_PLACE, place.height, place.position, place.index)
    else:
        where = (_OFFSET, cursor.offset or 0, 0, 0)
    return _text(_FORM.pack(_VERSION, _digest(question), cursor.height, *where))


def decode(question: Find) -> Cursor | None:
    """Where `question.after` goes on, None if it is None. Raises `InvalidCursor`."""
    if question.after is None:
        return None
    raw = _bytes(question.after)
    if len(raw) == _FORM.size and _text(raw) == question.after:
        version, digest, height, form, first, second, third = _FORM.unpack(raw)
        if version == _VERSION and digest == _digest(question) and height <= _HEIGHT_MAX:
            if form == _PLACE and first <= height:
                return Cursor(height, place=Place(first, second, third))
            if form == _OFFSET and first <= SKIP_MAX and not second and not third:
                return Cursor(height, offset=first)
    raise InvalidCursor("The cursor in `after` was not made by this server for this question.")


def _digest(question: Find) -> bytes:
    """What tells questions apart; their limit and the height they wait for may change from page to page."""
    asked = (question.collection, question.filter, question.sort, question.fields, question.exclude)
    return hashlib.sha256(_encode(asked)).digest()[:_DIGEST_BYTES]


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _bytes(text: str) -> bytes:
    try:
        return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except ValueError:
        return b""
