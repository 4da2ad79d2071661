"""The schema that all operations share, for the sentences of `bcdb.model.explain`.

Where the reference's own patterns are open at the ends or name the wrong alphabet, these are strict. What an
operation adds stands in its module in `bcdb.model.operations`.
"""

import re
from collections.abc import Sequence
from typing import Any

from bcdb.model import limits
from bcdb.model.explain import Schema

HEX_ID: Schema = {"pattern": re.compile("^[0-9a-f]{64}$"), "type": "string"}
NULL: Schema = {"type": "null"}

_KEY: Schema = {"pattern": re.compile("^[1-9A-HJ-NP-Za-km-z]{32,44}$"), "type": "string"}
_KEYS: Schema = {"type": "array", "minItems": 1, "items": _KEY}

_URI = re.compile(
    r"^ni:///sha-256;([a-zA-Z0-9_-]{0,86})[?]"
    r"(fpt=(ed25519|threshold)-sha-256(&)?|cost=[0-9]+(&)?|subtypes=ed25519-sha-256(&)?){2,3}$"
)


_ED25519 = "ed25519-sha-256"
_THRESHOLD = "threshold-sha-256"


def details(value: Any) -> Schema:
    """The schema of a condition's details, by the type that `value` says it has.

    The reference lists both as alternatives; then a fault in one is told as not being the other.
    """
    kind = value.get("type") if isinstance(value, dict) else None
    return _DETAILS.get(kind, _DETAILS_OF_NO_TYPE) if isinstance(kind, str) else _DETAILS_OF_NO_TYPE


_DETAILS: dict[str, Schema] = {
    _ED25519: {
        "type": "object",
        "additionalProperties": False,
        "required": ["type", "public_key"],
        "properties": {"type": {}, "public_key": _KEY},
    },
    _THRESHOLD: {
        "type": "object",
        "additionalProperties": False,
        "required": ["type", "threshold", "subconditions"],
        "properties": {
            "type": {},
            "threshold": {"type": "integer", "minimum": 1, "maximum": limits.THRESHOLD_MAX},
            "subconditions": {"type": "array", "items": details},
        },
    },
}
_DETAILS_OF_NO_TYPE: Schema = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"type": "string", "enum": list(_DETAILS)}},
}

LINK: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["output_index", "transaction_id"],
    "properties": {
        "output_index": {"type": "integer", "minimum": 0},
        "transaction_id": HEX_ID,
    },
}

_INPUT: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["owners_before", "fulfillment"],
    "properties": {
        "owners_before": _KEYS,
        "fulfillment": {"type": "string", "pattern": re.compile("^[a-zA-Z0-9_-]*$")},
        "fulfills": {"anyOf": [LINK, NULL]},
    },
}

_OUTPUT: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["amount", "condition", "public_keys"],
    "properties": {
        "amount": {"type": "string", "pattern": re.compile("^[0-9]{1,20}$")},
        "condition": {
            "type": "object",
            "additionalProperties": False,
            "required": ["details", "uri"],
            "properties": {
                "details": details,
                "uri": {"type": "string", "pattern": _URI},
            },
        },
        "public_keys": _KEYS,
    },
}


def common(operations: Sequence[str]) -> Schema:
    """The schema of every transaction, given the names of the operations there are."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["id", "inputs", "outputs", "operation", "metadata", "asset", "version"],
        "properties": {
            "id": {"anyOf": [HEX_ID, NULL]},
            "operation": {"type": "string", "enum": list(operations)},
            "asset": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"id": HEX_ID, "data": {"anyOf": [{"type": "object"}, NULL]}},
            },
            "inputs": {"type": "array", "items": _INPUT},
            "outputs": {"type": "array", "minItems": 1, "items": _OUTPUT},
            "metadata": {"anyOf": [{"type": "object", "minProperties": 1}, NULL]},
            "version": {"type": "string", "pattern": re.compile(r"^2\.0$")},
        },
    }
