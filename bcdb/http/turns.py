"""Long readings of the ledger in a worker: one slice of one reading at a time, and others' turn in between.

However many of them go on, a request that comes in between waits for one slice of one of them.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from bcdb.http.body import Disconnected
from bcdb.ledger.slices import Slices
from bcdb.model import limits
from bcdb.model.errors import Overloaded

Result = TypeVar("Result")


class Turns:
    """Whose turn it is. One for each worker."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._open = 0

    async def whole(self, slices: Slices[Result], gone: Callable[[], bool] = lambda: False) -> Result:
        """The result of a reading. Its first slice is read before anything else of this loop happens.

        It ends early, with `Disconnected`, when `gone` says that nobody waits for it any more. Raises what
        the reading raises, and `Overloaded` when it has more slices than one and
        `limits.READINGS_OPEN_MAX` of that kind are under way.
        """
        try:
            next(slices)
        except StopIteration as end:
            first: Result = end.value
            return first
        try:
            if self._open >= limits.READINGS_OPEN_MAX:
                raise Overloaded(f"{limits.READINGS_OPEN_MAX} long answers are being gathered here already")
            self._open += 1
            try:
                return await self._rest(slices, gone)
            finally:
                self._open -= 1
        finally:
            slices.close()

    async def _rest(self, slices: Slices[Result], gone: Callable[[], bool]) -> Result:
        while True:
            async with self._turn:
                await asyncio.sleep(0)
                if gone():
                    raise Disconnected
                try:
                    next(slices)
                except StopIteration as end:
                    result: Result = end.value
                    return result
