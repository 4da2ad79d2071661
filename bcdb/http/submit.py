"""The hot way in: `POST /api/v1/transactions`.

A 202 leaves here only after the node has said that the transaction is durable. Nothing is ever sent to the
node that has not passed the whole of stateless validation in this process.
"""

import asyncio
from typing import TYPE_CHECKING

from msgspec import Struct

from bcdb.http.answer import Answer, Receive, Scope, gone_of, height_header
from bcdb.http.body import check_head, read_body
from bcdb.http.errors import ArgumentError, RequestError, answer_error, answer_refused_body, refusal
from bcdb.http.params import MODE, WRITE_MIN_HEIGHT, Arguments, fields, read_mode
from bcdb.http.reach import reach_to_write
from bcdb.model import limits
from bcdb.model.errors import ValidationError
from bcdb.model.transaction import Verified

if TYPE_CHECKING:
    from bcdb.http.services import Services

FORM = b"application/x-www-form-urlencoded"


class Asked(Struct, frozen=True):
    """When to answer, and which block must be there first."""

    mode: str = "async"
    min_height: int | None = None


ARGUMENTS = Arguments(Asked, mode=MODE, min_height=WRITE_MIN_HEIGHT)
_COMMON_MODES = {b"": "async", b"mode=async": "async", b"mode=sync": "sync", b"mode=commit": "commit"}


async def submit(services: "Services", scope: Scope, head: dict[bytes, bytes], receive: Receive) -> Answer:
    """Answer a posted transaction.

    `head` has the request's headers by lower-case name. Raises `BcdbError` for `answer_error`, and
    `Disconnected`.
    """
    query: bytes = scope["query_string"]
    mode = _COMMON_MODES.get(query) or await _arguments(services, query, scope, head)
    raw = await read_body(head, receive, limits.TRANSACTION_BYTES_MAX)
    try:
        verified = await services.verify(raw)
    except ValidationError as error:
        if head.get(b"content-type", b"").startswith(FORM):
            _check_form(raw)
        return answer_refused_body(error, raw)
    if not services.policy.is_open:
        await services.policy.check(verified)
    if mode == "commit":
        return await _until_committed(services, verified)
    await services.link.submit_nowait(verified)
    return Answer(202, verified.body)


async def _arguments(services: "Services", query: bytes, scope: Scope, head: dict[bytes, bytes]) -> str:
    """The mode, once the block that is asked for is there. What may be written is decided by its state."""
    asked = ARGUMENTS.parse(query)
    check_head(head, limits.TRANSACTION_BYTES_MAX)
    await reach_to_write(services, asked.min_height, gone_of(scope))
    return asked.mode


async def _until_committed(services: "Services", verified: Verified) -> Answer:
    try:
        settled = await services.link.submit_and_wait(verified, limits.COMMIT_WAIT_S_MAX)
    except asyncio.CancelledError:
        raise RequestError(503, "The server is stopping; ask for the status of the transaction") from None
    if settled.status == "committed":
        return Answer(202, verified.body, headers=(height_header(settled.height),))
    if settled.status == "rejected":
        return answer_error(ValidationError.restore(settled.name, settled.text))
    identity = verified.id.hex()
    return refusal(
        504,
        f"The transaction is accepted and durable, but not yet committed after "
        f"{limits.COMMIT_WAIT_S_MAX:g} s: ask /api/v1/transactions/{identity}/status",
    )


def _check_form(raw: bytes) -> None:
    """In a body that is a form a wrong `mode` is told before the missing JSON, as in the reference."""
    for text in fields(raw[: limits.REQUEST_HEAD_BYTES_MAX]).get("mode", ()):
        try:
            read_mode(text)
        except ValueError as error:
            raise ArgumentError("mode", str(error)) from None
