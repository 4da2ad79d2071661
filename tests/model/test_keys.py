"""Keys: one spelling each, the golden pairs, and a signature rule that never raises."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bcdb.model.errors import InvalidPrivateKey, InvalidPublicKey
from bcdb.model.keys import KeyPair, decode_key, encode_key, verify_signature
from tests.support.vectors import KEYS

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of the base point of Ed25519 (RFC 8032, 5.1)."""

alice = KeyPair.from_seed(bytes([7]) * 32)
raw_keys = st.binary(min_size=32, max_size=32)
zero_led_keys = st.integers(0, 32).flatmap(
    lambda zeros: st.binary(min_size=32 - zeros, max_size=32 - zeros).map(lambda rest: bytes(zeros) + rest)
)


@pytest.mark.parametrize("name", KEYS)
def test_golden_pairs(name: str) -> None:
    golden = KEYS[name]
    expected = KeyPair(golden["public_key"], golden["private_key"])
    assert KeyPair.from_seed(bytes.fromhex(golden["seed"])) == expected
    assert KeyPair.from_private_key(golden["private_key"]) == expected


@given(raw_keys | zero_led_keys)
def test_what_is_encoded_is_decoded(raw: bytes) -> None:
    text = encode_key(raw)
    assert 32 <= len(text) <= 44
    assert decode_key(text) == raw


@settings(max_examples=300)
@given(st.text() | st.text(ALPHABET, min_size=31, max_size=46) | st.text("1", max_size=60))
def test_a_text_is_refused_or_is_the_only_one(text: str) -> None:
    try:
        raw = decode_key(text)
    except InvalidPublicKey:
        return
    assert encode_key(raw) == text


@settings(max_examples=20)
@given(raw_keys | zero_led_keys)
def test_no_respelling_of_a_key_is_the_same_key(raw: bytes) -> None:
    text = encode_key(raw)
    respellings = {text.lower(), text.upper(), text.swapcase(), f" {text}", f"{text}\n", f"1{text}", text[1:]}
    for place in range(len(text) + 1):
        for character in ALPHABET + "0OIl+/-_ =":
            respellings.add(text[:place] + character + text[place:])
            respellings.add(text[:place] + character + text[place + 1 :])
    for respelt in respellings - {text}:
        try:
            assert decode_key(respelt) != raw
        except InvalidPublicKey:
            continue


@pytest.mark.parametrize("raw", [b"", bytes(31), bytes(33)])
def test_only_32_bytes_are_a_key(raw: bytes) -> None:
    with pytest.raises(InvalidPublicKey):
        encode_key(raw)
    with pytest.raises(InvalidPrivateKey):
        KeyPair.from_seed(raw)


def test_a_huge_text_is_refused_in_a_short_sentence() -> None:
    with pytest.raises(InvalidPublicKey, match=r"^Invalid base58 ed25519 key: 'zzz") as caught:
        decode_key("z" * 2**20)
    assert len(caught.value.text) < 200


@pytest.mark.parametrize("text", ["", "x", "0" * 44, alice.private_key + "1", alice.private_key + "é"])
def test_a_bad_private_key_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(InvalidPrivateKey) as caught:
        KeyPair.from_private_key(text)
    assert alice.private_key not in caught.value.text


def test_a_private_key_is_not_printed() -> None:
    assert alice.private_key not in f"{alice} {alice!r}"
    assert alice.public_key in repr(alice)


def test_generated_pairs_differ_and_sign() -> None:
    one, other = KeyPair.generate(), KeyPair.generate()
    assert one != other
    assert verify_signature(decode_key(one.public_key), b"message", one.sign(b"message"))
    assert not verify_signature(decode_key(other.public_key), b"message", one.sign(b"message"))


@settings(max_examples=100)
@given(raw_keys, st.binary(max_size=40), st.binary(min_size=64, max_size=64))
def test_a_made_up_signature_is_just_false(key: bytes, message: bytes, signature: bytes) -> None:
    assert verify_signature(decode_key(alice.public_key), message, signature) is False
    assert verify_signature(key, message, alice.sign(message)) is False


@pytest.mark.parametrize(("key", "signature"), [(31, 64), (33, 64), (0, 64), (32, 63), (32, 65), (32, 0)])
def test_other_lengths_are_just_false(key: int, signature: int) -> None:
    assert verify_signature(bytes(key), b"message", bytes(signature)) is False


@given(st.binary(max_size=100))
@settings(max_examples=30)
def test_a_signature_has_no_second_spelling(message: bytes) -> None:
    key, signature = decode_key(alice.public_key), alice.sign(message)
    assert verify_signature(key, message, signature)
    scalar = int.from_bytes(signature[32:], "little")
    for respelt in (scalar + ORDER, ORDER - scalar, scalar + 2**255):
        if respelt < 2**256:
            assert not verify_signature(key, message, signature[:32] + respelt.to_bytes(32, "little"))
    flipped = bytearray(signature)
    flipped[31] ^= 0x80
    assert not verify_signature(key, message, bytes(flipped))
