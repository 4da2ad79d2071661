"""Crypto-conditions: what locks an output, and what opens it (draft-thomas-crypto-conditions-03).

Keys (ed25519-sha-256) and thresholds over them (threshold-sha-256); no other type. Pure and strict: a
condition, a fulfillment and a URI each have one spelling, and nothing else is ever read.
"""

from bcdb.model.conditions.condition import Condition
from bcdb.model.conditions.details import (
    Details,
    condition_of,
    ed25519_details,
    issuer_details,
    threshold_details,
)
from bcdb.model.conditions.fulfillment import (
    Ed25519Fulfillment,
    Fulfillment,
    ThresholdFulfillment,
    decode_fulfillment,
)
from bcdb.model.conditions.signing import sign_fulfillment

__all__ = [
    "Condition",
    "Details",
    "Ed25519Fulfillment",
    "Fulfillment",
    "ThresholdFulfillment",
    "condition_of",
    "decode_fulfillment",
    "ed25519_details",
    "issuer_details",
    "sign_fulfillment",
    "threshold_details",
]
