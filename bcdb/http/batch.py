"""Many transactions in one request: `POST /api/v1/transactions/batch`, one JSON text a line, in and out.

The lines are verified and given to the node while the body still arrives, in slices between which the worker
does its other work. No result is told before the node has said that the item is durable.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Literal

from msgspec import UNSET, Struct, UnsetType

from bcdb.http.answer import NDJSON, Answer, Receive, Scope, gone_of, to_json
from bcdb.http.body import check_head, pieces
from bcdb.http.errors import RequestError
from bcdb.http.metrics import BATCH_ITEMS
from bcdb.http.params import WRITE_MIN_HEIGHT, Arguments
from bcdb.http.reach import reach_to_write
from bcdb.http.status import Reason, Status, status_of
from bcdb.model import limits
from bcdb.model.errors import (
    BcdbError,
    DuplicateTransaction,
    LimitExceeded,
    Overloaded,
    ValidationError,
)

if TYPE_CHECKING:
    from bcdb.http.services import Services

SLICE_S = 0.002
"""How long items are verified before the worker looks at its other work."""


class Asked(Struct, frozen=True):
    """Which block must be there before the first line is taken."""

    min_height: int | None = None


ARGUMENTS = Arguments(Asked, min_height=WRITE_MIN_HEIGHT)


class Refused(Struct, frozen=True, kw_only=True):
    """An item that was not accepted, and why. `id` is left out where the item is not read so far as to have
    one.
    """

    id: str | UnsetType = UNSET
    status: Literal["refused"] = "refused"
    error: Reason


class Waiting(Struct, frozen=True):
    """An item that the node has, until it says whether it is durable."""

    id: bytes
    durable: asyncio.Future[None]


Item = Waiting | Refused


async def submit_batch(
    services: "Services", scope: Scope, head: dict[bytes, bytes], receive: Receive
) -> Answer:
    """Take in the lines of a body and answer with one result line for each, in order.

    Empty lines do not count. Raises `ArgumentError`, and `RequestError` if the body is too long or has no
    item at all; what was accepted before that stays accepted, and sending it again is safe. Raises
    `Disconnected`, and as `reach_to_write` does.
    """
    asked = ARGUMENTS.parse(scope["query_string"])
    check_head(head, limits.BATCH_BYTES_MAX)
    await reach_to_write(services, asked.min_height, gone_of(scope))
    if services.batches >= limits.BATCHES_PER_WORKER_MAX:
        raise Overloaded(f"{limits.BATCHES_PER_WORKER_MAX} batches are taken in already; try again")
    services.batches += 1
    try:
        items = await _take_in(services, head, receive)
        if not items:
            raise RequestError(400, "A batch has one transaction on each line, and this one has none")
        results = [await _result(services, item) for item in items]
    finally:
        services.batches -= 1
    BATCH_ITEMS.inc(len(items))
    return Answer(200, b"".join(results), NDJSON)


async def _take_in(services: "Services", head: dict[bytes, bytes], receive: Receive) -> list[Item]:
    items: list[Item] = []
    oldest = 0
    slice_end = time.monotonic() + SLICE_S
    async for line in _lines(head, receive):
        if len(items) == limits.BATCH_ITEMS_MAX:
            raise RequestError(
                413,
                f"A batch has at most {limits.BATCH_ITEMS_MAX} transactions; the first {len(items)} of this "
                "one may be accepted, send them again to learn",
            )
        items.append(await _submit(services, line))
        if len(items) - oldest > limits.BATCH_IN_FLIGHT_MAX:
            waiting = items[oldest]
            oldest += 1
            if isinstance(waiting, Waiting):
                await asyncio.wait([waiting.durable])
        if time.monotonic() >= slice_end:
            await asyncio.sleep(0)
            slice_end = time.monotonic() + SLICE_S
    return items


async def _lines(head: dict[bytes, bytes], receive: Receive) -> AsyncIterator[bytes | None]:
    """The lines that are not empty; None for one that is longer than any transaction, which is not kept."""
    rest = bytearray()
    skipping = False
    async for piece in pieces(head, receive, limits.BATCH_BYTES_MAX):
        rest += piece
        if b"\n" in piece:
            *lines, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            for line in lines:
                if skipping or len(line) > limits.TRANSACTION_BYTES_MAX:
                    skipping = False
                    yield None
                elif line and not line.isspace():
                    yield line
        if len(rest) > limits.TRANSACTION_BYTES_MAX:
            skipping = True
            rest.clear()
    if skipping:
        yield None
    elif rest and not rest.isspace():
        yield bytes(rest)


async def _submit(services: "Services", line: bytes | None) -> Item:
    if line is None:
        return _refused(LimitExceeded(f"A transaction has at most {limits.TRANSACTION_BYTES_MAX} bytes"))
    try:
        verified = await services.verify(line)
    except ValidationError as error:
        return _refused(error)
    try:
        await services.policy.check(verified)
    except BcdbError as error:
        return _refused(error, verified.id)
    return Waiting(verified.id, services.link.submit_nowait(verified))


async def _result(services: "Services", item: Item) -> bytes:
    """The result line of an item, once it is known."""
    if isinstance(item, Refused):
        return to_json(item) + b"\n"
    result: Status | Refused
    try:
        await item.durable
        result = Status(item.id.hex(), "pending")
    except DuplicateTransaction as error:
        try:
            result = await status_of(services, item.id) or _refused(error, item.id)
        except BcdbError as failure:
            result = _refused(failure, item.id)
    except BcdbError as error:
        result = _refused(error, item.id)
    return to_json(result) + b"\n"


def _refused(error: BcdbError, transaction_id: bytes | None = None) -> Refused:
    identity = UNSET if transaction_id is None else transaction_id.hex()
    return Refused(id=identity, error=Reason(error.name, error.text))
