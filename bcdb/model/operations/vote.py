"""VOTE: spends tokens of an election to the election's own address.

It has a shape and no rules yet: until elections exist it is refused, whoever signs it.
"""

from collections.abc import Sequence

import msgspec

from bcdb.model.conditions import Fulfillment
from bcdb.model.operations.base import LINKED_SCHEMA, Ruling, fits_spending, is_hex_id, refuse
from bcdb.model.transaction import LinkedAsset, NewOutput, Transaction

NAME = "VOTE"

Vote = Transaction[LinkedAsset]

DECODER = msgspec.json.Decoder(Vote)

SCHEMA = LINKED_SCHEMA


def fits(transaction: Vote, /) -> bool:
    """Whether the election and every spent output are named as the format spells ids."""
    return is_hex_id(transaction.asset.id) and fits_spending(transaction)


def check(
    transaction: Vote,
    transaction_id: bytes,
    fulfillments: Sequence[Fulfillment],
    outputs: Sequence[NewOutput],
    /,
) -> Ruling:
    """Refuse it."""
    raise refuse(NAME)
