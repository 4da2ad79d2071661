"""The two keys of a CometBFT node, in CometBFT's JSON: who the node is to its peers, and what it votes with.

Ed25519 only, raw keys of 32 bytes. What is read is checked to be whole: a key file that somebody has edited
must not begin to sign as somebody else.
"""

import base64
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consensus.engine import EngineError

SEED_BYTES = 32
PUBLIC_BYTES = 32
ADDRESS_BYTES = 20
PRIVATE_TYPE = "tendermint/PrivKeyEd25519"
PUBLIC_TYPE = "tendermint/PubKeyEd25519"


class HomeError(EngineError):
    """The home of a CometBFT node is not as it must be, or can't be written."""


@dataclass(frozen=True, slots=True)
class Key:
    """An Ed25519 key pair. `seed` is the secret part, 32 bytes."""

    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise HomeError(f"A key is made from {SEED_BYTES} bytes, not from {len(self.seed)}")

    @staticmethod
    def generate() -> "Key":
        return Key(Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def public(self) -> bytes:
        """32 bytes."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()

    @property
    def address(self) -> bytes:
        return address(self.public)

    @property
    def id(self) -> str:
        """The name by which peers know a node that has this key: 40 hex digits."""
        return node_id(self.public)


def address(public_key: bytes) -> bytes:
    """The first 20 bytes of the SHA-256 of a key, by which CometBFT names validators and nodes."""
    return hashlib.sha256(public_key).digest()[:ADDRESS_BYTES]


def node_id(public_key: bytes) -> str:
    """A node's name among its peers: 40 hex digits, small ones."""
    return address(public_key).hex()


def public_json(public_key: bytes) -> dict[str, str]:
    return {"type": PUBLIC_TYPE, "value": base64.b64encode(public_key).decode()}


def node_key_file(key: Key) -> bytes:
    """The content of `node_key.json`."""
    return _file({"priv_key": _private_json(key)})


def validator_key_file(key: Key) -> bytes:
    """The content of `priv_validator_key.json`."""
    return _file(
        {
            "address": key.address.hex().upper(),
            "pub_key": public_json(key.public),
            "priv_key": _private_json(key),
        }
    )


def validator_state_file() -> bytes:
    """The content of `priv_validator_state.json` of a validator that has never signed."""
    return _file({"height": "0", "round": 0, "step": 0})


def read_key(path: Path) -> Key | None:
    """The key of `node_key.json` or `priv_validator_key.json`; None if there is no such file.

    Raises `HomeError` for anything else that is there.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HomeError(f"{path} can't be read: {error.strerror}") from error
    try:
        private = msgspec.json.decode(content, type=_KeyFile).priv_key
        pair = base64.b64decode(private.value, validate=True)
    except (msgspec.MsgspecError, ValueError) as error:
        raise HomeError(f"{path} is no key file of CometBFT") from error
    if private.type != PRIVATE_TYPE or len(pair) != SEED_BYTES + PUBLIC_BYTES:
        raise HomeError(f"{path} holds a key of type {private.type[:64]!r}; {PRIVATE_TYPE} is needed")
    key = Key(pair[:SEED_BYTES])
    if key.public != pair[SEED_BYTES:]:
        raise HomeError(f"The two halves of the key in {path} do not belong together")
    return key


class _Private(msgspec.Struct):
    type: str
    value: str


class _KeyFile(msgspec.Struct):
    priv_key: _Private


def _private_json(key: Key) -> dict[str, str]:
    return {"type": PRIVATE_TYPE, "value": base64.b64encode(key.seed + key.public).decode()}


def _file(content: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
