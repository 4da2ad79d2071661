"""How documents stand in MongoDB: the `_id` made of a document's place, and values as BSON can hold them.

Nearly all JSON values are stored as they are. Keys that mean something to MongoDB are escaped, and a value
that BSON can't hold at all is kept as its JSON text. Both ways lead back to exactly the value there was, and
no value may stop the projector.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from struct import Struct as Packing
from struct import error as PackingError
from typing import Any

import msgspec
from bson import DatetimeMS
from bson.codec_options import CodecOptions, DatetimeConversion

from query.documents import Place
from query.filters import LANGUAGES

PACKINGS = {
    "transactions": Packing(">QI"),
    "assets": Packing(">QI"),
    "metadata": Packing(">QI"),
    "outputs": Packing(">QII"),
    "blocks": Packing(">Q"),
}
"""How the `_id` of each collection is packed, so that its order is the order of commitment."""
HEIGHT_MAX = 2**63 - 1

DEPTH_MAX = 100
"""MongoDB takes 200, with what is around the value."""
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1
JSON_KEY = "%json"
"""The only key of the object that stands for a value which is kept as JSON text. No escaped key is so."""
LANGUAGE_KEY = "language"
"""MongoDB's text index reads a language from here, and refuses a document with one that it does not know."""
LANGUAGE_KEY_ESCAPED = "%6Canguage"

CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    document_class=dict,
    # What somebody has put there behind our back must not be an error in the driver.
    unicode_decode_error_handler="replace",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    tz_aware=True,
    tzinfo=UTC,
)

_KEY_CARE = re.compile(r"[.%\0]|^\$")
_ESCAPED = re.compile("%([0-9A-F]{2})")
_DOTTED_KEY = re.compile(rb'"[^".%]*+[.%][^"]*+":')
_ASTRAL = re.compile(rb"[\xf0-\xf4]")


# --- places -----------------------------------------------------------------------------------------------


def id_of(collection: str, place: Place) -> bytes:
    """The `_id` of the document at a place."""
    if collection == "outputs":
        return PACKINGS["outputs"].pack(place.height, place.position, place.index)
    if collection == "blocks":
        return PACKINGS["blocks"].pack(place.height)
    return PACKINGS[collection].pack(place.height, place.position)


def place_of(collection: str, identifier: Any) -> Place | None:
    """The place that an `_id` stands for, None if none does."""
    if type(identifier) is not bytes:
        return None
    try:
        return Place(*PACKINGS[collection].unpack(identifier))
    except PackingError:
        return None


def first_id(collection: str, height: int) -> bytes:
    """The lowest `_id` that a document of this height or above can have."""
    return id_of(collection, Place(min(max(height, 0), HEIGHT_MAX + 1)))


# --- keys and values --------------------------------------------------------------------------------------


def encode_key(key: str) -> str:
    """The stored name of a key: without dots, NULs and a leading dollar sign, never empty."""
    if not key:
        return "%"
    if _KEY_CARE.search(key) is None:
        return key
    return _KEY_CARE.sub(lambda found: f"%{ord(found[0]):02X}", key)


def decode_key(key: str) -> str:
    """The key that `encode_key` made `key` of."""
    if "%" not in key:
        return key
    return "" if key == "%" else _ESCAPED.sub(lambda found: chr(int(found[1], 16)), key)


def needs_care(body: bytes) -> bool:
    """Whether the value of this compact JSON text may not be stored as it is; it may be told of others too.

    Looks at bytes only, in time linear in them. Integers are not looked at: the driver refuses long ones.
    """
    return (
        b"\\" in body  # Some escape: whatever it is, a key may have it.
        or b'"$' in body
        or b'"":' in body
        or b'"language":' in body
        or ((b"." in body or b"%" in body) and _DOTTED_KEY.search(body) is not None)
        # JavaScript has another order of keys with characters beyond U+FFFF.
        or (not body.isascii() and _ASTRAL.search(body) is not None)
        or body.count(b"{") + body.count(b"[") > DEPTH_MAX
    )


def encode(value: Any, body: bytes) -> Any:
    """What is stored for `value`, whose JSON text is `body`, when that needs care."""
    try:
        return _encoded(value, 1)
    except _Unfit:
        return boxed(body)


def boxed(body: bytes) -> dict[str, Any]:
    """What is stored for a value that MongoDB does not take, or does not index: nothing in it is found."""
    return {JSON_KEY: body}


class _Unfit(Exception):
    """BSON can't hold the value."""


def _encoded(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is dict or kind is list:
        if depth > DEPTH_MAX:
            raise _Unfit
        if kind is list:
            return [_encoded(item, depth + 1) for item in value]
        # Objects are equal in MongoDB if their keys also stand in the same order.
        return {_encoded_key(key, value[key]): _encoded(value[key], depth + 1) for key in sorted(value)}
    if kind is int and not INTEGER_MIN <= value <= INTEGER_MAX:
        raise _Unfit
    return value


def _encoded_key(key: str, value: Any) -> str:
    if key == LANGUAGE_KEY and not (type(value) is str and value in LANGUAGES):
        return LANGUAGE_KEY_ESCAPED
    return encode_key(key)


def decode(value: Any) -> Any:
    """The value that was stored as `value`, at whatever depth something in it was escaped."""
    kind = type(value)
    if kind is dict:
        if len(value) == 1 and type(body := value.get(JSON_KEY)) is bytes:
            try:
                return msgspec.json.decode(body)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                return value
        return {decode_key(key): decode(item) for key, item in value.items()}
    if kind is list:
        return [decode(item) for item in value]
    return value


# --- answers ----------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """As JSON, what MongoDB has types for and JSON has not."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, DatetimeMS):
        # Beyond the years that a calendar has: milliseconds since 1970.
        return int(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


to_json = msgspec.json.Encoder(enc_hook=_plain).encode
"""A decoded document as JSON bytes."""
