"""Making a fulfillment: which keys sign, and what stands in for those that do not.

The result is minimal, as the other side demands: no signature more than the thresholds ask for.
"""

from collections.abc import Mapping

from msgspec import UNSET

from bcdb.model.conditions.details import Details, condition_of
from bcdb.model.conditions.fulfillment import Ed25519Fulfillment, Fulfillment, ThresholdFulfillment
from bcdb.model.errors import InvalidSignature
from bcdb.model.keys import KeyPair, decode_key


def sign_fulfillment(details: Details, message: bytes, keypairs: Mapping[str, KeyPair]) -> Fulfillment:
    """Fulfil the condition of `details` with signatures of `message` (32 bytes in a transaction).

    `keypairs` is by base58 public key. An m-of-n threshold takes the first m subconditions that the keys can
    fulfil. Raises InvalidSignature when they do not suffice, and what `condition_of` raises.
    """
    _, keys = condition_of(details)
    fulfillment = _fulfil(details, message, keypairs)
    if fulfillment is None:
        missing = [key for key in keys if key not in keypairs]
        raise InvalidSignature(
            f"The private keys do not suffice to sign; there is none for {', '.join(missing)}."
        )
    return fulfillment


def _fulfil(details: Details, message: bytes, keypairs: Mapping[str, KeyPair]) -> Fulfillment | None:
    if details.public_key is not UNSET:
        keypair = keypairs.get(details.public_key)
        if keypair is None:
            return None
        return Ed25519Fulfillment(decode_key(details.public_key), keypair.sign(message))
    assert details.subconditions is not UNSET
    assert details.threshold is not UNSET
    fulfilled: list[Fulfillment] = []
    rest = []
    for node in details.subconditions:
        made = _fulfil(node, message, keypairs) if len(fulfilled) < details.threshold else None
        if made is None:
            rest.append(condition_of(node)[0])
        else:
            fulfilled.append(made)
    return (
        ThresholdFulfillment(tuple(fulfilled), tuple(rest)) if len(fulfilled) == details.threshold else None
    )
