"""Bundles: one spelling, one signature, one chain, and bounds that hold for any bytes."""

import hashlib
import tracemalloc
import zlib
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bcdb.ledger.bundle import (
    ENVELOPE_BYTES_MAX,
    ITEM_OVERHEAD_BYTES,
    SIGNATURE_BYTES,
    decode_bundle,
    encode_bundle,
    opened_bytes,
    peek_submitter,
)
from bcdb.model import limits
from bcdb.model.errors import BundleError
from bcdb.model.keys import KeyPair, decode_key

PAIR = KeyPair.from_seed(b"b" * 32)
KEY = decode_key(PAIR.public_key)
CHAIN = "test-chain"


def bundle(*transactions: bytes, chain: str = CHAIN) -> bytes:
    return encode_bundle(chain, KEY, transactions, PAIR.sign)


def packed(value: object) -> bytes:
    made: bytes = msgpack.packb(value)
    return made


def signed(fields: Any) -> bytes:
    """Any content with a good signature over it, the way `encode_bundle` signs."""
    unsigned = msgpack.packb([*fields, bytes(SIGNATURE_BYTES)])[:-SIGNATURE_BYTES]
    return unsigned + PAIR.sign(b"bcdb bundle 1\0" + hashlib.sha256(unsigned).digest())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=2_000), min_size=1, max_size=20))
def test_what_goes_in_comes_out(transactions: list[bytes]) -> None:
    raw = bundle(*transactions)
    found = decode_bundle(raw, CHAIN)
    assert found.transactions == tuple(transactions)
    assert (found.chain_id, found.submitter) == (CHAIN, KEY)
    size = sum(len(body) + ITEM_OVERHEAD_BYTES for body in transactions)
    assert len(raw) <= size + ENVELOPE_BYTES_MAX


def test_the_envelope_bound_holds_for_the_longest_chain_id() -> None:
    raw = bundle(b"", chain="\U0001f512" * limits.CHAIN_ID_CHARS_MAX)
    assert len(raw) <= ENVELOPE_BYTES_MAX


def test_the_largest_transaction_fits() -> None:
    body = bytes(limits.TRANSACTION_BYTES_MAX)
    assert decode_bundle(bundle(body), CHAIN).transactions == (body,)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_with_a_bundle_error(raw: bytes) -> None:
    with pytest.raises(BundleError):
        decode_bundle(raw, CHAIN)


@settings(max_examples=200, deadline=None)
@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_no_byte_can_be_changed(at: int, change: int) -> None:
    raw = bytearray(bundle(b"one", b"two"))
    raw[at % len(raw)] ^= change
    with pytest.raises(BundleError):
        decode_bundle(bytes(raw), CHAIN)


@settings(max_examples=30, deadline=None)
@given(st.integers(min_value=0), st.binary(min_size=1, max_size=5))
def test_nothing_can_be_cut_or_added(at: int, more: bytes) -> None:
    raw = bundle(b"one", b"two")
    for changed in (raw[: at % len(raw)], raw + more, more + raw):
        with pytest.raises(BundleError):
            decode_bundle(changed, CHAIN)


def test_another_chain_is_refused() -> None:
    with pytest.raises(BundleError, match="other"):
        decode_bundle(bundle(b"one", chain="other"), CHAIN)


@pytest.mark.parametrize(
    "fields",
    [
        (2, CHAIN, KEY, 0, 0, packed([b"one"])),
        (True, CHAIN, KEY, 0, 0, packed([b"one"])),
        (1.0, CHAIN, KEY, 0, 0, packed([b"one"])),
        (1, CHAIN.encode(), KEY, 0, 0, packed([b"one"])),
        (1, CHAIN, KEY[:31], 0, 0, packed([b"one"])),
        (1, CHAIN, KEY.hex(), 0, 0, packed([b"one"])),
        (1, CHAIN, KEY, 128, 0, packed([b"one"])),
        (1, CHAIN, KEY, -1, 0, packed([b"one"])),
        (1, CHAIN, KEY, False, 0, packed([b"one"])),
        (1, CHAIN, KEY, 0, 2, packed([b"one"])),
        (1, CHAIN, KEY, 0, False, packed([b"one"])),
        (1, CHAIN, KEY, 0, 1, packed([b"one"])),
        (1, CHAIN, KEY, 0, 0, [b"one"]),
        (1, CHAIN, KEY, 0, 0, packed([])),
        (1, CHAIN, KEY, 0, 0, packed(["one"])),
        (1, CHAIN, KEY, 0, 0, packed([None])),
        (1, CHAIN, KEY, 0, 0, packed(b"one")),
        (1, CHAIN, KEY, 0, 0, packed([[b"one"]])),
        (1, CHAIN, KEY, 0, 0, packed({})),
        (1, CHAIN, KEY, 0, 0, b""),
        (1, CHAIN, KEY, 0, 0, packed([b"one"]) + b"\0"),
        (1, CHAIN, KEY, 0, packed([b"one"])),
        (1, CHAIN, KEY, 0, 0),
        (1, CHAIN, KEY, 0, 0, packed([b"one"]), None),
    ],
)
def test_signed_content_of_another_shape_is_refused(fields: Any) -> None:
    with pytest.raises(BundleError):
        decode_bundle(signed(fields), CHAIN)


def test_the_helper_above_signs_as_the_code_does() -> None:
    assert signed((1, CHAIN, KEY, 0, 0, packed([b"one"]))) == bundle(b"one")


