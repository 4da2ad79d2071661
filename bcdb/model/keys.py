"""Ed25519 keys as base58 text, signing, and the one rule by which a signature is valid.

A key has exactly one spelling here: what decodes to 32 bytes and encodes back to the same text. This module
must never accept a second one, and never keep or print a private key beyond the object that holds it.
"""

import secrets
from functools import lru_cache

import based58
import msgspec
from ed25519_zebra import (  # type: ignore[import-untyped]
    ed_public_from_secret,
    ed_sign,
    ed_verify,
)

from bcdb.model import limits
from bcdb.model.errors import InvalidPrivateKey, InvalidPublicKey

KEY_BYTES = 32
KEY_CHARS_MIN = KEY_BYTES
"""Base58 writes a leading zero byte as one `1`, so 32 zero bytes are the shortest text."""
_ZERO_DIGIT = ord("1")
_KEYS_CACHED = 16_384


@lru_cache(maxsize=_KEYS_CACHED)
def encode_key(raw: bytes) -> str:
    """The base58 text (Bitcoin alphabet, 32 to 44 characters) of a public key of 32 bytes."""
    if len(raw) != KEY_BYTES:
        raise InvalidPublicKey(f"A public key has {KEY_BYTES} bytes, not {len(raw)}.")
    return based58.b58encode(raw).decode("ascii")


@lru_cache(maxsize=_KEYS_CACHED)
def decode_key(text: str) -> bytes:
    """The 32 bytes of a public key in base58. Raises InvalidPublicKey for anything but their one spelling.

    That the bytes are a point of the curve is not asked: what is none can own, but never spend. Keys of small
    order, for which anybody can sign, are allowed too, as ZIP 215 does.
    """
    raw = _decode(text)
    if raw is None:
        raise InvalidPublicKey(
            f"Invalid base58 ed25519 key: {_shown(text)} is not the base58 form of 32 bytes."
        )
    return raw


def verify_signature(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) of `message` is by `key` (32 bytes), after ZIP 215 as CometBFT does it.

    Bytes of any other length and keys that are not on the curve make it False; nothing is raised.
    """
    valid: bool = ed_verify(signature, message, key)
    return valid


class KeyPair(msgspec.Struct, frozen=True):
    """A public key and its private key, both base58. The private key is the seed of RFC 8032, 32 bytes."""

    public_key: str
    private_key: str

    @classmethod
    def generate(cls) -> "KeyPair":
        """A new pair from the randomness of the operating system."""
        return cls.from_seed(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes) -> "KeyPair":
        """The pair of a seed of 32 bytes. Raises InvalidPrivateKey for another length."""
        if len(seed) != KEY_BYTES:
            raise InvalidPrivateKey(f"A private key has {KEY_BYTES} bytes, not {len(seed)}.")
        return cls(encode_key(ed_public_from_secret(seed)), based58.b58encode(seed).decode("ascii"))

    @classmethod
    def from_private_key(cls, text: str) -> "KeyPair":
        """The pair of a private key in base58. Raises InvalidPrivateKey, whose text does not show the key."""
        return cls.from_seed(_seed(text))

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`, 64 bytes: always the same one for the same message (RFC 8032)."""
        signature: bytes = ed_sign(_seed(self.private_key), message)
        return signature

    def __repr__(self) -> str:
        return f"KeyPair(public_key={self.public_key!r}, private_key=...)"


def _seed(text: str) -> bytes:
    seed = _decode(text)
    if seed is None:
        raise InvalidPrivateKey("A private key is the base58 form of 32 bytes; this text is not.")
    return seed


def _decode(text: str) -> bytes | None:
    if not KEY_CHARS_MIN <= len(text) <= limits.KEY_CHARS_MAX or not text.isascii():
        return None
    spelling = text.encode("ascii")
    try:
        raw = based58.b58decode(spelling)
    except ValueError:
        return None
    if len(raw) != KEY_BYTES:
        return None
    # The digits of a number are one to one; only zeros in front could be too many or too few.
    if raw[0] == 0 or spelling[0] == _ZERO_DIGIT:
        return raw if based58.b58encode(raw) == spelling else None
    return raw


def _shown(text: str) -> str:
    """`text` quoted and cut, so that a hostile megabyte does not travel into an answer."""
    return repr(text if len(text) <= limits.KEY_CHARS_MAX + 4 else text[: limits.KEY_CHARS_MAX] + "...")
