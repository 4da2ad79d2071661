"""Other spellings of DER and base64url: what a lenient decoder would take for the same.

The reader here is a plain one of its own, so that it does not share a fault with what is tested.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def unpadded(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def padded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Node:
    """An element of DER: a tag with either bytes or elements in it."""

    tag: int
    content: "bytes | list[Node]"

    def encode(self) -> bytes:
        content = _content(self)
        return bytes([self.tag]) + minimal_length(len(content)) + content


def minimal_length(length: int) -> bytes:
    if length < 128:
        return bytes([length])
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([128 + len(octets)]) + octets


def read(data: bytes) -> list[Node]:
    """The elements of minimal DER, one after the other."""
    nodes = []
    while data:
        tag, length, skipped = data[0], data[1], 2
        if length >= 128:
            skipped += length - 128
            length = int.from_bytes(data[2:skipped], "big")
        content = data[skipped : skipped + length]
        nodes.append(Node(tag, read(content) if tag & 0x20 else content))
        data = data[skipped + length :]
    return nodes


def respelt_bytes(data: bytes) -> Iterator[bytes]:
    """Other encodings that mean, to somebody, the same as `data`; changed in one place each."""
    (root,) = read(data)
    assert root.encode() == data
    yield from variants(root)
    for extra in (b"\0", b"\0\0", b"\xa1\0", data):
        yield data + extra
        yield extra + data
    for cut in range(len(data)):
        yield data[:cut]


def variants(node: Node) -> Iterator[bytes]:
    """Encodings of `node` with one thing changed at some depth."""
    content = _content(node)
    tag, length = bytes([node.tag]), len(content)
    for octets in (1, 2, 3, 4, 5, 8, 126):
        if length < 256**octets and (length < 128 or octets > len(minimal_length(length)) - 1):
            yield tag + bytes([128 + octets]) + length.to_bytes(octets, "big") + content
    yield tag + b"\x80" + content + b"\0\0"
    yield bytes([node.tag | 0x1F, node.tag & 0x1F]) + minimal_length(length) + content
    yield bytes([node.tag ^ 0x20]) + minimal_length(length) + content
    for tail in (b"\0", b"\0\0", b"\x80\0", b"\xa1\0"):
        yield tag + minimal_length(length + len(tail)) + content + tail
        yield tag + minimal_length(length + len(tail)) + tail + content
    if isinstance(node.content, bytes):
        yield from _respelt_primitive(node)
        return
    members = node.content
    for order in [*_orders(len(members)), *_without_or_twice(len(members))]:
        yield Node(node.tag, [members[place] for place in order]).encode()
    for place, member in enumerate(members):
        before = b"".join(map(Node.encode, members[:place]))
        after = b"".join(map(Node.encode, members[place + 1 :]))
        for variant in variants(member):
            inner = before + variant + after
            yield tag + minimal_length(len(inner)) + inner


def _content(node: Node) -> bytes:
    return node.content if isinstance(node.content, bytes) else b"".join(map(Node.encode, node.content))


def _respelt_primitive(node: Node) -> Iterator[bytes]:
    assert isinstance(node.content, bytes)
    yield Node(node.tag, b"").encode()
    for front in (b"\0", b"\0\0", b"\xff"):
        yield Node(node.tag, front + node.content).encode()
    if len(node.content) == 2:
        # A bit string: other counts of unused bits, and zeros at the end.
        for content in (
            b"\0\x08",
            b"\2\x08",
            b"\3\x0f",
            b"\4\x08",
            b"\3\x08\0",
            b"\0\x08\0",
            b"\3\x28",
            b"\x0b\x08",
        ):
            yield Node(node.tag, content).encode()


def _orders(count: int) -> Iterator[tuple[int, ...]]:
    if count <= 4:
        yield from list(permutations(range(count)))[1:]
    else:
        for place in range(count - 1):
            order = list(range(count))
            order[place : place + 2] = [place + 1, place]
            yield tuple(order)


def _without_or_twice(count: int) -> Iterator[list[int]]:
    for place in range(count):
        yield [*range(place), *range(place + 1, count)]
        yield sorted([*range(count), place])


def respelt_texts(text: str) -> Iterator[str]:
    """Other base64 texts that lenient decoders read as the same bytes."""
    yield from (text + "=" * count for count in range(1, 5))
    yield text.replace("-", "+")
    yield text.replace("_", "/")
    yield text.replace("-", "+").replace("_", "/")
    yield "cf:" + text
    for place in (0, 1, len(text) // 2, len(text) - 1, len(text)):
        for junk in ("\n", " ", "\t", "\0", "!", "=", "\r\n", "é", "\ud800"):
            yield text[:place] + junk + text[place:]
    for place, character in enumerate(text):
        yield text[:place] + f"%{ord(character):02x}" + text[place + 1 :]
    spare = {0: 1, 2: 16, 3: 4}[len(text) % 4]
    number = ALPHABET.index(text[-1])
    for bits in range(1, spare):
        yield text[:-1] + ALPHABET[number + bits]
