"""Heights in a question to the ledger: `min_height`, which is waited for, and `at_height`, which is looked
back to.

Only the ledger is waited for here. The query store follows it, and is waited for by whoever asks it.
"""

from bcdb.http.errors import ArgumentError
from bcdb.http.services import Services
from bcdb.ledger import Reader
from bcdb.model import limits
from bcdb.model.errors import Unavailable


async def reach(services: Services, min_height: int | None) -> None:
    """Return once the block `min_height` is published here, at once for None.

    Raises `Unavailable` (503 with Retry-After) when it has not come within `limits.SEARCH_WAIT_S_MAX`, or
    when the node is gone.
    """
    if min_height is None:
        return
    head = await services.link.newest()
    if head.height < min_height:
        head = await services.link.wait_height(min_height, limits.SEARCH_WAIT_S_MAX)
    if head.height < min_height:
        raise Unavailable(
            f"The ledger of this node is at height {head.height}; `min_height` asks for {min_height}"
        )


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
