"""Records come back as they were written, and damaged ones raise StoreError and nothing else."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bcdb.ledger import records
from bcdb.ledger.records import BlockRecord, Head, Rejection
from bcdb.model.errors import StoreError

heights = st.integers(0, 2**64 - 1)
hashes = st.binary(min_size=32, max_size=32)
short = st.binary(max_size=64)


@given(heights, heights, short, short, short, hashes, heights, st.lists(hashes, max_size=5))
def test_blocks(
    height: int,
    time_ns: int,
    proposer: bytes,
    block_hash: bytes,
    previous: bytes,
    app_hash: bytes,
    first_leaf: int,
    ids: list[bytes],
) -> None:
    block = BlockRecord(height, time_ns, proposer, block_hash, previous, app_hash, first_leaf, tuple(ids))
    value = records.encode_block(block)
    assert records.decode_block(height, value) == block
    assert records.decode_block_time(height, value) == time_ns


@given(heights, heights, short, hashes, heights, st.lists(hashes, max_size=5))
def test_heads(
    height: int, time_ns: int, block_hash: bytes, app_hash: bytes, size: int, frontier: list[bytes]
) -> None:
    head = Head(height, time_ns, block_hash, app_hash, size)
    assert records.decode_head(records.encode_head(head, tuple(frontier))) == (head, tuple(frontier))


@given(heights, st.text(max_size=60), st.text())
def test_rejections(height: int, name: str, text: str) -> None:
    rejection = Rejection(height, name, text)
    assert records.decode_rejection(records.encode_rejection(rejection)) == rejection


@given(st.integers(1, 9 * 10**18), hashes, heights, st.integers(0, 2**32 - 1), hashes)
def test_outputs(amount: int, asset_id: bytes, height: int, position: int, spender: bytes) -> None:
    keys = ("Alice", "Bob")
    fixed = records.pack_output(amount, asset_id, height, position, 0, records.ZERO_ID)
    record = fixed + records.ownership("ni:///c", keys)
    output = records.decode_output(record)
    assert output == records.OutputRecord(amount, asset_id, "ni:///c", keys, height, position, 0, None)
    spent = records.spend_output(record, 9, spender)
    assert records.decode_output(spent).spent_height == 9
    assert records.decode_output(spent).spent_by == spender
    assert records.unspent_output(spent) == record


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_store_error(value: bytes) -> None:
    for sealed in (value, records.seal(value)):
        for decode in (
            lambda raw: records.decode_block(1, raw),
            lambda raw: records.decode_block_time(1, raw),
            records.decode_head,
            records.decode_rejection,
            records.decode_output,
        ):
            with contextlib.suppress(StoreError):
                decode(sealed)


def test_a_flipped_bit_in_a_sealed_value_is_seen() -> None:
    value = records.seal(b"some payload")
    for position in range(len(value)):
        damaged = bytearray(value)
        damaged[position] ^= 1
        with pytest.raises(StoreError):
            records.unseal(bytes(damaged), "it")


@given(st.binary(min_size=1, max_size=40), st.integers(0, 2**63), st.integers(0, 2**32 - 1))
def test_the_end_of_a_prefix_is_after_all_its_places(prefix: bytes, height: int, position: int) -> None:
    assert prefix + records.pack_place(height, position) < records.prefix_end(prefix)
