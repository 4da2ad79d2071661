"""Reading a body: one that only drips is given up, one that brings enough may take its time."""

import pytest

from bcdb.http import body
from bcdb.http.answer import Message
from bcdb.http.errors import RequestError
from bcdb.model import limits


class Clock:
    """Ten seconds pass with every piece of `piece_bytes`, of which there are a hundred."""

    def __init__(self, piece_bytes: int) -> None:
        self.seconds, self.sent = 0.0, 0
        self._piece = b"x" * piece_bytes

    def now(self) -> float:
        return self.seconds

    async def receive(self) -> Message:
        self.seconds += 10
        self.sent += 1
        return {"type": "http.request", "body": self._piece, "more_body": self.sent < 100}


async def test_a_body_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(1)
    monkeypatch.setattr(body, "monotonic", clock.now)
    with pytest.raises(RequestError) as caught:
        async for _ in body.pieces({}, clock.receive, limits.BATCH_BYTES_MAX):
            pass
    assert caught.value.status == 408
    assert str(limits.REQUEST_BODY_BYTES_PER_S_MIN) in caught.value.text
    assert clock.seconds <= limits.REQUEST_BODY_PAUSE_S_MAX + 20


async def test_a_body_that_brings_enough_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(10 * limits.REQUEST_BODY_BYTES_PER_S_MIN)
    monkeypatch.setattr(body, "monotonic", clock.now)
    seen = [len(piece) async for piece in body.pieces({}, clock.receive, limits.BATCH_BYTES_MAX)]
    assert len(seen) == 100
