"""The app hash: the one value on which all validators must agree after a block. Pure."""

from hashlib import sha256

APP_HASH_VERSION = 1
STATE_ROOT_NONE = bytes(32)
"""In version 1 there is no tree over the state yet; this holds its place."""


def app_hash(log_root: bytes, state_root: bytes = STATE_ROOT_NONE) -> bytes:
    """SHA-256 of version (1 byte) ‖ log root (32 bytes) ‖ state root (32 bytes).

    A block that changes nothing leaves it as it was.
    """
    return sha256(bytes((APP_HASH_VERSION,)) + log_root + state_root).digest()
