"""The consensus transaction: many transactions of one submitter under one signature.

A bundle is a MessagePack array of version, chain id, submitter's raw key, attempt, packing, content and the
submitter's signature over everything before it. The content is a MessagePack array of transactions, as it is
(packing 0) or as a zlib stream (1). The attempt is 0 unless the same transactions were bundled in vain
before: an engine that has lost a bundle may still believe that it knows its bytes. Nobody but the submitter
can spell a bundle otherwise, and decoding never allocates more than its stated bounds, whatever the bytes.
What is inside the transactions is not looked at here.
"""

import hashlib
import zlib
from collections.abc import Callable, Sequence

import msgpack  # type: ignore[import-untyped]
from msgspec import Struct

from bcdb.model import limits
from bcdb.model.errors import BundleError
from bcdb.model.keys import verify_signature

VERSION = 1
KEY_BYTES = 32
SIGNATURE_BYTES = 64
ATTEMPT_MAX = 127
FIELDS_MAX = 16
"""Of an envelope; another version may have more than this one."""
PLAIN, ZLIB = 0, 1
ZLIB_LEVEL = 1
"""A network's transactions have much in common; higher levels take several times as long for a tenth less."""
ENVELOPE_BYTES_MAX = 2_048
"""Bytes of a bundle around its transactions, at most."""
ITEM_OVERHEAD_BYTES = 5
"""Bytes that MessagePack puts in front of one transaction, at most."""
ZLIB_RATIO_MAX = 16
"""What is opened may be so many times as long as it was on its way. Keys, ids and signatures keep real
bundles far below; more would only serve those who want to make others work."""
_ZLIB_HEAD = b"\x78\x01"
"""The widest window, no dictionary: with these no stream is left to the judgement of a version of zlib."""
_DOMAIN = b"bcdb bundle 1\0"
_NO_SIGNATURE = bytes(SIGNATURE_BYTES)


class UnknownVersion(BundleError):
    """It may be a bundle, of a version of bcdb that this one does not know."""


class Bundle(Struct, frozen=True):
    """A decoded bundle whose signature is good. `transactions` are bodies that nobody has verified yet."""

    chain_id: str
    submitter: bytes
    transactions: tuple[bytes, ...]
    attempt: int = 0


def opened_bytes(raw: bytes, transactions: Sequence[bytes]) -> int:
    """What counts as the size of a bundle, however small it is on its way: the same at every node."""
    return max(len(raw), sum(map(len, transactions)) + ITEM_OVERHEAD_BYTES * len(transactions))


def encode_bundle(
    chain_id: str,
    submitter: bytes,
    transactions: Sequence[bytes],
    sign: Callable[[bytes], bytes],
    *,
    attempt: int = 0,
    compress: bool = False,
) -> bytes:
    """Pack and sign. `submitter` is the raw key of `sign`, `attempt` 0 to `ATTEMPT_MAX`. Raises
    `BundleError` when a bound is passed."""
    _check_count(len(transactions))
    longest = max(map(len, transactions))
    if longest > limits.TRANSACTION_BYTES_MAX:
        limit = limits.TRANSACTION_BYTES_MAX
        raise BundleError(f"A transaction in a bundle may have {limit} bytes, this one has {longest}")
    content = _pack(transactions)
    _check_size(len(content))
    packing = PLAIN
    if compress:
        packed = zlib.compress(content, ZLIB_LEVEL)
        if len(packed) < len(content) <= ZLIB_RATIO_MAX * len(packed):
            content, packing = packed, ZLIB
    unsigned = _pack((VERSION, chain_id, submitter, attempt, packing, content, _NO_SIGNATURE))
    signed_part = memoryview(unsigned)[:-SIGNATURE_BYTES]
    return b"".join((signed_part, sign(_message(signed_part))))


def decode_bundle(raw: bytes, chain_id: str) -> Bundle:
    """Read the bundle of any hostile bytes. Raises `BundleError` for all that `encode_bundle` can't have
    made.

    Only what the submitter has signed is opened, so nobody else can make it cost something.
    """
    if len(raw) > limits.BUNDLE_BYTES_MAX:
        raise BundleError(f"A bundle may have {limits.BUNDLE_BYTES_MAX} bytes, this one has {len(raw)}")
    envelope = _envelope(raw)
    if envelope.chain_id != chain_id:
        raise BundleError(f"The bundle is of chain {envelope.chain_id!r}, this chain is {chain_id!r}")
    if _pack(envelope.fields)[:-SIGNATURE_BYTES] != raw[:-SIGNATURE_BYTES]:
        raise BundleError("The bundle is not spelt as its content has to be")
    message = _message(memoryview(raw)[:-SIGNATURE_BYTES])
    if not verify_signature(envelope.submitter, message, envelope.signature):
        raise BundleError("The submitter's signature is wrong")
    content = envelope.content if envelope.packing == PLAIN else _inflate(envelope.content)
    _check_size(len(content))
    transactions = _unpack(content, limits.TRANSACTION_BYTES_MAX, limits.BUNDLE_TRANSACTIONS_MAX)
    if not isinstance(transactions, tuple) or not all(isinstance(body, bytes) for body in transactions):
        raise BundleError("The content of a bundle is an array of byte strings")
    _check_count(len(transactions))
    if _pack(transactions) != content:
        raise BundleError("The content of the bundle is not spelt as it has to be")
    return Bundle(chain_id, envelope.submitter, transactions, envelope.attempt)


