"""How a worker asks the query store: how long it waits, how many at once, what a store in trouble does."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest

from bcdb.http.questions import Questions
from bcdb.model import limits
from query.store import (
    InvalidCursor,
    InvalidSearch,
    Page,
    ProjectionGap,
    QueryError,
    SearchTimeout,
    StoreDamaged,
    StoreUnavailable,
)
from tests.http.faulty import Faulty, put_in
from tests.http.world import QUERY, TRANSACTIONS, Reply, World
from tests.support.transactions import Signed, alice, create

OF_THE_STORE: tuple[tuple[str, str, bytes], ...] = (
    ("GET", "/api/v1/assets?search=a", b""),
    ("GET", "/api/v1/metadata?search=a", b""),
    ("GET", QUERY, b""),
    ("POST", f"{QUERY}/assets", b"{}"),
    ("POST", f"{QUERY}/assets/aggregate", b'{"pipeline":[]}'),
)
FAST_S = 1.0
"""Far above what a route needs that has no business with the store, far below any wait for it."""

NUMBERS = itertools.count()


def new() -> Signed:
    """An asset like no other."""
    return create(asset={"number": next(NUMBERS)})


async def all_of_the_store(world: World) -> list[Reply]:
    return await asyncio.gather(*(world.request(*asked) for asked in OF_THE_STORE))


async def others(world: World, transaction_id: str) -> None:
    """Every route beside the store answers as ever."""
    for path in (
        f"{TRANSACTIONS}/{transaction_id}",
        f"{TRANSACTIONS}/{transaction_id}/status",
        f"{TRANSACTIONS}?asset_id={transaction_id}",
        f"/api/v1/outputs?public_key={alice.public_key}",
        "/api/v1/blocks/latest",
        "/health/ready",
        "/metrics",
    ):
        started = time.monotonic()
        reply = await world.get(path)
        assert reply.status == 200, path
        assert time.monotonic() - started < FAST_S, path
    await world.commit(new())


async def figure(world: World, name: str) -> float | None:
    text = (await world.get("/metrics")).body.decode()
    found = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name + " ")]
    return float(found[0]) if found else None


class TestTrouble:
    async def test_a_store_that_hangs_is_503_and_slows_nobody_else(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "QUESTION_S_MAX", 0.3)
        monkeypatch.setattr(limits, "SEARCH_WAIT_S_MAX", 0.1)
        monkeypatch.setattr("bcdb.http.questions.WAIT_MARGIN_S", 0.2)
        made = new()
        await world.commit(made)
        store = await put_in(world, Faulty(hangs=True))
        asking = asyncio.create_task(all_of_the_store(world))
        await others(world, made.tx["id"])
        for reply in await asking:
            assert reply.status == 503
            assert "has not answered for 0.3 s" in reply.json()["message"]
            assert reply.headers["retry-after"] == "1"
        assert (await world.get("/health/ready")).json()["projected_height"] is None
        assert await figure(world, "bcdb_store_up") == 0
        # It comes back by itself, and nothing of those that hung is left.
        store.hangs, store.at = False, 9
        await asyncio.sleep(limits.QUESTION_S_MAX + 0.1)
        assert [reply.status for reply in await all_of_the_store(world)] == [200] * len(OF_THE_STORE)
        assert store.inside == 0

    async def test_a_look_at_a_store_that_hangs_is_shared(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = await put_in(world, Faulty(hangs=True))
        started = time.monotonic()
        seen = await asyncio.gather(*(world.services.questions.look() for _ in range(50)))
        assert not any(one.answers for one in seen)
        assert store.inside == 1
        assert limits.STORE_LOOK_S_MAX <= time.monotonic() - started < limits.STORE_LOOK_S_MAX + FAST_S
        started = time.monotonic()
        assert (await world.services.questions.look()).height is None
        assert time.monotonic() - started < limits.STORE_LOOK_S_MAX
        await world.services.questions.close()
        assert store.inside == 0

    async def test_a_store_that_is_away_is_503_and_slows_nobody_else(self, world: World) -> None:
        made = new()
        await world.commit(made)
        store = await put_in(world, Faulty(StoreUnavailable("The store is away")))
        for reply in await all_of_the_store(world):
            assert (reply.status, reply.json()) == (503, {"message": "The store is away", "status": 503})
            assert reply.headers["retry-after"] == "1"
        await others(world, made.tx["id"])
        store.trouble, store.at = None, 2
        assert [reply.status for reply in await all_of_the_store(world)] == [200] * len(OF_THE_STORE)
        assert (await world.get("/health/ready")).json()["projected_height"] == 2

    async def test_a_store_that_can_not_be_opened_is_503(self, world: World) -> None:
        def refuse() -> Any:
            raise StoreUnavailable("There is no store")

        await world.services.questions.close()
        world.services.questions = Questions(world.services.link, refuse)
        assert {reply.status for reply in await all_of_the_store(world)} == {503}
        assert (await world.get("/health/ready")).json()["projected_height"] is None

    async def test_a_store_that_is_being_built_tells_how_far_it_is(self, world: World) -> None:
        await world.commit(*(new() for _ in range(3)))
        await put_in(world, Faulty(at=1, target=3))
        searched, _, status, *found = await all_of_the_store(world)
        for reply in (searched, *found):
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            assert reply.json()["message"] == "The query store is being built: it is at block 1 of 3"
        assert status.headers["bcdb-height"] == "1"
        assert status.json() == {
            "kind": "faulty",
            "height": 1,
            "ledger_height": 3,
            "lag_blocks": 2,
            "building": {"height": 1, "target": 3},
            "text_search": True,
            "counts": {"assets": 0},
        }
        assert (await world.get("/health/ready")).json()["projected_height"] is None
        assert await figure(world, "bcdb_store_up") == 0
        assert await figure(world, "bcdb_projected_height") == 1
        assert await figure(world, "bcdb_projection_lag_blocks") == 2

    async def test_a_defect_of_the_store_is_500_there_and_nowhere_else(self, world: World) -> None:
        await put_in(world, Faulty(RuntimeError("a secret")))
        for reply in await all_of_the_store(world):
            assert (reply.status, reply.json()) == (500, {"message": "Internal Server Error"})
        assert (await world.get("/health/ready")).json()["projected_height"] is None
        assert (await world.get("/metrics")).status == 200

    @pytest.mark.parametrize(
        ("kind", "status"),
        [
            (InvalidSearch, 400),
            (SearchTimeout, 400),
            (StoreUnavailable, 503),
            (StoreDamaged, 503),
            (ProjectionGap, 503),
        ],
    )
    async def test_what_the_store_raises(self, world: World, kind: type[QueryError], status: int) -> None:
        await put_in(world, Faulty(kind("The sentence")))
        for reply in await all_of_the_store(world):
            assert (reply.status, reply.json()) == (status, {"message": "The sentence", "status": status})
            assert ("retry-after" in reply.headers) == (status == 503)

    async def test_a_cursor_that_is_none_is_told_by_its_name(self, world: World) -> None:
        await put_in(world, Faulty(InvalidCursor("The sentence")))
        reply = await world.ask("assets", {"after": "x"})
        assert (reply.status, reply.json()) == (400, {"message": {"after": "The sentence"}})


class TestHeights:
    async def test_without_a_wish_the_height_of_arrival_is_waited_for(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "SEARCH_WAIT_S_MAX", 0.1)
        await world.commit(new(), new())
        store = await put_in(world, Faulty(at=1))
        reply = await world.ask("assets", {})
        assert (reply.status, reply.json(), reply.headers["bcdb-height"]) == (
            200,
            {"height": 1, "documents": [], "next": None},
            "1",
        )
        reply = await world.ask("assets/aggregate", {"pipeline": []})
        assert (reply.json(), reply.headers["bcdb-height"]) == ({"height": 1, "documents": []}, "1")
        assert (await world.get("/api/v1/assets", search="a")).headers["bcdb-height"] == "1"
        assert store.waits == [2, 2, 2]

    async def test_a_store_below_min_height_is_503_with_both_heights(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "SEARCH_WAIT_S_MAX", 0.1)
        await world.commit(new(), new(), new())
        store = await put_in(world, Faulty(at=1))
        text = "The query store is at height 1 and the ledger at 3; `min_height` asks for 2"
        for reply in (
            await world.ask("assets", {"min_height": 2}),
            await world.ask("assets", {}, min_height=2),
            await world.ask("assets", {"min_height": 1}, min_height=2),
            await world.ask("assets", {"min_height": 2}, min_height=1),
            await world.ask("assets/aggregate", {"pipeline": [], "min_height": 2}),
            await world.get("/api/v1/assets", search="a", min_height=2),
            await world.get("/api/v1/metadata", search="a", min_height=2),
        ):
            assert (reply.status, reply.json()) == (503, {"message": text, "status": 503})
            assert reply.headers["retry-after"] == "1"
        assert set(store.waits) == {2}

    async def test_a_ledger_below_min_height_is_503(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "SEARCH_WAIT_S_MAX", 0.1)
        await world.commit(new())
        for reply in (
            await world.ask("assets", {"min_height": 5}),
            await world.ask("assets/aggregate", {"pipeline": []}, min_height=5),
            await world.get("/api/v1/assets", search="a", min_height=5),
        ):
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            assert "5" in reply.json()["message"]
            assert "1" in reply.json()["message"]

    async def test_min_height_is_enough(self, world: World) -> None:
        await world.commit(new(), new(), new())
        store = await put_in(world, Faulty(at=2))
        started = time.monotonic()
        for wanted in (0, 1, 2):
            assert (await world.ask("assets", {"min_height": wanted})).json()["height"] == 2
            reply = await world.get("/api/v1/assets", search="a", min_height=wanted)
            assert reply.headers["bcdb-height"] == "2"
        assert time.monotonic() - started < FAST_S
        assert store.waits == [1, 1, 2, 2]

    async def test_min_height_waits_for_a_block_that_is_yet_to_come(self, world: World) -> None:
        await world.commit(new())
        asking = asyncio.create_task(world.ask("assets", {"min_height": 2}))
        await asyncio.sleep(0.1)
        assert not asking.done()
        await world.commit(new())
        reply = await asking
        assert reply.status == 200
        assert (reply.json()["height"], len(reply.json()["documents"])) == (2, 2)

    async def test_a_later_page_waits_for_nothing_and_keeps_its_promise(self, world: World) -> None:
        await world.commit(new(), new(), new())
        store = await put_in(world, Faulty(at=2))
        assert (await world.ask("assets", {"after": "c"})).status == 200
        assert store.waits == []
        store.at = 3

        async def older(_question: object) -> Any:
            return Page([], 1, None)

        store.find = older  # type: ignore[method-assign]
        reply = await world.ask("assets", {"after": "c", "min_height": 2})
        assert reply.status == 400
        assert "height 1" in reply.json()["message"]


class TestBounds:
    async def test_only_so_many_are_answered_at_a_time(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "QUESTIONS_AT_ONCE_MAX", 2)
        monkeypatch.setattr(limits, "QUESTION_S_MAX", 1.0)
        monkeypatch.setattr(limits, "QUESTION_QUEUE_S_MAX", 0.2)
        store = await put_in(world, Faulty())
        release = asyncio.Event()
        seen: list[int] = []

        async def slow(_question: object) -> Any:
            seen.append(len(seen))
            await release.wait()
            return Page([], 0, None)

        store.find = slow  # type: ignore[method-assign]
        asking = [asyncio.create_task(world.ask("assets", {})) for _ in range(5)]
        done, waiting = await asyncio.wait(asking, timeout=0.6)
        assert (len(done), len(waiting), len(seen)) == (3, 2, 2)
        for task in done:
            reply = task.result()
            assert (reply.status, reply.headers["retry-after"]) == (429, "1")
            assert "2 questions are being answered" in reply.json()["message"]
        release.set()
        assert [(await task).status for task in waiting] == [200, 200]
        assert (await world.ask("assets", {})).status == 200

    async def test_only_so_many_wait(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "QUESTIONS_OPEN_MAX", 3)
        monkeypatch.setattr(limits, "SEARCH_WAIT_S_MAX", 0.3)
        await world.commit(new())
        await put_in(world, Faulty(at=0))
        replies = await asyncio.gather(*(world.ask("assets", {}) for _ in range(5)))
        assert sorted(reply.status for reply in replies) == [200] * 3 + [429] * 2
        (refused, _) = [reply for reply in replies if reply.status == 429]
        assert "3 questions wait here already" in refused.json()["message"]
        assert (await world.ask("assets", {"min_height": 0})).status == 200

    @pytest.mark.parametrize(("method", "path", "body"), [each for each in OF_THE_STORE if each[1] != QUERY])
    async def test_who_hangs_up_makes_room(
        self, world: World, monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: bytes
    ) -> None:
        monkeypatch.setattr(limits, "QUESTIONS_AT_ONCE_MAX", 2)
        store = await put_in(world, Faulty())
        stuck = asyncio.Event()

        async def slow(*_: object) -> Any:
            store.inside += 1
            try:
                await stuck.wait()
            finally:
                store.inside -= 1

        for name in ("find", "aggregate", "search_assets", "search_metadata"):
            monkeypatch.setattr(store, name, slow)
        kind = {"assets": "find", "aggregate": "aggregate"}.get(path.rpartition("/")[2], "search")
        counted = f'bcdb_questions_total{{kind="{kind}",outcome="given_up"}}'
        given_up = await figure(world, counted) or 0.0
        async with world.serving() as (port, _):
            writers = []
            for _ in range(5):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                writers.append(writer)
            while store.inside < 2:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            assert store.inside == 2, "who waits for an answer is not given up"
            for writer in writers:
                writer.close()
            async with asyncio.timeout(FAST_S):
                while store.inside:
                    await asyncio.sleep(0.01)
            await put_in(world, Faulty())
            assert (await world.request(method, path, body)).status == 200
        assert await figure(world, counted) == given_up + 5


class TestFigures:
    async def test_a_store_that_is_up_to_date(self, world: World) -> None:
        assert await figure(world, "bcdb_projection_lag_blocks") == 0
        await world.commit(new(), new())
        assert (await world.ask("assets", {})).status == 200
        assert await figure(world, "bcdb_store_up") == 1
        assert await figure(world, "bcdb_projected_height") == 2
        assert await figure(world, "bcdb_projection_lag_blocks") == 0
        assert await figure(world, "bcdb_projection_lag_seconds") == 0

    async def test_the_age_of_the_oldest_block_that_is_lacking(self, world: World) -> None:
        await world.commit(new())
        assert (await world.ask("assets", {})).status == 200
        await world.stop_projecting()
        committed = time.time()
        await world.commit(new())
        await asyncio.sleep(0.3)
        await world.commit(new())
        lag = await figure(world, "bcdb_projection_lag_seconds")
        assert lag is not None
        assert 0.3 <= lag <= time.time() - committed + 0.1
        assert await figure(world, "bcdb_projection_lag_blocks") == 2
        # While the store is away, the lag goes on from what was seen last.
        await world.services.questions.look()
        store = await put_in(world, Faulty(at=1))
        assert await figure(world, "bcdb_store_up") == 1
        store.trouble = StoreUnavailable("away")
        assert await figure(world, "bcdb_store_up") == 0
        assert await figure(world, "bcdb_projection_lag_blocks") == 2

    async def test_a_store_that_was_never_seen_has_no_height(self, world: World) -> None:
        await put_in(world, Faulty(StoreUnavailable("away")))
        assert await figure(world, "bcdb_store_up") == 0
        assert await figure(world, "bcdb_projected_height") is None
        assert await figure(world, "bcdb_projection_lag_blocks") is None

    async def test_questions_are_counted_by_kind_and_outcome(self, world: World) -> None:
        async def count(kind: str, outcome: str) -> float:
            name = f'bcdb_questions_total{{kind="{kind}",outcome="{outcome}"}}'
            return await figure(world, name) or 0.0

        async def timed(kind: str) -> float:
            return await figure(world, f'bcdb_question_seconds_count{{kind="{kind}"}}') or 0.0

        outcomes: list[tuple[Exception | None, str]] = [
            (None, "answered"),
            (InvalidSearch("no"), "refused"),
            (InvalidCursor("no"), "refused"),
            (SearchTimeout("no"), "too_broad"),
            (StoreUnavailable("no"), "unavailable"),
            (RuntimeError("no"), "failed"),
        ]
        store = await put_in(world, Faulty())
        kinds = ("search", "search", "status", "find", "aggregate")
        for trouble, outcome in outcomes:
            store.trouble = trouble
            before = {kind: (await count(kind, outcome), await timed(kind)) for kind in kinds}
            await all_of_the_store(world)
            for kind in kinds:
                counted, took = before[kind]
                assert await count(kind, outcome) == counted + kinds.count(kind)
                assert await timed(kind) == took + kinds.count(kind)
