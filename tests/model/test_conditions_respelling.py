"""No second spelling of a fulfillment: one text is read, and no stranger can make another."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bcdb.model import limits
from bcdb.model.conditions import (
    Condition,
    Details,
    Ed25519Fulfillment,
    Fulfillment,
    ThresholdFulfillment,
    condition_of,
    decode_fulfillment,
    ed25519_details,
    sign_fulfillment,
    threshold_details,
)
from bcdb.model.errors import InvalidSignature, LimitExceeded, ThresholdTooDeep, ValidationError
from bcdb.model.keys import decode_key
from tests.model.respelling import ALPHABET, padded, respelt_bytes, respelt_texts, unpadded
from tests.model.trees import BY_KEY, PAIRS, every_fulfillment, signatures_in, trees
from tests.support.vectors import CONDITIONS, MESSAGE, TRANSACTIONS

UNREADABLE = "Fulfillment URI couldn't been parsed"
GOLDEN = {golden["name"]: golden["fulfillment"] for golden in CONDITIONS}
LEAVES = [ed25519_details(pair.public_key) for pair in PAIRS]
ORDER = 2**252 + 27742317777372353535851937790883648493


def assert_not_a_twin(text: str, original: Fulfillment) -> None:
    """`text` is refused, or is the one spelling of something that does not open the same condition."""
    try:
        read = decode_fulfillment(text)
    except ValidationError:
        return
    assert read.encode() == text
    assert read.uri != original.uri or not read.verify(MESSAGE)


@pytest.mark.parametrize("golden", TRANSACTIONS, ids=lambda golden: golden["name"])
def test_golden_fulfillments_of_transactions(golden: dict[str, object]) -> None:
    transaction, digests = golden["transaction"], golden["digests"]
    assert isinstance(transaction, dict)
    assert isinstance(digests, list)
    for item, digest in zip(transaction["inputs"], digests, strict=True):
        fulfillment = decode_fulfillment(item["fulfillment"])
        assert fulfillment.encode() == item["fulfillment"]
        assert sorted(fulfillment.signers()) == sorted(item["owners_before"])
        assert fulfillment.signature_count() == len(item["owners_before"])
        assert fulfillment.verify(bytes.fromhex(digest))
        assert not fulfillment.verify(MESSAGE)


@pytest.mark.parametrize("golden", CONDITIONS, ids=lambda golden: golden["name"])
def test_golden_fulfillments_of_conditions(golden: dict[str, str]) -> None:
    fulfillment = decode_fulfillment(golden["fulfillment"])
    assert fulfillment.encode() == golden["fulfillment"]
    assert fulfillment.uri == fulfillment.condition.uri == golden["uri"]
    assert fulfillment.verify(MESSAGE)
    assert not fulfillment.verify(MESSAGE[::-1])


@pytest.mark.parametrize("text", GOLDEN.values(), ids=GOLDEN.keys())
def test_no_other_der_is_read(text: str) -> None:
    original = decode_fulfillment(text)
    count = 0
    for data in respelt_bytes(padded(text)):
        if data != padded(text):
            count += 1
            assert_not_a_twin(unpadded(data), original)
    assert count > 100


@pytest.mark.parametrize("text", GOLDEN.values(), ids=GOLDEN.keys())
def test_no_other_base64_is_read(text: str) -> None:
    for respelt in respelt_texts(text):
        if respelt != text:
            with pytest.raises(InvalidSignature, match=UNREADABLE):
                decode_fulfillment(respelt)


def test_no_other_character_anywhere_will_do() -> None:
    text = GOLDEN["one key"]
    original = decode_fulfillment(text)
    for place in range(len(text)):
        for character in ALPHABET.replace(text[place], "") + "+/=":
            assert_not_a_twin(text[:place] + character + text[place + 1 :], original)


@pytest.mark.parametrize("name", ["2 of 3", "nested", "a key twice"])
def test_no_other_case_anywhere_will_do(name: str) -> None:
    text = GOLDEN[name]
    original = decode_fulfillment(text)
    assert_not_a_twin(text.upper(), original)
    assert_not_a_twin(text.lower(), original)
    for place in range(len(text)):
        swapped = text[:place] + text[place].swapcase() + text[place + 1 :]
        if swapped != text:
            assert_not_a_twin(swapped, original)
        assert_not_a_twin(text[:place] + text[place + 1 :], original)


def element(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    length = len(content)
    head = bytes([length]) if length < 128 else b"\x82" + length.to_bytes(2, "big")
    return bytes([tag]) + (head if length < 128 or length > 255 else bytes([129, length])) + content


def test_what_only_looks_like_a_fulfillment_is_refused() -> None:
    leaf = padded(GOLDEN["one key"])
    condition = condition_of(LEAVES[5])[0].to_der()
    key, signature = leaf[4:36], leaf[38:]
    for data in (
        b"",
        b"\0",
        b"\xa2\0",
        element(0xA2, b"\xa0\0", b"\xa1\0"),
        element(0xA2, b"\xa0\0", element(0xA1, condition)),
        element(0xA2, element(0xA0, leaf)),
        element(0xA2, b"\xa1\0", element(0xA0, leaf)),
        element(0xA2, element(0xA0, leaf), b"\xa1\0", b"\xa1\0"),
        element(0xA2, element(0xA0, leaf), element(0xA1, leaf)),
        element(0xA2, element(0xA0, condition), b"\xa1\0"),
        element(0xA0, element(0x80, b"preimage")),
        element(0xA4, element(0x80, key), element(0x81, signature[:-1])),
        element(0xA4, element(0x80, key[:-1]), element(0x81, signature, b"\0")),
        element(0xA4, element(0x81, signature), element(0x80, key)),
        condition,
    ):
        with pytest.raises(InvalidSignature, match=UNREADABLE):
            decode_fulfillment(unpadded(data))


def condition_der(
    *, cost: bytes, tag: int = 0xA4, subtypes: bytes = b"", fingerprint: bytes = bytes(32)
) -> bytes:
    return element(tag, element(0x80, fingerprint), element(0x81, cost), subtypes)


@pytest.mark.parametrize(
    "condition",
    [
        condition_der(cost=b"\2\0\1"),
        condition_der(cost=b"\0\2\0\0"),
        condition_der(cost=b""),
        condition_der(cost=b"\xfe\0\0"),
        condition_der(cost=b"\2\0\0", subtypes=b"\x82\2\3\x08"),
        condition_der(cost=b"\2\0\0", fingerprint=bytes(31)),
        condition_der(cost=b"\2\0\0", tag=0xA3),
        condition_der(cost=b"\2\4\0", tag=0xA2),
        condition_der(cost=b"\2\4\0", tag=0xA2, subtypes=b"\x82\1\0"),
        condition_der(cost=b"\2\4\0", tag=0xA2, subtypes=b"\x82\2\3\x28"),
        condition_der(cost=b"\1\0\0\0\0", tag=0xA2, subtypes=b"\x82\2\3\x08"),
        condition_der(cost=b"\1" + bytes(40), tag=0xA2, subtypes=b"\x82\2\3\x08"),
    ],
)
def test_odd_conditions_beside_a_fulfillment_are_refused(condition: bytes) -> None:
    leaf = padded(GOLDEN["one key"])
    with pytest.raises(InvalidSignature, match=UNREADABLE):
        decode_fulfillment(unpadded(element(0xA2, element(0xA0, leaf), element(0xA1, condition))))


def test_a_surplus_subfulfillment_is_another_condition() -> None:
    details = threshold_details(2, LEAVES[:3])
    every = sign_fulfillment(threshold_details(3, LEAVES[:3]), MESSAGE, BY_KEY)
    assert decode_fulfillment(every.encode()).uri != condition_of(details)[0].uri


def test_one_key_signs_in_one_way() -> None:
    fulfillment = sign_fulfillment(threshold_details(2, [LEAVES[0]] * 2), MESSAGE, BY_KEY)
    assert decode_fulfillment(fulfillment.encode()).verify(MESSAGE)
    assert isinstance(fulfillment, ThresholdFulfillment)
    first = fulfillment.leaves()[0]
    other = Ed25519Fulfillment(first.public_key, first.signature[::-1])
    with pytest.raises(InvalidSignature, match="two different signatures"):
        decode_fulfillment(ThresholdFulfillment((first, other), ()).encode())


def test_a_signature_with_a_larger_scalar_is_wrong() -> None:
    leaf = sign_fulfillment(LEAVES[0], MESSAGE, BY_KEY).leaves()[0]
    scalar = int.from_bytes(leaf.signature[32:], "little") + ORDER
    twin = Ed25519Fulfillment(leaf.public_key, leaf.signature[:32] + scalar.to_bytes(32, "little"))
    assert twin.uri == leaf.uri
    assert not twin.verify(MESSAGE)


@given(trees(), st.sets(st.sampled_from(PAIRS), min_size=1))
@settings(max_examples=100, deadline=None)
def test_a_stranger_can_only_repeat_a_fulfillment_with_distinct_keys(details: Details, signing: set) -> None:  # type: ignore[type-arg]
    pairs = {pair.public_key: pair for pair in signing}
    try:
        seen = sign_fulfillment(details, MESSAGE, pairs)
    except InvalidSignature:
        return
    made = {fulfillment.encode() for fulfillment in every_fulfillment(details, signatures_in([seen]))}
    assert made == {seen.encode()}


@given(trees(distinct=False))
@settings(max_examples=60, deadline=None)
def test_a_stranger_can_only_repeat_a_fulfillment_with_repeated_keys(details: Details) -> None:
    seen = sign_fulfillment(details, MESSAGE, BY_KEY)
    made = {fulfillment.encode() for fulfillment in every_fulfillment(details, signatures_in([seen]))}
    assert made == {seen.encode()}


def test_order_of_members_is_forgotten() -> None:
    parts = [sign_fulfillment(leaf, MESSAGE, BY_KEY) for leaf in LEAVES[:3]]
    rest = [condition_of(leaf)[0] for leaf in LEAVES[3:6]]
    one = ThresholdFulfillment(tuple(parts), tuple(rest))
    other = ThresholdFulfillment(tuple(parts[::-1]), tuple(rest[::-1]))
    assert one == other
    assert one.encode() == other.encode()


def wrapped(fulfillment: Fulfillment, times: int) -> Fulfillment:
    for _ in range(times):
        fulfillment = ThresholdFulfillment((fulfillment,), ())
    return fulfillment


def many(fulfilled: int, rest: int) -> str:
    leaf = Ed25519Fulfillment(decode_key(PAIRS[0].public_key), bytes(64))
    return ThresholdFulfillment((leaf,) * fulfilled, (leaf.condition,) * rest).encode()


def test_limits_are_named() -> None:
    leaf = sign_fulfillment(LEAVES[0], MESSAGE, BY_KEY)
    decode_fulfillment(wrapped(leaf, limits.CONDITION_DEPTH_MAX).encode())
    with pytest.raises(ThresholdTooDeep):
        decode_fulfillment(wrapped(leaf, limits.CONDITION_DEPTH_MAX + 1).encode())
    decode_fulfillment(many(limits.THRESHOLD_MAX, 10))
    with pytest.raises(LimitExceeded, match="at most 100, not 101"):
        decode_fulfillment(many(limits.THRESHOLD_MAX + 1, 0))
    decode_fulfillment(many(1, limits.CONDITION_NODES_MAX - 2))
    with pytest.raises(LimitExceeded, match="1001 nodes or more"):
        decode_fulfillment(many(1, limits.CONDITION_NODES_MAX - 1))
    with pytest.raises(LimitExceeded, match=f"not {limits.FULFILLMENT_CHARS_MAX + 1}"):
        decode_fulfillment("A" * (limits.FULFILLMENT_CHARS_MAX + 1))


@given(st.text() | st.text(ALPHABET) | st.binary(max_size=300).map(unpadded))
@settings(max_examples=300)
def test_any_text_is_a_fulfillment_or_refused(text: str) -> None:
    try:
        assert decode_fulfillment(text).encode() == text
    except ValidationError:
        return


@given(st.sampled_from(sorted(GOLDEN.values())), st.data())
@settings(max_examples=300)
def test_damaged_fulfillments_are_refused_or_something_else(text: str, data: st.DataObject) -> None:
    damaged = bytearray(padded(text))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(damaged) - 1, 60)))
        damaged[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        damaged = damaged or bytearray(b"\0")
    respelt = unpadded(bytes(damaged))
    if respelt != text:
        assert_not_a_twin(respelt, decode_fulfillment(text))


def test_a_condition_reads_its_own_der() -> None:
    for golden in CONDITIONS:
        condition = Condition.from_uri(golden["uri"])
        der = condition.to_der()
        assert Condition.from_der(b"x" + der + b"y", 1, len(der) + 1) == condition
