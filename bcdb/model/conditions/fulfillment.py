"""Fulfillments: signatures arranged so that they satisfy a condition, as text in a transaction's input.

The id of a transaction covers this text, but signatures do not. So a fulfillment is read only from the one
text that encoding it gives; this module must never accept another.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from msgspec import Struct

from bcdb.model import limits
from bcdb.model.conditions import base64url, der
from bcdb.model.conditions.condition import (
    ED25519_TAG,
    THRESHOLD_TAG,
    Condition,
    ed25519_condition,
    threshold_condition,
)
from bcdb.model.errors import InvalidSignature, LimitExceeded, ThresholdTooDeep
from bcdb.model.keys import encode_key, verify_signature

# Every Ed25519 fulfillment is 102 bytes: [4] { [0] key of 32 bytes, [1] signature of 64 bytes }.
_ED25519_BYTES = 102
_ED25519_CHARS = 136
_ED25519_PREFIX = b"\xa4\x64\x80\x20"
_SIGNATURE_PREFIX = b"\x81\x40"
_UNREADABLE = "Fulfillment URI couldn't been parsed"


class Ed25519Fulfillment(Struct, frozen=True, gc=False):
    """A key (32 bytes) and its signature (64 bytes)."""

    public_key: bytes
    signature: bytes

    @property
    def condition(self) -> Condition:
        return ed25519_condition(self.public_key)

    @property
    def uri(self) -> str:
        """The URI of the condition that this fulfils."""
        return ed25519_condition(self.public_key).uri

    def leaves(self) -> "list[Ed25519Fulfillment]":
        """The keys and signatures in the tree, repeats included."""
        return [self]

    def signers(self) -> list[str]:
        """The base58 keys that have signed, repeats included."""
        return [encode_key(self.public_key)]

    def signature_count(self) -> int:
        return 1

    def verify(self, message: bytes) -> bool:
        """Whether every signature is one of `message` (ZIP 215)."""
        return verify_signature(self.public_key, message, self.signature)

    def to_der(self) -> bytes:
        return _ED25519_PREFIX + self.public_key + _SIGNATURE_PREFIX + self.signature

    def encode(self) -> str:
        """The text that stands in a transaction."""
        return base64url.encode(self.to_der())


@dataclass(frozen=True, slots=True)
class ThresholdFulfillment:
    """As many subfulfillments as the threshold asks for, and the conditions of the rest; in any order."""

    fulfillments: "tuple[Fulfillment, ...]"
    conditions: tuple[Condition, ...]
    condition: Condition = field(init=False, compare=False, repr=False)
    _der: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # Sets: the order in which they were named is forgotten, so that what is equal compares equal.
        fulfillments = sorted(self.fulfillments, key=_to_der)
        conditions = sorted(self.conditions, key=Condition.to_der)
        subconditions = [fulfillment.condition for fulfillment in fulfillments] + conditions
        encoded = der.element(
            THRESHOLD_TAG,
            der.element(0xA0, b"".join(map(_to_der, fulfillments)))
            + der.element(0xA1, b"".join(map(Condition.to_der, conditions))),
        )
        object.__setattr__(self, "fulfillments", tuple(fulfillments))
        object.__setattr__(self, "conditions", tuple(conditions))
        object.__setattr__(self, "condition", threshold_condition(len(fulfillments), subconditions))
        object.__setattr__(self, "_der", encoded)

    @property
    def uri(self) -> str:
        """The URI of the condition that this fulfils."""
        return self.condition.uri

    def leaves(self) -> list[Ed25519Fulfillment]:
        """The keys and signatures in the tree, repeats included."""
        return [leaf for fulfillment in self.fulfillments for leaf in fulfillment.leaves()]

    def signers(self) -> list[str]:
        """The base58 keys that have signed, repeats included."""
        return [encode_key(leaf.public_key) for leaf in self.leaves()]

    def signature_count(self) -> int:
        return sum(fulfillment.signature_count() for fulfillment in self.fulfillments)

    def verify(self, message: bytes) -> bool:
        """Whether every signature is one of `message` (ZIP 215)."""
        return all(leaf.verify(message) for leaf in dict.fromkeys(self.leaves()))

    def to_der(self) -> bytes:
        return self._der

    def encode(self) -> str:
        """The text that stands in a transaction."""
        return base64url.encode(self.to_der())


Fulfillment: TypeAlias = Ed25519Fulfillment | ThresholdFulfillment


def _to_der(fulfillment: Fulfillment) -> bytes:
    return fulfillment.to_der()


def decode_fulfillment(text: str) -> Fulfillment:
    """Read a fulfillment; signatures are not verified.

    Raises InvalidSignature for a text that is not exactly what encoding the result gives, or in which one key
    has two different signatures (either could be put in the other's place); LimitExceeded and
    ThresholdTooDeep for one that is too large.
    """
    if len(text) > limits.FULFILLMENT_CHARS_MAX:
        raise LimitExceeded(
            f"A fulfillment has at most {limits.FULFILLMENT_CHARS_MAX} characters, not {len(text)}."
        )
    try:
        data = base64url.decode(text)
        if len(text) == _ED25519_CHARS and data[:4] == _ED25519_PREFIX:
            return _read_ed25519(data)
        fulfillment = _Reader(data).fulfillment(0, len(data), 0)
    except ValueError:
        raise InvalidSignature(_UNREADABLE) from None
    # Every step above is strict; this comparison is the rule itself.
    if fulfillment.encode() != text:
        raise InvalidSignature(_UNREADABLE)
    _refuse_two_signatures_of_one_key(fulfillment.leaves())
    return fulfillment


def _read_ed25519(data: bytes) -> Ed25519Fulfillment:
    if len(data) != _ED25519_BYTES or data[:4] != _ED25519_PREFIX or data[36:38] != _SIGNATURE_PREFIX:
        raise der.Malformed("not an Ed25519 key and signature")
    return Ed25519Fulfillment(data[4:36], data[38:])


class _Reader:
    """One pass over a fulfillment's DER that counts what it meets."""

    __slots__ = ("data", "nodes")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.nodes = 0

    def fulfillment(self, start: int, end: int, depth: int) -> Fulfillment:
        """Read the fulfillment that fills `start` to `end`, under `depth` thresholds."""
        self._count()
        tag, content, stop = der.read_header(self.data, start, end)
        if tag == ED25519_TAG:
            return _read_ed25519(self.data[start:end])
        if tag != THRESHOLD_TAG or stop != end:
            raise der.Malformed("not one ed25519 or threshold fulfillment")
        if depth >= limits.CONDITION_DEPTH_MAX:
            raise ThresholdTooDeep(
                f"Thresholds are nested {limits.CONDITION_DEPTH_MAX + 1} deep or more, "
                f"the limit is {limits.CONDITION_DEPTH_MAX}."
            )
        fulfilled, open_ = der.read_fields(self.data, content, stop, (0xA0, 0xA1))
        fulfillments = tuple(
            self.fulfillment(*bounds, depth + 1) for bounds in der.read_set(self.data, *fulfilled)
        )
        conditions = tuple(self._condition(*bounds) for bounds in der.read_set(self.data, *open_))
        if not fulfillments:
            raise der.Malformed("a threshold without a subfulfillment")
        if len(fulfillments) > limits.THRESHOLD_MAX:
            raise LimitExceeded(f"A threshold is at most {limits.THRESHOLD_MAX}, not {len(fulfillments)}.")
        return ThresholdFulfillment(fulfillments, conditions)

    def _condition(self, start: int, end: int) -> Condition:
        self._count()
        return Condition.from_der(self.data, start, end)

    def _count(self) -> None:
        self.nodes += 1
        if self.nodes > limits.CONDITION_NODES_MAX:
            raise LimitExceeded(
                f"A fulfillment has {limits.CONDITION_NODES_MAX + 1} nodes or more, "
                f"the limit is {limits.CONDITION_NODES_MAX}."
            )


def _refuse_two_signatures_of_one_key(leaves: Iterable[Ed25519Fulfillment]) -> None:
    signatures: dict[bytes, bytes] = {}
    for leaf in leaves:
        if signatures.setdefault(leaf.public_key, leaf.signature) != leaf.signature:
            raise InvalidSignature(
                f"The key {encode_key(leaf.public_key)} has two different signatures in one fulfillment."
            )
