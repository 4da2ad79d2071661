"""TRANSFER in the ledger: every input spends a committed, unspent output of the one asset, by its owners'
condition, and what goes in comes out.
"""

from bcdb.ledger.operations.effects import create_outputs, spend_outputs
from bcdb.ledger.records import (
    OUTPUT_FIXED_BYTES,
    decode_output,
    output_key,
    ownership,
    unpack_output,
)
from bcdb.ledger.view import Overlay, State
from bcdb.model.errors import (
    AmountError,
    AssetIdMismatch,
    DoubleSpend,
    InputDoesNotExist,
    InvalidSignature,
    TransactionOwnerError,
    ValidationError,
)
from bcdb.model.transaction import Spend, Verified

CODE = b"\x02"


def check(transaction: Verified, state: State) -> ValidationError | None:
    """The rules in the order of the reference: existence, unspent, distinct, asset, amounts, signers."""
    found: list[tuple[Spend, bytes]] = []
    keys: set[bytes] = set()
    amount_in = 0
    one_asset = True
    for spend in transaction.spends:
        key = output_key(spend.transaction_id, spend.output_index)
        record = state.get_output(key)
        if record is None:
            return _missing(spend, state)
        amount, asset_id, _, _, spent_height, _ = unpack_output(record)
        if spent_height:
            return DoubleSpend(f"input `{spend.transaction_id.hex()}` was already spent")
        keys.add(key)
        found.append((spend, record))
        amount_in += amount
        one_asset = one_asset and asset_id == transaction.asset_id
    if len(keys) != len(found):
        return DoubleSpend(f'tx "{transaction.id.hex()}" spends inputs twice')
    if not one_asset:
        return AssetIdMismatch("The asset id of the input does not match the asset id of the transaction")
    amount_out = 0
    for output in transaction.outputs:
        amount_out += output.amount
    if amount_in != amount_out:
        return AmountError(
            f"The amount used in the inputs `{amount_in}` needs to be same as "
            f"the amount used in the outputs `{amount_out}`"
        )
    for spend, record in found:
        if record[OUTPUT_FIXED_BYTES:] != ownership(spend.condition, spend.owners):
            return _not_owner(spend, record)
    return None


def effects(transaction: Verified, position: int, overlay: Overlay) -> None:
    spend_outputs(transaction, overlay)
    create_outputs(transaction, position, overlay)


def _missing(spend: Spend, state: State) -> ValidationError:
    source = spend.transaction_id.hex()
    if state.has_transaction(spend.transaction_id):
        return InputDoesNotExist(f"input `{source}` has no output {spend.output_index}")
    return InputDoesNotExist(f"input `{source}` doesn't exist")


def _not_owner(spend: Spend, record: bytes) -> ValidationError:
    output = decode_output(record)
    if output.condition != spend.condition:
        return InvalidSignature("Transaction signature is invalid.")
    source = f"{spend.transaction_id.hex()}:{spend.output_index}"
    return TransactionOwnerError(
        f"owners_before of the input that spends `{source}` must be {list(output.public_keys)}, "
        f"the owners of that output, not {list(spend.owners)}"
    )
