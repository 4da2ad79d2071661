"""Base64 with the URL alphabet and without padding (RFC 4648, section 5): one text for each bytes.

Lenient decoders skip foreign characters and ignore spare bits, which lets a stranger respell a fulfillment.
This module must never do so.
"""

from binascii import a2b_base64, b2a_base64

_TO_URL = bytes.maketrans(b"+/", b"-_")
# What belongs to the other alphabet, and padding, becomes a byte that the strict decoder refuses.
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/\xff\xff\xff")
_PADDING = (b"", None, b"==", b"=")


def encode(data: bytes) -> str:
    """The text of `data`, 4 characters for every 3 bytes, without `=`."""
    return b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """The bytes of `text`. Raises ValueError unless `text` is just what `encode` makes of them."""
    spare = len(text) % 4
    padding = _PADDING[spare]
    if padding is None:
        raise ValueError("a base64 text has not 4k + 1 characters")
    data = a2b_base64(text.encode("ascii").translate(_FROM_URL) + padding, strict_mode=True)
    if spare and encode(data) != text:
        raise ValueError("the last base64 character has spare bits set")
    return data
