"""Makes and signs transactions, as the drivers of the format do: prepare, sign, post.

Prepared transactions are plain JSON objects. An input that is not signed yet carries the details of the
condition it has to fulfill in the place of its fulfillment.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha3_256
from typing import Any

import msgspec

from bcdb.model import limits
from bcdb.model.canonical import Form, encode_javascript, encode_python
from bcdb.model.conditions import Details, condition_of, issuer_details, sign_fulfillment
from bcdb.model.errors import AmountError, ValidationError
from bcdb.model.keys import KeyPair
from bcdb.model.operations import create, transfer
from bcdb.model.transaction import VERSION, Link
from bcdb.model.validation import digest_of

Document = dict[str, Any]
Recipient = tuple[Sequence[str] | Details, int]
"""Who gets how much: keys that must all sign to spend it, or a condition of one's own; and the amount."""


def prepare_create(
    *,
    issuers: Sequence[str],
    recipients: Sequence[Recipient] | None = None,
    asset: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Document:
    """A CREATE of `asset`'s data, to be signed by all `issuers`, who get 1 if no recipients are given.

    Raises a `ValidationError` for a wrong key, condition or amount.
    """
    details = issuer_details(list(issuers))
    return _prepare(
        create.NAME,
        {"data": None if asset is None else dict(asset)},
        [_input(list(issuers), details, None)],
        [(issuers, 1)] if recipients is None else recipients,
        metadata,
    )


def prepare_transfer(
    *,
    inputs: Sequence[tuple[Mapping[str, Any], int]],
    recipients: Sequence[Recipient],
    asset_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Document:
    """A TRANSFER that spends `inputs`, each a signed transaction and the index of one of its outputs.

    `asset_id` (hex) is by default the asset of the first input. Raises a `ValidationError` for no input, an
    output that is not there, an amount out of range, or details that are not those of a condition.
    """
    if not inputs:
        raise ValidationError("A TRANSFER needs at least one input.")
    if asset_id is None:
        first = inputs[0][0]
        asset_id = first["asset"].get("id", first["id"])
    spending = []
    for transaction, index in inputs:
        outputs = transaction["outputs"]
        if not 0 <= index < len(outputs):
            raise ValidationError(
                f"Transaction {transaction['id']} has {len(outputs)} outputs, none at {index}."
            )
        output = outputs[index]
        link = {"output_index": index, "transaction_id": transaction["id"]}
        spending.append(_input(output["public_keys"], _details(output["condition"]["details"]), link))
    return _prepare(transfer.NAME, {"id": asset_id}, spending, recipients, metadata)


def sign(
    transaction: Mapping[str, Any], keypairs: KeyPair | Iterable[KeyPair], *, form: Form = Form.PYTHON
) -> Document:
    """A signed copy of a prepared transaction, with its id.

    `form` says which canonical form is hashed; a server takes both. Raises a `ValidationError` when the
    keys do not suffice, or when an input carries no details to sign for.
    """
    encode = encode_python if form is Form.PYTHON else encode_javascript
    pairs = {pair.public_key: pair for pair in ([keypairs] if isinstance(keypairs, KeyPair) else keypairs)}
    unsigned = {
        **transaction,
        "id": None,
        "inputs": [{**item, "fulfillment": None} for item in transaction["inputs"]],
    }
    text = encode(unsigned)
    inputs = []
    for item in transaction["inputs"]:
        link = None if item["fulfills"] is None else msgspec.convert(item["fulfills"], Link)
        fulfillment = sign_fulfillment(_details(item["fulfillment"]), digest_of(text, link), pairs)
        inputs.append({**item, "fulfillment": fulfillment.encode()})
    signed = {**unsigned, "inputs": inputs}
    signed["id"] = sha3_256(encode(signed)).hexdigest()
    return signed


def _prepare(
    operation: str,
    asset: Document,
    inputs: list[Document],
    recipients: Sequence[Recipient],
    metadata: Mapping[str, Any] | None,
) -> Document:
    return {
        "asset": asset,
        "id": None,
        "inputs": inputs,
        "metadata": None if metadata is None else dict(metadata),
        "operation": operation,
        "outputs": [_output(owners, amount) for owners, amount in recipients],
        "version": VERSION,
    }


def _input(owners: list[str], details: Details, link: Document | None) -> Document:
    return {"fulfillment": msgspec.to_builtins(details), "fulfills": link, "owners_before": owners}


def _output(owners: Sequence[str] | Details, amount: int) -> Document:
    details = owners if isinstance(owners, Details) else issuer_details(list(owners))
    condition, keys = condition_of(details)
    if not 1 <= amount <= limits.AMOUNT_MAX:
        raise AmountError(f"An amount is from 1 to {limits.AMOUNT_MAX}, not {amount}.")
    return {
        "amount": str(amount),
        "condition": {"details": msgspec.to_builtins(details), "uri": condition.uri},
        "public_keys": list(keys) if isinstance(owners, Details) else list(owners),
    }


def _details(document: Any) -> Details:
    try:
        return msgspec.convert(document, Details)
    except msgspec.ValidationError as error:
        raise ValidationError(f"These are not the details of a condition: {error}.") from None
