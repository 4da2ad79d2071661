"""TRANSFER: passes shares of one asset on, by spending outputs and making new ones.

Whether the outputs exist, are unspent, belong to the asset and balance, only the ledger knows.
"""

from collections.abc import Sequence

import msgspec

from bcdb.model.conditions import Fulfillment
from bcdb.model.errors import DoubleSpend
from bcdb.model.operations.base import LINKED_SCHEMA, Ruling, check_sum, fits_spending, is_hex_id
from bcdb.model.transaction import LinkedAsset, NewOutput, Spend, Transaction

NAME = "TRANSFER"

Transfer = Transaction[LinkedAsset]

DECODER = msgspec.json.Decoder(Transfer)

SCHEMA = LINKED_SCHEMA


def fits(transaction: Transfer, /) -> bool:
    """Whether the asset and every spent output are named as the format spells ids."""
    return is_hex_id(transaction.asset.id) and fits_spending(transaction)


def check(
    transaction: Transfer,
    transaction_id: bytes,
    fulfillments: Sequence[Fulfillment],
    outputs: Sequence[NewOutput],
    /,
) -> Ruling:
    """Refuse the same output twice; say what is spent, by whom and under which condition."""
    check_sum(outputs)
    spends = []
    for item, fulfillment in zip(transaction.inputs, fulfillments, strict=True):
        link = item.fulfills
        assert link is not None, "`fits` lets no TRANSFER in with an input that spends nothing"
        owners = item.owners_before
        spends.append(
            Spend(
                bytes.fromhex(link.transaction_id),
                link.output_index,
                fulfillment.uri,
                (owners[0],) if len(owners) == 1 else tuple(sorted(set(owners))),
            )
        )
    if len(spends) > 1:
        seen: set[tuple[bytes, int]] = set()
        for spend in spends:
            place = (spend.transaction_id, spend.output_index)
            if place in seen:
                raise DoubleSpend(
                    f"tx `{transaction_id.hex()}` spends output {spend.output_index} of "
                    f"`{spend.transaction_id.hex()}` twice"
                )
            seen.add(place)
    return Ruling(bytes.fromhex(transaction.asset.id), (), tuple(spends))
