"""Long readings of one worker take turns, have a bound, and leave the loop to others in between."""

from __future__ import annotations

import asyncio

import pytest

from bcdb.http.turns import Turns
from bcdb.ledger.slices import Slices, whole
from bcdb.model import limits
from bcdb.model.errors import Overloaded, StoreError


def reading(name: str, slices: int, seen: list[str], error: Exception | None = None) -> Slices[str]:
    try:
        for number in range(slices):
            seen.append(f"{name}{number}")
            yield
        if error is not None:
            raise error
    finally:
        seen.append(f"{name}.")
    return name


async def ticks(seen: list[str]) -> None:
    while True:
        seen.append("tick")
        await asyncio.sleep(0)


@pytest.fixture
def seen() -> list[str]:
    return []


async def test_a_short_reading_lets_nobody_in_between(seen: list[str]) -> None:
    other = asyncio.create_task(ticks(seen))
    assert await Turns().whole(reading("a", 0, seen)) == "a"
    assert seen == ["a."]
    other.cancel()


async def test_others_have_their_turn_after_every_slice(seen: list[str]) -> None:
    turns = Turns()
    other = asyncio.create_task(ticks(seen))
    found = await asyncio.gather(*[turns.whole(reading(name, 4, seen)) for name in "abc"])
    other.cancel()
    assert found == ["a", "b", "c"]
    assert seen[:4] == ["tick", "a0", "b0", "c0"], "the first slice of each is read when it is asked for"
    turns_of_the_loop = " ".join(name for name in seen[4:] if not name.endswith(".")).split("tick")
    assert max(len(read.split()) for read in turns_of_the_loop) == 1, "then one of all in a turn"
    assert [name for name in seen if name.endswith("1")] == ["a1", "b1", "c1"]


async def test_there_is_a_bound(seen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "READINGS_OPEN_MAX", 2)
    turns = Turns()
    running = [asyncio.create_task(turns.whole(reading(name, 5, seen))) for name in "ab"]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 long answers"):
        await turns.whole(reading("c", 1, seen))
    assert seen[-1] == "c."
    assert await turns.whole(reading("d", 0, seen)) == "d", "what is short is answered all the same"
    assert await asyncio.gather(*running) == ["a", "b"]
    assert await turns.whole(reading("e", 3, seen)) == "e"


async def test_errors_and_cancelled_readings_leave_nothing_behind(
    seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "READINGS_OPEN_MAX", 1)
    turns = Turns()
    for slices in (0, 3):
        with pytest.raises(StoreError, match="no"):
            await turns.whole(reading("a", slices, seen, StoreError("no")))
    cut = asyncio.create_task(turns.whole(reading("b", 1_000, seen)))
    await asyncio.sleep(0)
    cut.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cut
    assert seen[-1] == "b."
    assert await turns.whole(reading("c", 3, seen)) == "c"


def test_without_a_loop_there_are_no_pauses(seen: list[str]) -> None:
    assert whole(reading("a", 3, seen)) == "a"
