"""The transaction model: shapes, canonical JSON, crypto-conditions, keys and all rules that need no ledger.

Pure: nothing in this package does I/O or reads a clock. These are its public names.
"""

from bcdb.model.build import prepare_create, prepare_transfer, sign
from bcdb.model.canonical import Form
from bcdb.model.conditions import (
    Condition,
    Details,
    condition_of,
    ed25519_details,
    issuer_details,
    threshold_details,
)
from bcdb.model.errors import BcdbError, ValidationError
from bcdb.model.keys import KeyPair, decode_key, encode_key
from bcdb.model.transaction import NewOutput, Spend, Transaction, Verified
from bcdb.model.validation import verify, verify_canonical

__all__ = [
    "BcdbError",
    "Condition",
    "Details",
    "Form",
    "KeyPair",
    "NewOutput",
    "Spend",
    "Transaction",
    "ValidationError",
    "Verified",
    "condition_of",
    "decode_key",
    "ed25519_details",
    "encode_key",
    "issuer_details",
    "prepare_create",
    "prepare_transfer",
    "sign",
    "threshold_details",
    "verify",
    "verify_canonical",
]
