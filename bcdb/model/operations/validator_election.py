"""VALIDATOR_ELECTION: proposes a validator and its power, with one token of voting per unit of power.

It has a shape and no rules yet: until elections exist it is refused, whoever signs it.
"""

from collections.abc import Sequence

import msgspec

from bcdb.model.conditions import Fulfillment
from bcdb.model.operations.base import Ruling, election_schema, fits_election, refuse
from bcdb.model.transaction import DataAsset, NewOutput, Transaction

NAME = "VALIDATOR_ELECTION"

ValidatorElection = Transaction[DataAsset]

DECODER = msgspec.json.Decoder(ValidatorElection)

SCHEMA = election_schema(
    {
        "type": "object",
        "additionalProperties": False,
        "required": ["node_id", "power", "public_key"],
        "properties": {
            "node_id": {"type": "string"},
            "power": {"type": "integer", "minimum": 0},
            "public_key": {
                "type": "object",
                "additionalProperties": False,
                "required": ["type", "value"],
                "properties": {
                    "type": {
                        "type": "string",
                        "enum": ["ed25519-base16", "ed25519-base32", "ed25519-base64"],
                    },
                    "value": {"type": "string"},
                },
            },
            "seed": {"type": "string"},
        },
    }
)


def fits(transaction: ValidatorElection, /) -> bool:
    """Whether there is one input and it spends nothing."""
    return fits_election(transaction)


def check(
    transaction: ValidatorElection,
    transaction_id: bytes,
    fulfillments: Sequence[Fulfillment],
    outputs: Sequence[NewOutput],
    /,
) -> Ruling:
    """Refuse it."""
    raise refuse(NAME)
