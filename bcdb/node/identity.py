"""The node's own key: made once, kept in a file of the node's folder, and used to sign bundles and
checkpoints.

The private key never leaves this process and its file.
"""

from pathlib import Path

from bcdb.model.keys import KeyPair, decode_key
from bcdb.node.keyfile import KeyFileError, read_key_file, write_key_file


def ensure_node_key(path: Path) -> KeyPair:
    """The key pair in the file at `path`, which is made (mode 0600) when there is none. Raises
    `KeyFileError`.

    An existing file that can't be used is an error and never replaced: a node that changes its key is another
    one.
    """
    if not path.exists():
        try:
            write_key_file(path, KeyPair.generate())
        except KeyFileError:
            if not path.exists():
                raise
    return read_key_file(path)


class NodeSigner:
    """A key pair as `consensus.engine.Signer`."""

    def __init__(self, pair: KeyPair) -> None:
        self._pair = pair
        self._public_key = decode_key(pair.public_key)

    @property
    def public_key(self) -> bytes:
        return self._public_key

    def sign(self, message: bytes) -> bytes:
        return self._pair.sign(message)
