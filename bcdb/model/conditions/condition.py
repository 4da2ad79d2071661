"""A crypto-condition: the fingerprint that an output is locked with, its URI and its DER.

Source: draft-thomas-crypto-conditions-03, restricted to ed25519-sha-256 and threshold-sha-256. A condition
has one URI; this module must never accept another spelling of it.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Literal

from msgspec import Struct
from msgspec.structs import force_setattr

from bcdb.model import limits
from bcdb.model.conditions import base64url, der
from bcdb.model.errors import InvalidCondition

ConditionType = Literal["ed25519-sha-256", "threshold-sha-256"]
ED25519: Literal["ed25519-sha-256"] = "ed25519-sha-256"
THRESHOLD: Literal["threshold-sha-256"] = "threshold-sha-256"
ED25519_COST = 131_072
THRESHOLD_COST_PER_SUBCONDITION = 1_024
COST_MAX = 2**32 - 1
FINGERPRINT_BYTES = 32

# Tags of the CHOICE, for conditions and fulfillments alike: context-specific, constructed, [2] and [4].
THRESHOLD_TAG = 0xA2
ED25519_TAG = 0xA4

_SUBTYPES: dict[str, tuple[str, ...]] = {ED25519: (), THRESHOLD: (ED25519,)}
"""A threshold never lists itself, so with these two types there is one possible list each."""
# ConditionTypes is a BIT STRING with named bits, 4 = ed25519: three unused bits, then 00001.
_SUBTYPES_DER = b"\x82\x02\x03\x08"
_ED25519_FINGERPRINT_PREFIX = b"\x30\x22\x80\x20"
_CONDITIONS_CACHED = 16_384
_URI = re.compile(
    r"ni:///sha-256;([A-Za-z0-9_-]{43})\?fpt=(ed25519-sha-256|threshold-sha-256)&cost=([0-9]{1,10})"
    r"(?:&subtypes=ed25519-sha-256)?"
)


class Condition(Struct, frozen=True, gc=False):
    """Type, SHA-256 fingerprint (32 bytes), cost, and the other types that a fulfillment may contain.

    `uri` follows from these, whatever is given for it:
    `ni:///sha-256;<fingerprint>?fpt=<type>&cost=<cost>[&subtypes=<types>]`, a name after RFC 6920.
    """

    type: ConditionType
    fingerprint: bytes
    cost: int
    subtypes: tuple[str, ...]
    uri: str = ""

    def __post_init__(self) -> None:
        uri = f"ni:///sha-256;{base64url.encode(self.fingerprint)}?fpt={self.type}&cost={self.cost}"
        if self.subtypes:
            uri += "&subtypes=" + ",".join(sorted(self.subtypes))
        force_setattr(self, "uri", uri)

    @classmethod
    def from_uri(cls, text: str) -> "Condition":
        """Read a URI. Raises InvalidCondition for all but its one spelling."""
        match = _URI.fullmatch(text)
        if match is None:
            raise InvalidCondition(f"{_shown(text)} is not the URI of an ed25519 or threshold condition.")
        kind = _condition_type(match[2])
        try:
            condition = _checked(kind, base64url.decode(match[1]), int(match[3]))
        except ValueError as error:
            raise InvalidCondition(f"{_shown(text)} is not the URI of a condition: {error}.") from None
        if condition.uri != text:
            raise InvalidCondition(f"The condition URI {_shown(text)} must be spelt {condition.uri}.")
        return condition

    @classmethod
    def from_der(cls, data: bytes, start: int, end: int) -> "Condition":
        """Read the condition that fills `start` to `end` of `data`. Raises der.Malformed."""
        tag, content, stop = der.read_header(data, start, end)
        if stop != end or tag not in (ED25519_TAG, THRESHOLD_TAG):
            raise der.Malformed("not one ed25519 or threshold condition")
        kind = ED25519 if tag == ED25519_TAG else THRESHOLD
        if kind == THRESHOLD:
            stop -= len(_SUBTYPES_DER)
            if data[max(stop, content) : end] != _SUBTYPES_DER:
                raise der.Malformed("a threshold condition has other subtypes than ed25519")
        fingerprint, cost = der.read_fields(data, content, stop, (0x80, 0x81))
        return _checked(kind, data[slice(*fingerprint)], der.read_unsigned(data[slice(*cost)]))

    def to_der(self) -> bytes:
        """The DER of the condition, as it stands in a threshold's fingerprint or fulfillment."""
        fields = der.element(0x80, self.fingerprint) + der.element(0x81, der.unsigned(self.cost))
        if self.type == ED25519:
            return der.element(ED25519_TAG, fields)
        return der.element(THRESHOLD_TAG, fields + _SUBTYPES_DER)


@lru_cache(maxsize=_CONDITIONS_CACHED)
def ed25519_condition(public_key: bytes) -> Condition:
    """The condition that one key of 32 bytes fulfils by signing."""
    return Condition(ED25519, sha256(_ED25519_FINGERPRINT_PREFIX + public_key).digest(), ED25519_COST, ())


def threshold_condition(threshold: int, subconditions: Sequence[Condition]) -> Condition:
    """The condition that is fulfilled once `threshold` of the subconditions are, in any order."""
    fingerprint = der.element(
        der.SEQUENCE,
        der.element(0x80, der.unsigned(threshold))
        + der.element(0xA1, der.set_of(subcondition.to_der() for subcondition in subconditions)),
    )
    dearest = sorted((subcondition.cost for subcondition in subconditions), reverse=True)[:threshold]
    cost = sum(dearest) + THRESHOLD_COST_PER_SUBCONDITION * len(subconditions)
    return Condition(THRESHOLD, sha256(fingerprint).digest(), cost, _SUBTYPES[THRESHOLD])


def _checked(kind: ConditionType, fingerprint: bytes, cost: int) -> Condition:
    if len(fingerprint) != FINGERPRINT_BYTES:
        raise der.Malformed(f"a fingerprint has {FINGERPRINT_BYTES} bytes, not {len(fingerprint)}")
    if cost > COST_MAX or (kind == ED25519 and cost != ED25519_COST):
        raise der.Malformed(f"a condition of type {kind} can't cost {cost}")
    return Condition(kind, fingerprint, cost, _SUBTYPES[kind])


def _condition_type(text: str) -> ConditionType:
    return ED25519 if text == ED25519 else THRESHOLD


def _shown(text: str) -> str:
    return repr(text if len(text) <= limits.CONDITION_URI_CHARS_MAX else text[:80] + "...")