def peek_submitter(raw: bytes, chain_id: str) -> bytes:
    """Who claims to have sent these bytes, before anything that costs is done with them. Raises
    `BundleError`."""
    beginning = _beginning(chain_id)
    submitter = raw[len(beginning) : len(beginning) + KEY_BYTES]
    if not raw.startswith(beginning) or len(submitter) < KEY_BYTES:
        raise BundleError(f"These bytes do not begin as a bundle of chain {chain_id!r} does")
    return submitter


def _beginning(chain_id: str) -> bytes:
    """The bytes of every bundle of the chain up to the submitter's key."""
    return _pack((VERSION, chain_id, bytes(KEY_BYTES), 0, 0, 0, 0))[: -KEY_BYTES - 4]


class _Envelope(Struct, frozen=True):
    chain_id: str
    submitter: bytes
    attempt: int
    packing: int
    content: bytes
    signature: bytes

    @property
    def fields(self) -> tuple[object, ...]:
        return (
            VERSION,
            self.chain_id,
            self.submitter,
            self.attempt,
            self.packing,
            self.content,
            _NO_SIGNATURE,
        )


def _envelope(raw: bytes) -> _Envelope:
    fields = _unpack(raw, limits.BUNDLE_BYTES_MAX, FIELDS_MAX)
    match fields:
        case (int(version), *_) if version != VERSION:
            raise UnknownVersion(f"The bundle has version {version!r}, version {VERSION} was expected")
        case (
            int(version),
            str(chain_id),
            bytes(submitter),
            int(attempt),
            int(packing),
            bytes(content),
            bytes(signature),
        ):
            pass
        case _:
            raise BundleError(
                "A bundle is an array of version, chain id, submitter, attempt, packing, content, signature"
            )
    if isinstance(version, bool):
        raise BundleError(f"The version of a bundle is a number, not {version!r}")
    if len(submitter) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise BundleError(f"A submitter has {KEY_BYTES} bytes and a signature {SIGNATURE_BYTES}")
    if isinstance(attempt, bool) or not 0 <= attempt <= ATTEMPT_MAX:
        raise BundleError(f"The attempt of a bundle is 0 to {ATTEMPT_MAX}, not {attempt!r}")
    if isinstance(packing, bool) or packing not in (PLAIN, ZLIB):
        raise BundleError(f"The content of a bundle is packed as {PLAIN} or {ZLIB}, not {packing!r}")
    return _Envelope(chain_id, submitter, attempt, packing, content, signature)


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def _unpack(raw: bytes, bin_bytes_max: int, items_max: int) -> object:
    unpacker = msgpack.Unpacker(
        raw=False,
        use_list=False,
        max_buffer_size=limits.BUNDLE_BYTES_MAX,
        max_str_len=limits.CHAIN_ID_CHARS_MAX * 4,
        max_bin_len=bin_bytes_max,
        max_array_len=items_max,
        max_map_len=0,
        max_ext_len=0,
    )
    try:
        unpacker.feed(raw)
        return unpacker.unpack()
    except (msgpack.UnpackException, ValueError, RecursionError) as error:
        raise BundleError(f"The bundle is no MessagePack within its bounds: {error}") from error


def _inflate(stream: bytes) -> bytes:
    """The one zlib stream, whole and nothing behind it, as far as a bundle may go."""
    if stream[:2] != _ZLIB_HEAD:
        raise BundleError("The content of the bundle is no zlib stream of the kind that is used here")
    bytes_max = min(limits.BUNDLE_BYTES_MAX, ZLIB_RATIO_MAX * len(stream))
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(stream, bytes_max)
    except zlib.error as error:
        raise BundleError(f"The content of the bundle is no zlib stream: {error}") from error
    if not inflater.eof or inflater.unused_data:
        raise BundleError(
            f"The content of the bundle is not one zlib stream that opens to at most {bytes_max} bytes"
        )
    return content


def _message(signed_part: memoryview) -> bytes:
    return _DOMAIN + hashlib.sha256(signed_part).digest()


def _check_size(content_bytes: int) -> None:
    limit = limits.BUNDLE_BYTES_MAX - ENVELOPE_BYTES_MAX
    if content_bytes > limit:
        raise BundleError(f"The transactions of a bundle may take {limit} bytes, these take {content_bytes}")


def _check_count(count: int) -> None:
    if not 0 < count <= limits.BUNDLE_TRANSACTIONS_MAX:
        raise BundleError(
            f"A bundle has 1 to {limits.BUNDLE_TRANSACTIONS_MAX} transactions, this one has {count}"
        )
