"""Signed transactions for the tests of every package."""

from collections.abc import Mapping, Sequence
from hashlib import sha3_256
from typing import Any, NamedTuple

from bcdb.model.build import Recipient, prepare_create, prepare_transfer, sign
from bcdb.model.canonical import Form, encode, encode_python
from bcdb.model.keys import KeyPair
from bcdb.model.transaction import Verified
from bcdb.model.validation import verify

alice = KeyPair.from_seed(bytes([7]) * 32)
bob = KeyPair.from_seed(bytes([8]) * 32)
carol = KeyPair.from_seed(bytes([9]) * 32)
everyone = (alice, bob, carol)


class Signed(NamedTuple):
    """A transaction as a JSON object, as canonical bytes, and as what verification makes of it."""

    tx: dict[str, Any]
    raw: bytes
    verified: Verified


def create(
    issuers: KeyPair | Sequence[KeyPair] = alice,
    *,
    recipients: Sequence[Recipient] | None = None,
    asset: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    form: Form = Form.PYTHON,
) -> Signed:
    """A signed CREATE; without recipients the issuers get an amount of 1."""
    pairs = [issuers] if isinstance(issuers, KeyPair) else list(issuers)
    prepared = prepare_create(
        issuers=[pair.public_key for pair in pairs], recipients=recipients, asset=asset, metadata=metadata
    )
    return signed(prepared, pairs, form=form)


def transfer(
    inputs: Sequence[tuple[Signed | Mapping[str, Any], int]],
    recipients: Sequence[Recipient],
    *,
    keypairs: Sequence[KeyPair] = everyone,
    asset_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    form: Form = Form.PYTHON,
) -> Signed:
    """A signed TRANSFER that spends `inputs`, pairs of a transaction and an output's index."""
    spent = [(source.tx if isinstance(source, Signed) else source, index) for source, index in inputs]
    prepared = prepare_transfer(inputs=spent, recipients=recipients, asset_id=asset_id, metadata=metadata)
    return signed(prepared, keypairs, form=form)


def signed(prepared: Mapping[str, Any], keypairs: Sequence[KeyPair], *, form: Form = Form.PYTHON) -> Signed:
    """Sign and verify a prepared transaction."""
    tx = sign(prepared, keypairs, form=form)
    verified = verify(encode_python(tx))
    return Signed(tx, verified.body, verified)


def rehashed(tx: Mapping[str, Any], *, form: Form = Form.PYTHON) -> bytes:
    """`tx`, whatever it is by now, with the id that is right for it: a stranger without keys can do that."""
    text = encode({**tx, "id": None}, form, floats=True)
    return encode({**tx, "id": sha3_256(text).hexdigest()}, form, floats=True)
