"""A query store in trouble, for what a worker does then: it hangs, is away, lags, or is being built.

It stands in for the store alone; the node around it is real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

from bcdb.http.questions import Questions
from query.store import Aggregated, Find, Found, Page, QueryStore, Status, StoreUnavailable
from tests.http.world import World


class Faulty:
    """The half of a `QueryStore` that is asked: no documents, and the height `at`.

    `trouble` is raised by whatever is asked. `hangs`: nothing is ever answered. `target`: below this height
    it is being built.
    """

    def __init__(
        self, trouble: Exception | None = None, *, hangs: bool = False, at: int = 0, target: int = 0
    ) -> None:
        self.trouble = trouble
        self.hangs = hangs
        self.at = at
        self.target = target
        self.waits: list[int] = []
        """The heights that were waited for."""
        self.inside = 0
        """Questions that it works on."""

    async def _answer(self) -> None:
        self.inside += 1
        try:
            if self.hangs:
                await asyncio.Event().wait()
            if self.trouble is not None:
                raise self.trouble
            if self.at < self.target:
                text = f"The query store is being built: it is at block {self.at} of {self.target}"
                raise StoreUnavailable(text)
        finally:
            self.inside -= 1

    async def height(self) -> int:
        await self._answer()
        return self.at

    async def wait_height(self, height: int, timeout_s: float) -> int:
        self.waits.append(height)
        await self._answer()
        if height > self.at:
            await asyncio.sleep(timeout_s)
        return self.at

    async def status(self) -> Status:
        if not self.target:
            await self._answer()
        return Status("faulty", self.at, self.target, True, {"assets": 0})

    async def search_assets(self, text: str, limit: int, after: str | None = None) -> list[Found]:
        await self._answer()
        return []

    search_metadata = search_assets

    async def find(self, question: Find) -> Page:
        await self._answer()
        return Page([], self.at, None)

    async def aggregate(self, collection: str, pipeline: Sequence[Mapping[str, Any]]) -> Aggregated:
        await self._answer()
        return Aggregated([], self.at)

    async def close(self) -> None:
        pass


async def put_in(world: World, store: Faulty) -> Faulty:
    """Let the worker of `world` ask `store` from now on."""
    await world.services.questions.close()
    world.services.questions = Questions(world.services.link, lambda: cast(QueryStore, store))
    return store
