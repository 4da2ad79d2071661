"""The codecs under the conditions: every value has one encoding, and nothing but it is read."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bcdb.model.conditions import base64url, der
from tests.model.respelling import ALPHABET, respelt_texts, unpadded


def base64_or_none(text: str) -> bytes | None:
    try:
        return base64url.decode(text)
    except ValueError:
        return None


@given(st.binary(max_size=200))
def test_base64url_is_one_to_one(data: bytes) -> None:
    text = base64url.encode(data)
    assert text == unpadded(data)
    assert base64url.decode(text) == data
    for respelt in respelt_texts(text) if text else ():
        if respelt != text:
            assert base64_or_none(respelt) is None


@given(st.text(ALPHABET + "+/=") | st.text())
def test_base64url_reads_only_what_it_writes(text: str) -> None:
    data = base64_or_none(text)
    assert data is None or base64url.encode(data) == text


@given(st.integers(0, 2**80))
def test_integers(value: int) -> None:
    content = der.unsigned(value)
    assert der.read_unsigned(content) == value
    assert len(content) == max(1, (value.bit_length() + 8) // 8)


@pytest.mark.parametrize("content", [b"", b"\0\0", b"\0\x7f", b"\x80", b"\xff\xff"])
def test_integers_that_are_negative_or_too_long(content: bytes) -> None:
    with pytest.raises(der.Malformed):
        der.read_unsigned(content)


@pytest.mark.parametrize("length", [0, 1, 127, 128, 255, 256, 65535, 65536, 2**20])
def test_lengths(length: int) -> None:
    data = der.element(0x80, bytes(length))
    tag, start, stop = der.read_header(data, 0, len(data))
    assert (tag, stop - start, stop) == (0x80, length, len(data))
    with pytest.raises(der.Malformed):
        der.read_header(data, 0, len(data) - 1)


@given(st.binary(max_size=12))
@settings(max_examples=300)
def test_a_header_is_refused_or_minimal(data: bytes) -> None:
    try:
        tag, start, stop = der.read_header(data, 0, len(data))
    except der.Malformed:
        return
    assert der.element(tag, data[start:stop]) == data[:stop]


@given(st.lists(st.binary(max_size=5).map(lambda content: der.element(0x80, content)), max_size=6))
def test_sets_are_read_in_one_order(elements: list[bytes]) -> None:
    data = der.set_of(elements)
    assert [data[start:stop] for start, stop in der.read_set(data, 0, len(data))] == sorted(elements)
    unsorted = b"".join(elements)
    if unsorted != data:
        with pytest.raises(der.Malformed):
            list(der.read_set(unsorted, 0, len(unsorted)))


FIELDS = der.element(0x80, b"one") + der.element(0x81, b"two")


def test_fields_in_their_order() -> None:
    bounds = der.read_fields(FIELDS, 0, len(FIELDS), (0x80, 0x81))
    assert [FIELDS[start:stop] for start, stop in bounds] == [b"one", b"two"]


@pytest.mark.parametrize(
    ("data", "tags", "reason"),
    [
        (FIELDS, (0x80,), "left over"),
        (FIELDS, (0x81, 0x80), "stands where"),
        (FIELDS, (0x80, 0x81, 0x82), "cut short"),
        (FIELDS[:-1], (0x80, 0x81), "longer than what holds it"),
    ],
)
def test_other_fields_are_refused(data: bytes, tags: tuple[int, ...], reason: str) -> None:
    with pytest.raises(der.Malformed, match=reason):
        der.read_fields(data, 0, len(data), tags)
