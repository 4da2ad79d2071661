"""Heights in a request: `min_height`, which is waited for, and `at_height`, which is looked back to.

Only the ledger is waited for here. The query store follows it, and is waited for by whoever asks it.
"""

import asyncio
from collections.abc import Callable

from bcdb.http.answer import height_header
from bcdb.http.body import Disconnected
from bcdb.http.errors import RETRY_AFTER_S, ArgumentError, RequestError
from bcdb.http.services import Services
from bcdb.ledger import Reader
from bcdb.model import limits
from bcdb.model.errors import Overloaded

GONE_LOOK_S = 0.5
"""A wait is given up so soon after its client has gone away."""


async def reach(
    services: Services,
    min_height: int | None,
    wait_s: float | None = None,
    gone: Callable[[], bool] = lambda: False,
) -> None:
    """Return once the block `min_height` is published here, at once for None.

    Raises `RequestError` (503 with Retry-After and the height that there is) when it has not come within
    `wait_s`, by default `limits.SEARCH_WAIT_S_MAX`, `Unavailable` when the node is gone, and `Disconnected`
    soon after `gone` says that nobody waits any more.
    """
    if min_height is None:
        return
    if wait_s is None:
        wait_s = limits.SEARCH_WAIT_S_MAX
    clock = asyncio.get_running_loop().time
    deadline = clock() + wait_s
    head = await services.link.newest()
    while head.height < min_height:
        left_s = deadline - clock()
        if left_s <= 0:
            raise RequestError(
                503,
                f"The ledger of this node is at height {head.height}; `min_height` asks for {min_height}, "
                f"which did not come within {wait_s:g} s",
                (b"retry-after", b"%d" % RETRY_AFTER_S),
                height_header(head.height),
            )
        if gone():
            raise Disconnected
        head = await services.link.wait_height(min_height, min(left_s, GONE_LOOK_S))


async def reach_to_write(services: Services, min_height: int | None, gone: Callable[[], bool]) -> None:
    """`reach` for a write, which waits up to `limits.WRITE_WAIT_S_MAX`.

    Call it before the body is read: what waits has cost nothing yet, and holds no more than what the server
    takes in of a body that nobody asks for. Raises as `reach` does, and `Overloaded` when
    `limits.WAITING_WRITES_MAX` wait already.
    """
    if min_height is None or (await services.link.newest()).height >= min_height:
        return
    if services.waiting_writes >= limits.WAITING_WRITES_MAX:
        raise Overloaded(f"{limits.WAITING_WRITES_MAX} writes wait for their `min_height` here; try again")
    services.waiting_writes += 1
    try:
        await reach(services, min_height, limits.WRITE_WAIT_S_MAX, gone)
    finally:
        services.waiting_writes -= 1


def state_at(reader: Reader, at_height: int | None) -> int:
    """The height whose state is asked for: that of the head for None. Raises `ArgumentError` beyond it."""
    newest = reader.head.height
    if at_height is None:
        return newest
    if at_height > newest:
        raise ArgumentError(
            "at_height", f"The newest block is {newest}: there is no state of the height {at_height} yet"
        )
    return at_height
