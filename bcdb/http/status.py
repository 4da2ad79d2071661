"""The fate of a transaction: pending, committed or rejected, for the status route and for lines of a batch.

What is committed is read in the ledger; what is not is known to this node only if it accepted it.
"""

from typing import TYPE_CHECKING, Literal

from msgspec import UNSET, Struct, UnsetType

from bcdb.http.answer import rfc3339
from bcdb.ledger import SecondaryReader

if TYPE_CHECKING:
    from bcdb.http.services import Services


class Reason(Struct, frozen=True):
    """The rule that refused a transaction, by the name of its error, and the sentence."""

    name: str
    text: str


class Status(Struct, frozen=True, omit_defaults=True):
    """Where a transaction stands.

    `committed`: `height` (from 1), `position` (from 0, in its block) and `time` of the block (RFC 3339, UTC).
    `rejected`: `height` of the block that decided, and `error`. `pending`: accepted and durable, nothing
    more.
    """

    id: str
    status: Literal["pending", "committed", "rejected"]
    height: int | UnsetType = UNSET
    position: int | UnsetType = UNSET
    time: str | UnsetType = UNSET
    error: Reason | UnsetType = UNSET


async def status_of(services: "Services", transaction_id: bytes) -> Status | None:
    """The status, or None for an id this node knows nothing of. Raises `Unavailable`, `StoreError`."""
    found = committed(await services.ledger.ready(), transaction_id)
    if found is not None:
        return found
    local = await services.link.status(transaction_id)
    identity = transaction_id.hex()
    if local.status == "pending":
        return Status(identity, "pending")
    if local.status == "rejected":
        return Status(identity, "rejected", local.height, error=Reason(local.name, local.text))
    # It may have been committed between the two questions; then that height is published by now.
    return committed(await services.ledger.ready(), transaction_id)


def committed(reader: SecondaryReader, transaction_id: bytes) -> Status | None:
    """The status of a committed transaction, None for any other. `reader` as `LedgerReader.ready` gave it."""
    stored = reader.transaction(transaction_id)
    if stored is None:
        return None
    block = reader.block(stored.height)
    assert block is not None, "a transaction stands in a block"
    identity = transaction_id.hex()
    return Status(identity, "committed", stored.height, stored.position, rfc3339(block.time_ns))
