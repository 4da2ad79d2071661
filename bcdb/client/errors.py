"""What can go wrong between a client and a node, beyond the validation errors of `bcdb.model.errors`.

A refusal that names its rule is raised as that rule's error (`DoubleSpend`, `InvalidSignature`, ...); the
errors here are for everything else. Nothing of the HTTP library gets out of `bcdb.client`.
"""

import re

import msgspec

from bcdb.model.errors import (
    BcdbError,
    NotAllowed,
    Overloaded,
    SchemaValidationError,
    Unavailable,
    ValidationError,
)

_REFUSAL = re.compile(r"Invalid transaction \((\w+)\): (.*)", re.DOTALL)
_SCHEMA = "Invalid transaction schema: "
_TEXT_CHARS_MAX = 500
_OF_THE_NODE = {kind.__name__: kind for kind in (NotAllowed, Overloaded, Unavailable)}
"""What a node says by name that is no rule of the ledger."""


class ClientError(BcdbError):
    """Root of the errors of the client that are not a rule of the ledger."""


class Unreachable(ClientError):
    """No node answered, whatever was tried. What was sent may have arrived."""


class BadRequest(ClientError):
    """The node can't make sense of the request (HTTP 400 and others below 500 without a name of their
    own).
    """

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class NotFound(ClientError):
    """What was asked for is not there (HTTP 404)."""


class NotSettled(ClientError):
    """The transaction was neither committed nor rejected in the time given; a node that accepted it, and may
    be away now, goes on with it.
    """


class UnexpectedAnswer(ClientError):
    """The answer is not what a bcdb node says (a proxy, another server, HTTP 500)."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def refusal(name: str, text: str) -> BcdbError:
    """The error of this name, as a status or a line of a batch tells it; a name that is not known stays."""
    if name in ValidationError.by_name:
        return ValidationError.restore(name, text)
    if name in _OF_THE_NODE:
        return _OF_THE_NODE[name](text)
    return BadRequest(f"{name}: {text}")


def error_of(status: int, body: bytes) -> BcdbError:
    """The error that an HTTP answer other than 2xx means."""
    text = message_of(body)
    if status == 429:
        return Overloaded(text)
    if status == 503:
        return Unavailable(text)
    if status == 403:
        return NotAllowed(text)
    if status == 404:
        return NotFound(text)
    if 400 <= status < 500:
        if found := _REFUSAL.fullmatch(text):
            return refusal(found[1], found[2])
        if text.startswith(_SCHEMA):
            return SchemaValidationError(text.removeprefix(_SCHEMA))
        return BadRequest(text, status)
    return UnexpectedAnswer(f"The node answered {status}: {text}", status)


def message_of(body: bytes) -> str:
    """The sentence in an error's body: one of the three shapes of the reference, or the text as it is."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        value = None
    message = value.get("message") if isinstance(value, dict) else None
    if isinstance(message, dict):
        message = "; ".join(f"{argument}: {text}" for argument, text in message.items())
    if not isinstance(message, str):
        message = body[: 4 * _TEXT_CHARS_MAX].decode("utf-8", "replace").strip() or "no text"
    return message if len(message) <= _TEXT_CHARS_MAX else message[:_TEXT_CHARS_MAX] + "..."


__all__ = [
    "BadRequest",
    "ClientError",
    "NotAllowed",
    "NotFound",
    "NotSettled",
    "Overloaded",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
    "error_of",
    "message_of",
    "refusal",
]
