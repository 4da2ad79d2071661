"""What operations have in common: outputs that come into being, and outputs that are spent. Pure."""

from bcdb.ledger.records import (
    SPENT,
    UNSPENT,
    ZERO_ID,
    output_key,
    ownership,
    pack_height,
    pack_index,
    pack_output,
    pack_owned,
    pack_owned_place,
    spend_output,
    unpack_output,
)
from bcdb.ledger.view import Overlay
from bcdb.model.keys import decode_key
from bcdb.model.transaction import Verified


def create_outputs(transaction: Verified, position: int, overlay: Overlay) -> None:
    """Write the outputs of a transaction, and a row for each of their keys."""
    transaction_id, asset_id, height = transaction.id, transaction.asset_id, overlay.height
    outputs, owned = overlay.writes.outputs, overlay.writes.owned
    for index, output in enumerate(transaction.outputs):
        outputs[transaction_id + pack_index(index)] = pack_output(
            output.amount, asset_id, height, position, 0, ZERO_ID
        ) + ownership(output.condition, output.public_keys)
        place = UNSPENT + pack_owned_place(height, position, index)
        value = pack_owned(transaction_id, asset_id, output.amount)
        for public_key in output.public_keys:
            owned[decode_key(public_key) + place] = value


def spend_outputs(transaction: Verified, overlay: Overlay) -> None:
    """Mark the outputs that a transaction spends, and move the rows of their owners from unspent to spent."""
    writes, spent = overlay.writes, overlay.spent
    spent_height = pack_height(overlay.height)
    for spend in transaction.spends:
        key = output_key(spend.transaction_id, spend.output_index)
        record = overlay.get_output(key)
        assert record is not None, "checked: the output exists"
        amount, asset_id, created_height, created_position, earlier, _ = unpack_output(record)
        assert earlier == 0, "checked: the output is unspent"
        writes.outputs[key] = spend_output(record, overlay.height, transaction.id)
        spent[key] = transaction.id
        place = pack_owned_place(created_height, created_position, spend.output_index)
        value = pack_owned(spend.transaction_id, asset_id, amount) + spent_height
        for owner in spend.owners:
            raw_key = decode_key(owner)
            # A row that this very block would have put never reaches the store; any other one is deleted
            # there.
            if created_height < overlay.height:
                writes.owned_deleted.append(raw_key + UNSPENT + place)
            else:
                del writes.owned[raw_key + UNSPENT + place]
            writes.owned[raw_key + SPENT + place] = value
