"""The pool of verifiers: whoever is there does the work, and nobody's leaving or mistake loses any of it."""

import asyncio
from collections.abc import Sequence

import pytest

from bcdb.model.errors import InvalidJson, ValidationError
from bcdb.model.transaction import Verified
from bcdb.node import protocol, verifiers
from bcdb.node.link import verify_slice
from bcdb.node.verifiers import Result, Verifiers
from tests.support.transactions import create

SIGNED = [create(asset={"n": number}) for number in range(10)]
BODIES = [signed.raw for signed in SIGNED]
VERIFIED = [signed.verified for signed in SIGNED]


class Worker:
    """A member of the pool that answers when it is told to."""

    def __init__(self, pool: Verifiers) -> None:
        self.pool = pool
        self.requests: list[protocol.VerifyRequest] = []
        pool.join(self.send)

    def send(self, request: protocol.VerifyRequest) -> None:
        self.requests.append(request)

    def answer(self) -> None:
        for request in self.requests:
            verified: list[Verified | None] = []
            failures: list[protocol.Refusal] = []
            verify_slice(request.bodies, verified, failures)
            self.pool.answer(self.send, protocol.VerifyResult(request.number, verified, failures))
        self.requests.clear()


async def begun(pool: Verifiers, bodies: Sequence[bytes]) -> "asyncio.Future[list[Result]]":
    task = asyncio.ensure_future(pool.verify(bodies))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_without_workers_it_is_done_here() -> None:
    assert await Verifiers().verify(BODIES) == VERIFIED
    assert await Verifiers().verify([]) == []


async def test_the_work_is_shared_and_comes_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifiers, "REQUEST_ITEMS", 3)
    pool = Verifiers()
    one, two = Worker(pool), Worker(pool)
    task = await begun(pool, BODIES)
    assert [len(worker.requests) for worker in (one, two)] == [2, 2]
    two.answer()
    one.answer()
    assert await task == VERIFIED


async def test_requests_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifiers, "REQUEST_BYTES", len(BODIES[0]) + 1)
    pool = Verifiers()
    worker = Worker(pool)
    task = await begun(pool, BODIES)
    assert [len(request.bodies) for request in worker.requests] == [1] * len(BODIES)
    worker.answer()
    assert await task == VERIFIED


async def test_what_is_invalid_comes_back_with_its_reason() -> None:
    pool = Verifiers()
    worker = Worker(pool)
    task = await begun(pool, [BODIES[0], b"{", BODIES[1]])
    worker.answer()
    first, broken, last = await task
    assert (first, last) == (VERIFIED[0], VERIFIED[1])
    assert isinstance(broken, InvalidJson)
    here = await Verifiers().verify([b"{"])
    assert isinstance(here[0], ValidationError)
    assert here[0].text == broken.text, "the same on every path"


async def test_a_worker_that_leaves_takes_no_work_with_it() -> None:
    pool = Verifiers()
    one, two = Worker(pool), Worker(pool)
    task = await begun(pool, BODIES)
    asked = one if one.requests else two
    pool.leave(asked.send)
    await asyncio.sleep(0)
    other = two if asked is one else one
    assert other.requests
    pool.leave(other.send)
    assert await task == VERIFIED


@pytest.mark.parametrize("wrong", [[], VERIFIED[:-1], [*VERIFIED[:-1], VERIFIED[0]]])
async def test_a_worker_that_answers_something_else_is_no_verifier(wrong: list[Verified | None]) -> None:
    pool = Verifiers()
    worker = Worker(pool)
    task = await begun(pool, BODIES)
    pool.answer(worker.send, protocol.VerifyResult(worker.requests[0].number, wrong, []))
    assert await task == VERIFIED
    assert len(worker.requests) == 1


async def test_answers_that_nobody_asked_for_are_dropped() -> None:
    pool = Verifiers()
    one, two = Worker(pool), Worker(pool)
    task = await begun(pool, BODIES)
    asked, other = (one, two) if one.requests else (two, one)
    nothing: list[Verified | None] = [None] * len(BODIES)
    pool.answer(other.send, protocol.VerifyResult(asked.requests[0].number, nothing, []))
    pool.answer(other.send, protocol.VerifyResult(99, nothing, []))
    asked.answer()
    assert await task == VERIFIED
