"""The tree of RFC 6962 (section 2.1) over the log of committed transactions: append and root.

Pure: hashes go in, hashes come out. The frontier holds one hash for each complete subtree of the tree,
largest first (as many as the size has one-bits), which is all that appending and the root need.
"""

from collections.abc import Iterable
from hashlib import sha256
from struct import Struct as Packing

EMPTY_ROOT = sha256().digest()
"""Root of the tree without leaves (RFC 6962: the hash of nothing)."""

STORED_LEVEL_MIN = 8
"""Complete subtrees of 2**8 leaves and more are stored; what is below is recomputed from 256 leaves."""

LEAF_VERSION = 1
_LEAF = Packing(">BBQIQ32s").pack
_NODE_PREFIX = b"\x01"
_NODE_KEY = Packing(">BQ")
pack_node_key = _NODE_KEY.pack
"""Key of a stored subtree: its level, and its index among the subtrees of that level."""
unpack_node_key = _NODE_KEY.unpack

Frontier = tuple[bytes, ...]


def leaf_hash(height: int, position: int, time_ns: int, transaction_id: bytes) -> bytes:
    """Hash of 0x00 (RFC 6962) ‖ the leaf: version ‖ height ‖ position ‖ block time ‖ id, big-endian."""
    return sha256(_LEAF(0, LEAF_VERSION, height, position, time_ns, transaction_id)).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(_NODE_PREFIX + left + right).digest()


def append(
    size: int, frontier: Frontier, leaves: Iterable[bytes]
) -> tuple[Frontier, list[tuple[bytes, bytes]]]:
    """Append leaf hashes to a tree of `size` leaves.

    Returns the new frontier, and (key, hash) of every subtree of a stored level that became complete.
    """
    if len(frontier) != size.bit_count():
        raise ValueError(
            f"a tree of {size} leaves has {size.bit_count()} complete subtrees, not {len(frontier)}"
        )
    stack = list(frontier)
    completed: list[tuple[bytes, bytes]] = []
    for node in leaves:
        level, index = 0, size
        while index & 1:
            node = sha256(_NODE_PREFIX + stack.pop() + node).digest()
            index >>= 1
            level += 1
            if level >= STORED_LEVEL_MIN:
                completed.append((pack_node_key(level, index), node))
        stack.append(node)
        size += 1
    return tuple(stack), completed


def root(frontier: Frontier) -> bytes:
    """Root of the tree: its complete subtrees folded from the smallest to the largest."""
    if not frontier:
        return EMPTY_ROOT
    *larger, result = frontier
    for left in reversed(larger):
        result = node_hash(left, result)
    return result
