"""What an operation's module offers, and the helpers that several of them share.

A module may look at nothing but the transaction: rules that need the ledger stand in
`bcdb.ledger.operations`.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from bcdb.model import limits
from bcdb.model.conditions import Fulfillment
from bcdb.model.errors import AmountError, OperationNotSupported
from bcdb.model.explain import Schema
from bcdb.model.schema import HEX_ID, LINK, NULL
from bcdb.model.transaction import NewOutput, Spend, Transaction


class Ruling(Struct, frozen=True, gc=False):
    """What an operation's rules make of a transaction; see `Verified` for the fields."""

    asset_id: bytes
    issuers: tuple[str, ...]
    spends: tuple[Spend, ...]


class Operation(Protocol):
    """The stateless half of an operation, found by name in the table."""

    NAME: str
    """The text in the transaction's `operation` field."""

    SCHEMA: Schema
    """What the operation adds to the schema of all transactions, for the sentences."""

    DECODER: msgspec.json.Decoder[Any]
    """Reads the operation's typed shape."""

    def fits(self, transaction: Transaction[Any], /) -> bool:
        """Whether the shape keeps those rules of `SCHEMA` that its types can't say. Quick; raises nothing."""

    def check(
        self,
        transaction: Transaction[Any],
        transaction_id: bytes,
        fulfillments: Sequence[Fulfillment],
        outputs: Sequence[NewOutput],
        /,
    ) -> Ruling:
        """Apply the rules between the parts; signatures come after. Raises a `ValidationError`."""


LINKED_SCHEMA: Schema = {
    "required": ["asset", "inputs"],
    "properties": {
        "asset": {"additionalProperties": False, "properties": {"id": HEX_ID}, "required": ["id"]},
        "inputs": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["fulfills"], "properties": {"fulfills": LINK}},
        },
    },
}
"""The shape of operations that spend outputs of an asset."""


def is_hex_id(text: str) -> bool:
    """Whether `text` is an id as the format spells it: 64 lower-case hex digits."""
    if len(text) != 64:
        return False
    try:
        return bytes.fromhex(text).hex() == text
    except ValueError:
        return False


def fits_spending(transaction: Transaction[Any]) -> bool:
    """Whether every input spends an output, with the link well spelt, and there is one."""
    if not transaction.inputs:
        return False
    for item in transaction.inputs:
        link = item.fulfills
        if link is None or link.output_index < 0 or not is_hex_id(link.transaction_id):
            return False
    return True


def check_sum(outputs: Sequence[NewOutput]) -> None:
    """Refuse outputs that together are more than any one output may hold."""
    total = sum(output.amount for output in outputs)
    if total > limits.AMOUNT_MAX:
        raise AmountError(
            f"The amounts of all outputs add up to `{total}`, the limit is {limits.AMOUNT_MAX}."
        )


def refuse(name: str) -> OperationNotSupported:
    """The error for an operation that has a shape but no rules yet."""
    return OperationNotSupported(f"The operation {name} has no rules in this version, so it is refused.")


def fits_election(transaction: Transaction[Any]) -> bool:
    """Whether an election has one input and it spends nothing."""
    inputs = transaction.inputs
    return len(inputs) == 1 and inputs[0].fulfills is None


def election_schema(data: Schema) -> Schema:
    """The shape of an election whose `asset.data` is `data`."""
    return {
        "required": ["asset", "inputs"],
        "properties": {
            "asset": {"additionalProperties": False, "properties": {"data": data}, "required": ["data"]},
            "inputs": {
                "type": "array",
                "minItems": 1,
                "maxItems": 1,
                "items": {"type": "object", "required": ["fulfills"], "properties": {"fulfills": NULL}},
            },
        },
    }
