"""CHAIN_MIGRATION_ELECTION: proposes to stop the chain, with one token of voting per unit of power.

It has a shape and no rules yet: until elections exist it is refused, whoever signs it.
"""

from collections.abc import Sequence

import msgspec

from bcdb.model.conditions import Fulfillment
from bcdb.model.operations.base import Ruling, election_schema, fits_election, refuse
from bcdb.model.transaction import DataAsset, NewOutput, Transaction

NAME = "CHAIN_MIGRATION_ELECTION"

ChainMigrationElection = Transaction[DataAsset]

DECODER = msgspec.json.Decoder(ChainMigrationElection)

SCHEMA = election_schema(
    {"type": "object", "additionalProperties": False, "properties": {"seed": {"type": "string"}}}
)


def fits(transaction: ChainMigrationElection, /) -> bool:
    """Whether there is one input and it spends nothing."""
    return fits_election(transaction)


def check(
    transaction: ChainMigrationElection,
    transaction_id: bytes,
    fulfillments: Sequence[Fulfillment],
    outputs: Sequence[NewOutput],
    /,
) -> Ruling:
    """Refuse it."""
    raise refuse(NAME)
