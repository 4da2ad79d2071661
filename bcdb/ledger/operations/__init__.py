"""The stateful rules of each operation, found by its name in the one table here. Pure: rules read through
`State` only.

A module of an operation has `CODE` (its byte in the index of an asset), `check` (may it be committed on this
state?) and `effects` (what it changes).
"""

from typing import Protocol

from bcdb.ledger.operations import create, transfer
from bcdb.ledger.view import Overlay, State
from bcdb.model.errors import OperationNotSupported, ValidationError
from bcdb.model.transaction import Verified


class Operation(Protocol):
    CODE: bytes

    def check(self, transaction: Verified, state: State) -> ValidationError | None:
        """The first rule that the transaction breaks on `state`, or None; its id is known to be new."""
        ...

    def effects(self, transaction: Verified, position: int, overlay: Overlay) -> None:
        """Write into the overlay what committing the transaction at `position` changes; `check` gave None."""
        ...


OPERATIONS: dict[str, Operation] = {
    "CREATE": create,
    "TRANSFER": transfer,
}

NAMES = {operation.CODE: name for name, operation in OPERATIONS.items()}


def check(transaction: Verified, state: State) -> ValidationError | None:
    """The first stateful rule that a transaction with a new id breaks, or None."""
    operation = OPERATIONS.get(transaction.operation)
    if operation is None:
        return OperationNotSupported(f"{transaction.operation} has no rules in this version of bcdb")
    return operation.check(transaction, state)
