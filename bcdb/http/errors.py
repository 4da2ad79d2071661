"""Every error as an answer, in the three shapes that clients of the reference know.

1. `{"message": text, "status": code}`: a rule, a limit, nothing found, no service.
2. `{"message": {"argument": text}}` or `{"message": text}`: the request itself can't be read.
3. HTML: there is no such address.

No text of an exception that is not ours is ever shown: that would tell a stranger about our insides.
"""

import json

from bcdb.http.answer import HTML, Answer, Header, to_json
from bcdb.model.errors import (
    BcdbError,
    InvalidCursor,
    InvalidJson,
    NotAllowed,
    Overloaded,
    StorageFailed,
    StoreError,
    Unavailable,
    ValidationError,
)

UNREADABLE = "The browser (or proxy) sent a request that this server could not understand."
METHOD_NOT_ALLOWED = "The method is not allowed for the requested URL."
INTERNAL = "Internal Server Error"
RETRY_AFTER_S = 1

_NO_SUCH_ADDRESS = b"""<!DOCTYPE html>
<title>404 Not Found</title>
<h1>Not Found</h1>
<p>There is nothing at this address. The API of this server is listed at <a href="/api/v1/">/api/v1/</a>.</p>
"""


class RequestError(BcdbError):
    """A request is refused with an HTTP status of its own and shape 1."""

    def __init__(self, status: int, text: str, *headers: Header) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


class ArgumentError(BcdbError):
    """An argument is missing, wrong or unknown: 400, shape 2. `argument` is None if all are meant."""

    def __init__(self, argument: str | None, text: str) -> None:
        super().__init__(text)
        self.argument = argument


def refusal(status: int, text: str, *headers: Header) -> Answer:
    """An answer of shape 1."""
    return Answer(status, to_json({"message": text, "status": status}), headers=headers)


def not_found() -> Answer:
    return refusal(404, "Not found")


def no_such_address() -> Answer:
    """The answer of shape 3."""
    return Answer(404, _NO_SUCH_ADDRESS, HTML)


def unreadable() -> Answer:
    return Answer(400, to_json({"message": UNREADABLE}))


def method_not_allowed(allowed: str) -> Answer:
    headers = ((b"allow", allowed.encode()),)
    return Answer(405, to_json({"message": METHOD_NOT_ALLOWED}), headers=headers)


def internal() -> Answer:
    return Answer(500, to_json({"message": INTERNAL}))


def answer_error(error: BcdbError) -> Answer:
    """The answer that tells of `error`, whatever part of bcdb raised it."""
    if isinstance(error, ValidationError):
        return refusal(400, error.message)
    if isinstance(error, RequestError):
        return refusal(error.status, error.text, *error.headers)
    if isinstance(error, ArgumentError):
        message = error.text if error.argument is None else {error.argument: error.text}
        return Answer(400, to_json({"message": message}))
    if isinstance(error, InvalidCursor):
        return Answer(400, to_json({"message": {"after": error.text}}))
    if isinstance(error, NotAllowed):
        return refusal(403, error.text)
    again = (b"retry-after", b"%d" % RETRY_AFTER_S)
    if isinstance(error, Overloaded):
        return refusal(429, error.text, again)
    if isinstance(error, Unavailable | StorageFailed | StoreError):
        return refusal(503, error.text, again)
    return internal()


def answer_refused_body(error: ValidationError, raw: bytes) -> Answer:
    """The answer for a posted transaction that is not valid.

    What no JSON parser can read gets the reference's text for that, in shape 2. What only bcdb refuses to
    read (doubled keys, NaN, deep nesting) gets the sentence that says so.
    """
    if isinstance(error, InvalidJson) and not _is_json(raw):
        return unreadable()
    return answer_error(error)


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True
