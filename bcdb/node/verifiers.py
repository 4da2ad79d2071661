"""Signature checks that the node process itself should not do: they go to the API workers that are connected.

Used for transactions that reach this node in somebody's bundle and are not remembered. Without a worker they
are verified here, in slices, so that the loop stays alive. A worker that leaves takes no request with it.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence

import structlog

from bcdb.model.errors import ValidationError
from bcdb.model.transaction import Verified
from bcdb.node import protocol
from bcdb.node.link import verify_slice, verify_slices

REQUEST_ITEMS = 128
"""Transactions in one request: some 8 ms of a worker's time."""
REQUEST_BYTES = 256 * 1024
"""A bundle is the work of several; a JSON document can be made to take half a ms for a kilobyte."""
ANSWER_S_MAX = 60.0
"""A worker that takes longer over one request hangs."""

log = structlog.get_logger(__name__)

Result = Verified | ValidationError
Send = Callable[[protocol.VerifyRequest], None]


class Verifiers:
    """The pool: `join` and `leave` as workers come and go, `verify` from the application."""

    def __init__(self) -> None:
        self._members: list[Send] = []
        self._turn = 0
        self._numbers = itertools.count(1)
        self._open: dict[int, tuple[Send, asyncio.Future[protocol.VerifyResult | None]]] = {}

    def join(self, send: Send) -> None:
        """A worker offers its time; `send` brings it a request."""
        self._members.append(send)

    def leave(self, send: Send) -> None:
        """The worker is gone; what it had not answered is done by others."""
        if send in self._members:
            self._members.remove(send)
        for number, (member, future) in tuple(self._open.items()):
            if member == send:
                del self._open[number]
                if not future.done():
                    future.set_result(None)

    def answer(self, send: Send, result: protocol.VerifyResult) -> None:
        """A worker's answer; one that was not asked for is dropped."""
        member, future = self._open.get(result.number, (None, None))
        if member == send and future is not None:
            del self._open[result.number]
            if not future.done():
                future.set_result(result)

    async def verify(self, bodies: Sequence[bytes]) -> list[Result]:
        """Check each body as one that stands in a bundle: one result for each, in order."""
        parts = await asyncio.gather(*(self._verify_part(part) for part in _parts(bodies)))
        return [result for part in parts for result in part]

    async def _verify_part(self, bodies: list[bytes]) -> list[Result]:
        while self._members:
            self._turn += 1
            send = self._members[self._turn % len(self._members)]
            number = next(self._numbers)
            future: asyncio.Future[protocol.VerifyResult | None] = asyncio.get_running_loop().create_future()
            self._open[number] = (send, future)
            try:
                send(protocol.VerifyRequest(number, bodies))
                async with asyncio.timeout(ANSWER_S_MAX):
                    result = await future
            except TimeoutError:
                log.error("a worker does not verify what it was given", transactions=len(bodies))
                self.leave(send)
                continue
            finally:
                self._open.pop(number, None)
            if result is not None and _fits(result, bodies):
                return _results(result.verified, result.failures)
            if result is not None:  # a worker that answers something else is no verifier
                self.leave(send)
        return await _verify_here(bodies)


def _parts(bodies: Sequence[bytes]) -> list[list[bytes]]:
    parts: list[list[bytes]] = []
    items = size = 0
    for body in bodies:
        if not parts or items == REQUEST_ITEMS or size + len(body) > REQUEST_BYTES:
            parts.append([])
            items = size = 0
        parts[-1].append(body)
        items += 1
        size += len(body)
    return parts


async def _verify_here(bodies: list[bytes]) -> list[Result]:
    verified: list[Verified | None] = []
    failures: list[protocol.Refusal] = []
    for some in verify_slices(bodies):
        verify_slice(some, verified, failures)
        await asyncio.sleep(0)
    return _results(verified, failures)


def _fits(result: protocol.VerifyResult, bodies: Sequence[bytes]) -> bool:
    """Whether there is an answer for each body: it is verified, or the rule that it breaks is told."""
    failed = {failure.offset for failure in result.failures}
    return len(result.verified) == len(bodies) and all(
        offset in failed if entry is None else entry.body == body
        for offset, (entry, body) in enumerate(zip(result.verified, bodies, strict=True))
    )


def _results(verified: Sequence[Verified | None], failures: Sequence[protocol.Refusal]) -> list[Result]:
    errors = {failure.offset: ValidationError.restore(failure.name, failure.text) for failure in failures}
    return [errors[offset] if entry is None else entry for offset, entry in enumerate(verified)]
