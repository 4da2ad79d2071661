"""CREATE: issues an asset. Its one input spends nothing and is signed by exactly the issuers it names.

The issuer is checked against the signature here; whether the transaction is there already, only the ledger
knows.
"""

from collections.abc import Sequence

import msgspec

from bcdb.model.conditions import Fulfillment, condition_of, issuer_details
from bcdb.model.errors import TransactionOwnerError
from bcdb.model.explain import Schema
from bcdb.model.operations.base import Ruling, check_sum
from bcdb.model.schema import NULL
from bcdb.model.transaction import DataAsset, NewOutput, Transaction

NAME = "CREATE"

Create = Transaction[DataAsset]

DECODER = msgspec.json.Decoder(Create)

SCHEMA: Schema = {
    "required": ["asset", "inputs"],
    "properties": {
        "asset": {
            "additionalProperties": False,
            "properties": {"data": {"anyOf": [{"type": "object"}, NULL]}},
            "required": ["data"],
        },
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {"type": "object", "required": ["fulfills"], "properties": {"fulfills": NULL}},
        },
    },
}


def fits(transaction: Create, /) -> bool:
    """Whether there is one input and it spends nothing."""
    inputs = transaction.inputs
    return len(inputs) == 1 and inputs[0].fulfills is None


def check(
    transaction: Create,
    transaction_id: bytes,
    fulfillments: Sequence[Fulfillment],
    outputs: Sequence[NewOutput],
    /,
) -> Ruling:
    """Bind the issuers to the signature: the fulfillment has exactly the condition that `owners_before` make.

    Comparing conditions and not sets of signers leaves one spelling: the same signature wrapped in a
    threshold of one would be another transaction, and so a second asset that the issuer never meant.
    """
    check_sum(outputs)
    owners = transaction.inputs[0].owners_before
    condition, issuers = condition_of(issuer_details(owners))
    if fulfillments[0].uri != condition.uri:
        raise TransactionOwnerError(
            f"The fulfillment of a CREATE must be signed by all of `owners_before` and nobody else: "
            f"their condition is {condition.uri}, that of the fulfillment is {fulfillments[0].uri}."
        )
    return Ruling(transaction_id, issuers, ())
