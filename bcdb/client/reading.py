"""How the body of an answer becomes a value: JSON of a known shape, amounts, cursors of pages.

A node may be anything that listens at an address, so every answer is checked before it is believed.
"""

from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

import msgspec

from bcdb.client.errors import UnexpectedAnswer, error_of
from bcdb.client.steps import Reply, Response

T = TypeVar("T")

AMOUNT_DIGITS_MAX = 100
"""Amounts of outputs have 19 digits at most; sums of them may have more."""


def read(reply: Reply, kind: type[T]) -> T:
    expect_success(reply.response)
    return decode(reply.response.content, kind)


def expect_success(response: Response) -> None:
    if not 200 <= response.status < 300:
        raise error_of(response.status, response.content)


def decode(content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnexpectedAnswer(f"The answer is not what a bcdb node says: {error}.", 200) from None


def amount(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= AMOUNT_DIGITS_MAX):
        raise UnexpectedAnswer(f"The answer has the amount {text[:64]!r}, which is no whole number.", 200)
    return int(text)


def cursor(link: str) -> str | None:
    """The `after` of the `rel="next"` address in a Link header (RFC 8288)."""
    for part in link.split(","):
        address, _, relation = part.partition(";")
        if 'rel="next"' in relation or "rel=next" in relation:
            return parse_qs(urlsplit(address.strip().strip("<>")).query).get("after", [None])[0]
    return None
