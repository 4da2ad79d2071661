"""Key pairs in files: the node's own key and the keys that people sign with.

A key file is JSON, `{"public_key": ..., "private_key": ...}` in base58, and readable by its owner alone; a
file that others can read is refused. Nothing here prints or logs a private key.
"""

import os
from pathlib import Path

import msgspec

from bcdb.model.errors import BcdbError
from bcdb.model.keys import KeyPair

KEY_FILE_BYTES_MAX = 4096


class KeyFileError(BcdbError):
    """A key file is missing, open to others, or holds no key pair."""


class _KeyFile(msgspec.Struct, forbid_unknown_fields=True):
    public_key: str
    private_key: str


def read_key_file(path: Path) -> KeyPair:
    """The key pair in the file at `path`. Raises `KeyFileError`."""
    try:
        with path.open("rb") as file:
            open_to_others = os.fstat(file.fileno()).st_mode & 0o077
            content = file.read(KEY_FILE_BYTES_MAX)
    except OSError as error:
        raise KeyFileError(f"The key file {path} can't be read: {error.strerror}.") from None
    if open_to_others:
        raise KeyFileError(f"The key file {path} is open to other users; run: chmod 600 {path}")
    try:
        found = msgspec.json.decode(content, type=_KeyFile)
        pair = KeyPair.from_private_key(found.private_key)
    except (msgspec.MsgspecError, UnicodeDecodeError, BcdbError):
        raise KeyFileError(f"The file {path} holds no key pair, as `bcdb keys new` makes them.") from None
    if pair.public_key != found.public_key:
        raise KeyFileError(f"The public key in {path} does not belong to the private key beside it.")
    return pair


def write_key_file(path: Path, pair: KeyPair) -> None:
    """Make the file at `path`, mode 0600; an existing one is never overwritten. Raises `KeyFileError`."""
    content = msgspec.json.encode(_KeyFile(public_key=pair.public_key, private_key=pair.private_key))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content + b"\n")
                file.flush()
                os.fsync(file.fileno())
            # A link never replaces a file, and a crash before it leaves no half a key.
            os.link(temporary, path)
        finally:
            temporary.unlink()
    except FileExistsError:
        raise KeyFileError(f"{path} exists already and is not overwritten.") from None
    except OSError as error:
        raise KeyFileError(f"The key file {path} can't be written: {error.strerror}.") from None
