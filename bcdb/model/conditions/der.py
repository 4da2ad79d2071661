"""The part of DER (ITU-T X.690, sections 8, 10 and 11) that crypto-conditions use, read and written.

One value has one encoding: lengths and integers are minimal, lengths definite, tags of one byte, sets sorted.
Whatever else is read raises `Malformed`; this module must never repair it.
"""

from collections.abc import Iterable, Iterator

SEQUENCE = 0x30


class Malformed(ValueError):
    """The bytes are not the DER of what was expected."""


def element(tag: int, content: bytes) -> bytes:
    """Tag (one byte), length and `content`."""
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def set_of(elements: Iterable[bytes]) -> bytes:
    """The content of a SET OF: the encoded elements in ascending order of their bytes (X.690, 11.6)."""
    return b"".join(sorted(elements))


def unsigned(value: int) -> bytes:
    """The content of an INTEGER >= 0: two's complement in as few bytes as can be."""
    return value.to_bytes(value.bit_length() // 8 + 1, "big")


def read_unsigned(content: bytes) -> int:
    """The value of an INTEGER's content. Raises Malformed for a negative or not minimal one."""
    if not content or content[0] >= 0x80 or (len(content) > 1 and content[0] == 0 and content[1] < 0x80):
        raise Malformed("an integer is negative or not minimal")
    return int.from_bytes(content, "big")


def read_header(data: bytes, start: int, end: int) -> tuple[int, int, int]:
    """Tag, and the bounds of the content, of the element that begins at `start` and must end by `end`."""
    if end - start < 2:
        raise Malformed("an element is cut short")
    tag, length, content = data[start], data[start + 1], start + 2
    if tag & 0x1F == 0x1F:
        raise Malformed("a tag of several bytes")
    if length >= 0x80:
        octets = length - 0x80
        # Four octets hold every length that a transaction can have.
        if not 1 <= octets <= 4 or end - content < octets:
            raise Malformed("a length is indefinite, too long or cut short")
        length = int.from_bytes(data[content : content + octets], "big")
        if length < 0x80 or data[content] == 0:
            raise Malformed("a length is not minimal")
        content += octets
    if length > end - content:
        raise Malformed("an element is longer than what holds it")
    return tag, content, content + length


def read_fields(data: bytes, start: int, end: int, tags: Iterable[int]) -> list[tuple[int, int]]:
    """Content bounds of the elements with just these tags, in this order, that fill `start` to `end`."""
    bounds = []
    for expected in tags:
        tag, content, stop = read_header(data, start, end)
        if tag != expected:
            raise Malformed(f"tag {tag:#04x} stands where {expected:#04x} belongs")
        bounds.append((content, stop))
        start = stop
    if start != end:
        raise Malformed("bytes are left over")
    return bounds


def read_set(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Bounds (tag and length included) of the elements of a SET OF. Raises Malformed unless sorted."""
    before = b""
    while start < end:
        _, _, stop = read_header(data, start, end)
        encoded = data[start:stop]
        if encoded < before:
            raise Malformed("the elements of a set are not sorted")
        yield start, stop
        before, start = encoded, stop
