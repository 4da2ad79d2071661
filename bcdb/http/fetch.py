"""The hot way out: `GET /api/v1/transactions/{id}`, and what else starts from the id of a transaction.

The answer is the canonical bytes as they are stored: nothing is decoded or encoded on the way.
"""

from typing import TYPE_CHECKING

from bcdb.http.answer import Answer
from bcdb.http.errors import not_found

if TYPE_CHECKING:
    from bcdb.http.services import Services

ID_CHARS = 64


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


async def fetch(services: "Services", text: str) -> Answer:
    """The committed transaction of this id; 404 for any other text. Raises `Unavailable`, `StoreError`."""
    transaction_id = read_id(text)
    if transaction_id is None:
        return not_found()
    found = (await services.ledger.ready()).transaction(transaction_id)
    if found is None:
        return not_found()
    return Answer(200, found.body)
