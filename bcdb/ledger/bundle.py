"""The consensus transaction: many transactions of one submitter under one signature.

A bundle is a MessagePack array of version, chain id, submitter's raw key, attempt, transactions and the
submitter's signature over everything before it. The attempt is 0 unless the same transactions were bundled in
vain before: an engine that has lost a bundle may still believe that it knows its bytes. A bundle has exactly
one spelling, and decoding never allocates more than its stated bounds, whatever the bytes. What is inside the
transactions is not looked at here.
"""

import hashlib
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
ENVELOPE_BYTES_MAX = 512
"""Bytes of a bundle around its transactions, at most."""
ITEM_OVERHEAD_BYTES = 5
"""Bytes that MessagePack puts in front of one transaction, at most."""
_DOMAIN = b"bcdb bundle 1\0"
_NO_SIGNATURE = bytes(SIGNATURE_BYTES)


class Bundle(Struct, frozen=True):
    """A decoded bundle whose signature is good. `transactions` are bodies that nobody has verified yet."""

    chain_id: str
    submitter: bytes
    transactions: tuple[bytes, ...]
    attempt: int = 0


def encode_bundle(
    chain_id: str,
    submitter: bytes,
    transactions: Sequence[bytes],
    sign: Callable[[bytes], bytes],
    *,
    attempt: int = 0,
) -> bytes:
    """Pack and sign. `submitter` is the raw key of `sign`, `attempt` 0 to `ATTEMPT_MAX`. Raises
    `BundleError` when a bound is passed."""
    _check_count(len(transactions))
    longest = max(map(len, transactions))
    if longest > limits.TRANSACTION_BYTES_MAX:
        limit = limits.TRANSACTION_BYTES_MAX
        raise BundleError(f"A transaction in a bundle may have {limit} bytes, this one has {longest}")
    unsigned = _pack(chain_id, submitter, attempt, transactions)
    if len(unsigned) > limits.BUNDLE_BYTES_MAX:
        raise BundleError(f"A bundle may have {limits.BUNDLE_BYTES_MAX} bytes, this one has {len(unsigned)}")
    signed_part = memoryview(unsigned)[:-SIGNATURE_BYTES]
    return b"".join((signed_part, sign(_message(signed_part))))


def decode_bundle(raw: bytes, chain_id: str) -> Bundle:
    """Read the bundle of any hostile bytes. Raises `BundleError` for all that `encode_bundle` can't have
    made.
    """
    if len(raw) > limits.BUNDLE_BYTES_MAX:
        raise BundleError(f"A bundle may have {limits.BUNDLE_BYTES_MAX} bytes, this one has {len(raw)}")
    bundle, signature = _unpack(raw)
    if bundle.chain_id != chain_id:
        raise BundleError(f"The bundle is of chain {bundle.chain_id!r}, this chain is {chain_id!r}")
    _check_count(len(bundle.transactions))
    packed = _pack(chain_id, bundle.submitter, bundle.attempt, bundle.transactions)
    if packed[:-SIGNATURE_BYTES] != raw[:-SIGNATURE_BYTES]:
        raise BundleError("The bundle is not spelt as its content has to be")
    if not verify_signature(bundle.submitter, _message(memoryview(raw)[:-SIGNATURE_BYTES]), signature):
        raise BundleError("The submitter's signature is wrong")
    return bundle


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
    packed: bytes = msgpack.packb((VERSION, chain_id, bytes(KEY_BYTES), 0, 0, 0), use_bin_type=True)
    return packed[: -KEY_BYTES - 3]


def _pack(chain_id: str, submitter: bytes, attempt: int, transactions: Sequence[bytes]) -> bytes:
    fields = (VERSION, chain_id, submitter, attempt, transactions, _NO_SIGNATURE)
    packed: bytes = msgpack.packb(fields, use_bin_type=True)
    return packed


def _message(signed_part: memoryview) -> bytes:
    return _DOMAIN + hashlib.sha256(signed_part).digest()


def _unpack(raw: bytes) -> tuple[Bundle, bytes]:
    unpacker = msgpack.Unpacker(
        raw=False,
        use_list=False,
        max_buffer_size=limits.BUNDLE_BYTES_MAX,
        max_str_len=limits.CHAIN_ID_CHARS_MAX * 4,
        max_bin_len=limits.TRANSACTION_BYTES_MAX,
        max_array_len=limits.BUNDLE_TRANSACTIONS_MAX,
        max_map_len=0,
        max_ext_len=0,
    )
    try:
        unpacker.feed(raw)
        fields = unpacker.unpack()
    except (msgpack.UnpackException, ValueError, RecursionError) as error:
        raise BundleError(f"The bundle is no MessagePack within its bounds: {error}") from error
    match fields:
        case (
            int(version),
            str(chain_id),
            bytes(submitter),
            int(attempt),
            tuple(transactions),
            bytes(signature),
        ):
            pass
        case _:
            raise BundleError(
                "A bundle is an array of version, chain id, submitter, attempt, transactions and signature"
            )
    if version != VERSION or isinstance(version, bool):
        raise BundleError(f"The bundle has version {version!r}, version {VERSION} was expected")
    if len(submitter) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise BundleError(f"A submitter has {KEY_BYTES} bytes and a signature {SIGNATURE_BYTES}")
    if not all(isinstance(body, bytes) for body in transactions):
        raise BundleError("The transactions of a bundle are byte strings")
    if isinstance(attempt, bool) or not 0 <= attempt <= ATTEMPT_MAX:
        raise BundleError(f"The attempt of a bundle is 0 to {ATTEMPT_MAX}, not {attempt!r}")
    return Bundle(chain_id, submitter, transactions, attempt), signature


def _check_count(count: int) -> None:
    if not 0 < count <= limits.BUNDLE_TRANSACTIONS_MAX:
        raise BundleError(
            f"A bundle has 1 to {limits.BUNDLE_TRANSACTIONS_MAX} transactions, this one has {count}"
        )
