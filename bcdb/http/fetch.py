"""The hot way out: `GET /api/v1/transactions/{id}`, and what else starts from the id of a transaction.

The answer is the canonical bytes as they are stored: nothing is decoded or encoded on the way.
"""

from typing import TYPE_CHECKING

from msgspec import Struct

from bcdb.http.answer import Answer, height_header
from bcdb.http.errors import not_found
from bcdb.http.params import MIN_HEIGHT, Arguments
from bcdb.http.reach import reach

if TYPE_CHECKING:
    from bcdb.http.services import Services

ID_CHARS = 64


class Asked(Struct, frozen=True):
    """Which block must be there before the answer."""

    min_height: int | None = None


ARGUMENTS = Arguments(Asked, min_height=MIN_HEIGHT)


def read_id(text: str) -> bytes | None:
    """The 32 bytes of an id, or None if this is not how ids are written: 64 lower-case hex digits."""
    if len(text) != ID_CHARS:
        return None
    try:
        transaction_id = bytes.fromhex(text)
    except ValueError:
        return None
    # The decoder also takes upper case and blanks.
    return transaction_id if transaction_id.hex() == text else None


async def fetch(services: "Services", text: str, query: bytes) -> Answer:
    """The committed transaction of this id; 404 for any other text. Raises `BcdbError` for `answer_error`."""
    if query:
        await reach(services, ARGUMENTS.parse(query).min_height)
    transaction_id = read_id(text)
    if transaction_id is None:
        return not_found()
    found = (await services.ledger.ready()).transaction(transaction_id)
    if found is None:
        return not_found()
    return Answer(200, found.body, headers=(height_header(found.height),))