def test_a_longer_spelling_of_the_same_content_is_refused() -> None:
    with pytest.raises(BundleError, match="spelt"):
        decode_bundle(signed((1, CHAIN, KEY, 0, 0, b"\x91\xc5\x00\x03one")), CHAIN)
    raw = bundle(b"one")
    at = raw.index(b"\xc4" + bytes([len(packed([b"one"]))]))
    unsigned = raw[:at] + b"\xc5\x00" + raw[at + 1 : -SIGNATURE_BYTES]
    respelt = unsigned + PAIR.sign(b"bcdb bundle 1\0" + hashlib.sha256(unsigned).digest())
    assert msgpack.unpackb(respelt)[:6] == msgpack.unpackb(raw)[:6]
    with pytest.raises(BundleError, match="spelt"):
        decode_bundle(respelt, CHAIN)


def test_somebody_elses_signature_is_refused() -> None:
    other = KeyPair.from_seed(b"o" * 32)
    with pytest.raises(BundleError, match="signature"):
        decode_bundle(encode_bundle(CHAIN, KEY, [b"one"], other.sign), CHAIN)


def test_the_bounds_hold_when_making_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUNDLE_TRANSACTIONS_MAX", 2)
    with pytest.raises(BundleError):
        bundle()
    with pytest.raises(BundleError):
        bundle(b"1", b"2", b"3")
    monkeypatch.setattr(limits, "BUNDLE_BYTES_MAX", ENVELOPE_BYTES_MAX + 300)
    bundle(bytes(200))
    with pytest.raises(BundleError):
        bundle(bytes(300))


def test_the_bounds_hold_when_reading_one(monkeypatch: pytest.MonkeyPatch) -> None:
    many, big = bundle(b"1", b"2", b"3"), bundle(bytes(2_000))
    monkeypatch.setattr(limits, "BUNDLE_TRANSACTIONS_MAX", 2)
    monkeypatch.setattr(limits, "TRANSACTION_BYTES_MAX", 1_999)
    for raw in (many, big):
        with pytest.raises(BundleError):
            decode_bundle(raw, CHAIN)
    monkeypatch.setattr(limits, "BUNDLE_BYTES_MAX", 100)
    with pytest.raises(BundleError, match="100"):
        decode_bundle(big, CHAIN)


def test_a_huge_announced_length_takes_no_memory() -> None:
    with pytest.raises(BundleError):
        decode_bundle(b"\x97\x01\xdb\xff\xff\xff\xff", CHAIN)
    with pytest.raises(BundleError):
        decode_bundle(b"\xdd\xff\xff\xff\xff", CHAIN)


def test_the_attempt_makes_other_bytes_of_the_same_content() -> None:
    first, second = (encode_bundle(CHAIN, KEY, [b"one"], PAIR.sign, attempt=number) for number in (0, 1))
    assert first != second
    assert decode_bundle(second, CHAIN).attempt == 1
    assert decode_bundle(second, CHAIN).transactions == decode_bundle(first, CHAIN).transactions


def test_the_submitter_is_known_from_the_first_bytes() -> None:
    raw = bundle(b"one")
    assert peek_submitter(raw[:60], CHAIN) == KEY
    for wrong in (b"", raw[:20], b"\x95" + raw[1:], bundle(b"one", chain="other"), b"\x97" * 100):
        with pytest.raises(BundleError):
            peek_submitter(wrong, CHAIN)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=500), min_size=1, max_size=20), st.integers(min_value=1, max_value=20))
def test_compressed_it_is_the_same_and_never_longer(transactions: list[bytes], times: int) -> None:
    bodies = transactions * times
    plain = encode_bundle(CHAIN, KEY, bodies, PAIR.sign)
    small = encode_bundle(CHAIN, KEY, bodies, PAIR.sign, compress=True)
    assert len(small) <= len(plain)
    assert decode_bundle(small, CHAIN) == decode_bundle(plain, CHAIN)
    assert opened_bytes(small, bodies) >= sum(map(len, bodies))


def test_a_transaction_that_can_not_be_compressed_fits_too() -> None:
    body = hashlib.shake_256(b"noise").digest(limits.TRANSACTION_BYTES_MAX)
    raw = encode_bundle(CHAIN, KEY, [body], PAIR.sign, compress=True)
    assert decode_bundle(raw, CHAIN).transactions == (body,)


def zipped(content: bytes) -> bytes:
    return signed((1, CHAIN, KEY, 0, 1, content))


def test_a_stream_that_swells_is_not_followed_beyond_the_bound() -> None:
    bomb = zlib.compress(bytes(256 * 1024 * 1024), 1)
    assert len(bomb) < limits.BUNDLE_BYTES_MAX
    tracemalloc.start()
    with pytest.raises(BundleError, match="one zlib stream"):
        decode_bundle(zipped(bomb), CHAIN)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * limits.BUNDLE_BYTES_MAX


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"\x78",
        zlib.compress(packed([b"one"]), 1)[:-1],
        zlib.compress(packed([b"one"]), 1) + b"\0",
        zlib.compress(packed([b"one"]), 1) * 2,
        zlib.compress(packed([b"one"]) + b"\0", 1),
        zlib.compress(b"", 1),
        zlib.compress(packed([b"one"]), 9),
        b"\x78\x01" + zlib.compress(packed([b"one"]), 1)[2:-1] + b"\0",
    ],
)
def test_what_is_not_one_whole_stream(stream: bytes) -> None:
    with pytest.raises(BundleError):
        decode_bundle(zipped(stream), CHAIN)


def test_nothing_is_opened_before_the_signature_is_known_to_be_good(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = bytearray(encode_bundle(CHAIN, KEY, [b"one" * 100], PAIR.sign, compress=True))
    raw[-1] ^= 1
    monkeypatch.setattr("bcdb.ledger.bundle._inflate", lambda stream: pytest.fail("it was opened"))
    with pytest.raises(BundleError, match="signature"):
        decode_bundle(bytes(raw), CHAIN)
