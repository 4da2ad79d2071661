"""The appended tree against RFC 6962 as it is written down, and its stored subtrees."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bcdb.ledger import merkle


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, by its own recursion, over the hashes of the leaves."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + naive_root(leaves[:split]) + naive_root(leaves[split:])).digest()


def numbered(count: int) -> list[bytes]:
    return [sha256(b"\x00" + number.to_bytes(4, "big")).digest() for number in range(count)]


def test_the_known_roots_of_certificate_transparency() -> None:
    """The reference vectors that the implementations of RFC 6962 share: leaves "", 00, 10, 2021, ..."""
    data = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    leaves = [sha256(b"\x00" + bytes.fromhex(text)).digest() for text in data]
    frontier, _ = merkle.append(0, (), leaves)
    assert merkle.root(frontier).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    assert merkle.root(merkle.append(0, (), leaves[:1])[0]).hex() == (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )


def test_the_empty_tree() -> None:
    assert merkle.root(()) == sha256(b"").digest() == merkle.EMPTY_ROOT


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 70), max_size=8))
def test_appending_in_any_batches_gives_the_root_of_the_definition(batches: list[int]) -> None:
    leaves = numbered(sum(batches))
    size, frontier = 0, ()
    for batch in batches:
        frontier, _ = merkle.append(size, frontier, leaves[size : size + batch])
        size += batch
        assert merkle.root(frontier) == naive_root(leaves[:size])
        assert len(frontier) == size.bit_count()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=4))
def test_every_complete_subtree_of_a_stored_level_is_given_once(batches: list[int]) -> None:
    leaves = numbered(sum(batches))
    size, frontier = 0, ()
    stored: dict[bytes, bytes] = {}
    for batch in batches:
        frontier, completed = merkle.append(size, frontier, leaves[size : size + batch])
        assert not stored.keys() & {key for key, _ in completed}
        stored.update(completed)
        size += batch
    expected = {}
    level = merkle.STORED_LEVEL_MIN
    while size >> level:
        for index in range(size >> level):
            subtree = leaves[index << level : (index + 1) << level]
            expected[merkle.pack_node_key(level, index)] = naive_root(subtree)
        level += 1
    assert stored == expected


def test_a_leaf_is_version_height_position_time_and_id() -> None:
    written = b"\x00" + b"\x01" + (7).to_bytes(8, "big") + (3).to_bytes(4, "big") + (9).to_bytes(8, "big")
    assert merkle.leaf_hash(7, 3, 9, b"i" * 32) == sha256(written + b"i" * 32).digest()


def test_a_frontier_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="2 complete subtrees, not 1"):
        merkle.append(3, (bytes(32),), [])
