"""CREATE in the ledger: it spends nothing, so no state can speak against it; its outputs come into being."""

from bcdb.ledger.operations.effects import create_outputs
from bcdb.ledger.view import Overlay, State
from bcdb.model.errors import ValidationError
from bcdb.model.transaction import Verified

CODE = b"\x01"


def check(transaction: Verified, state: State) -> ValidationError | None:
    return None


def effects(transaction: Verified, position: int, overlay: Overlay) -> None:
    create_outputs(transaction, position, overlay)
