"""The values of the ledger: their types, and their bytes in RocksDB.

Every number is big-endian, so that the order of keys is the order of heights and positions. The hot records
are packed with `struct`; nothing here reads or writes a store, and a record that has not the expected shape
raises `StoreError`, never anything else.
"""

from struct import Struct as Packing
from struct import error as PackingError
from zlib import crc32

from msgspec import Struct

from bcdb.model.errors import StoreError

ID_BYTES = 32
KEY_BYTES = 32
ZERO_ID = bytes(ID_BYTES)

FORMAT_VERSION = 1
"""Version of the layout of the store. A store with another one is refused."""

UNSPENT = b"U"
SPENT = b"S"

# --- types ----------------------------------------------------------------------------------------


class BlockHeader(Struct, frozen=True, gc=False):
    """What consensus says of a block: height from 1, time in ns since the epoch, the others raw bytes."""

    height: int
    time_ns: int
    proposer: bytes
    block_hash: bytes


class Head(Struct, frozen=True, gc=False):
    """The last committed block; `log_size` counts all transactions. Height 0 is the empty ledger."""

    height: int
    time_ns: int
    block_hash: bytes
    app_hash: bytes
    log_size: int


class BlockRecord(Struct, frozen=True, gc=False):
    """A committed block. `first_leaf` is the size of the log before it; `ids` are in order of position."""

    height: int
    time_ns: int
    proposer: bytes
    block_hash: bytes
    previous_hash: bytes
    app_hash: bytes
    first_leaf: int
    ids: tuple[bytes, ...]


class StoredTransaction(Struct, frozen=True, gc=False):
    """A committed transaction: its canonical bytes, and where it stands."""

    body: bytes
    height: int
    position: int


class OutputRecord(Struct, frozen=True, gc=False):
    """An output of a committed transaction. `spent_height` is 0 and `spent_by` None while it is unspent."""

    amount: int
    asset_id: bytes
    condition: str
    public_keys: tuple[str, ...]
    height: int
    position: int
    spent_height: int
    spent_by: bytes | None


class Rejection(Struct, frozen=True, gc=False):
    """Why an accepted transaction was settled without being committed, and the height that settled it."""

    height: int
    name: str
    text: str


# --- keys -----------------------------------------------------------------------------------------

pack_height = Packing(">Q").pack
pack_index = Packing(">I").pack
_PLACE = Packing(">QI")
pack_place = _PLACE.pack
"""Height and position: the 12 bytes that order everything committed."""
unpack_place = _PLACE.unpack_from
PLACE_BYTES = _PLACE.size

_OWNED_PLACE = Packing(">QII")
pack_owned_place = _OWNED_PLACE.pack
"""Height, position and output index: the 16 bytes that order the outputs of a key."""
unpack_owned_place = _OWNED_PLACE.unpack_from
OWNED_PLACE_BYTES = _OWNED_PLACE.size
OWNED_KEY_BYTES = KEY_BYTES + 1 + OWNED_PLACE_BYTES


def output_key(transaction_id: bytes, index: int) -> bytes:
    """The 36 bytes that name an output: in the family `outputs`, and in reservations."""
    return transaction_id + pack_index(index)


def owned_key(key: bytes, state: bytes, height: int, position: int, index: int) -> bytes:
    return key + state + pack_owned_place(height, position, index)


def asset_key(asset_id: bytes, height: int, position: int) -> bytes:
    return asset_id + pack_place(height, position)


def prefix_end(prefix: bytes) -> bytes:
    """A key after all that begin with `prefix` and go on with a place: no height comes near 2**64."""
    return prefix + b"\xff" * 8


# --- outputs --------------------------------------------------------------------------------------

_OUTPUT = Packing(">Q32sQIQ32s")
pack_output = _OUTPUT.pack
unpack_output = _OUTPUT.unpack_from
OUTPUT_FIXED_BYTES = _OUTPUT.size
_SPENT = Packing(">Q32s")
_SPENT_OFFSET = OUTPUT_FIXED_BYTES - _SPENT.size
pack_spent = _SPENT.pack


def ownership(condition: str, public_keys: tuple[str, ...]) -> bytes:
    """The variable end of an output's record: the condition URI and the sorted keys (none can contain a
    space).

    A TRANSFER may spend the output exactly when the same bytes come from its input.
    """
    if len(public_keys) == 1:
        return f"{condition} {public_keys[0]}".encode()
    return " ".join((condition, *public_keys)).encode()


def spend_output(record: bytes, height: int, spender: bytes) -> bytes:
    """The record of the same output, spent at `height` by `spender`."""
    return record[:_SPENT_OFFSET] + pack_spent(height, spender) + record[OUTPUT_FIXED_BYTES:]


def unspent_output(record: bytes) -> bytes:
    """The record of the same output as it was before it was spent."""
    return spend_output(record, 0, ZERO_ID)


def decode_output(record: bytes) -> OutputRecord:
    try:
        amount, asset_id, height, position, spent_height, spender = unpack_output(record)
        condition, *public_keys = record[OUTPUT_FIXED_BYTES:].decode().split(" ")
    except (PackingError, UnicodeDecodeError) as error:
        raise StoreError(f"The record of an output is damaged ({error}); run `bcdb fsck`.") from None
    return OutputRecord(
        amount,
        asset_id,
        condition,
        tuple(public_keys),
        height,
        position,
        spent_height,
        spender if spent_height else None,
    )


# --- the outputs of a key -------------------------------------------------------------------------

_OWNED = Packing(">32s32sQ")
pack_owned = _OWNED.pack
"""Value of a row of `owned`: the id of the output's transaction, its asset, its amount.

In a row of a spent output the height of the spending (8 bytes) follows. So holdings at any height are one
scan over the rows of a key.
"""
unpack_owned = _OWNED.unpack
_OWNED_SPENT = Packing(">32s32sQQ")
unpack_owned_spent = _OWNED_SPENT.unpack


def owned_value(transaction_id: bytes, output: OutputRecord) -> bytes:
    """The value that the rows of an output have in `owned`."""
    value = pack_owned(transaction_id, output.asset_id, output.amount)
    return value + pack_height(output.spent_height) if output.spent_height else value


# --- sealed values: blocks, statuses, meta --------------------------------------------------------


def seal(payload: bytes) -> bytes:
    """`payload` with its CRC-32, for values that nothing else in the ledger lets fsck recompute."""
    return payload + crc32(payload).to_bytes(4, "big")


def unseal(value: bytes, what: str) -> bytes:
    payload = value[:-4]
    if len(value) < 4 or crc32(payload).to_bytes(4, "big") != value[-4:]:
        raise StoreError(f"The record of {what} is damaged: its checksum differs; run `bcdb fsck`.")
    return payload


_BLOCK = Packing(">QQBBB32s")
_COUNT = Packing(">I")


def encode_block(block: BlockRecord) -> bytes:
    fixed = _BLOCK.pack(
        block.time_ns,
        block.first_leaf,
        len(block.proposer),
        len(block.block_hash),
        len(block.previous_hash),
        block.app_hash,
    )
    variable = block.proposer + block.block_hash + block.previous_hash
    return seal(b"".join((fixed, variable, _COUNT.pack(len(block.ids)), *block.ids)))


def decode_block_time(height: int, value: bytes) -> int:
    """The time of a block in ns since the epoch, without reading its ids."""
    what = f"block {height}"
    payload = unseal(value, what)
    if len(payload) < _BLOCK.size:
        raise StoreError(f"The record of {what} is cut short; run `bcdb fsck`.")
    return int.from_bytes(payload[:8], "big")


def decode_block(height: int, value: bytes) -> BlockRecord:
    what = f"block {height}"
    payload = unseal(value, what)
    try:
        time_ns, first_leaf, proposer_bytes, hash_bytes, previous_bytes, app_hash = _BLOCK.unpack_from(
            payload
        )
        hash_start = _BLOCK.size + proposer_bytes
        previous_start = hash_start + hash_bytes
        count_start = previous_start + previous_bytes
        (count,) = _COUNT.unpack_from(payload, count_start)
    except PackingError:
        raise StoreError(f"The record of {what} is cut short; run `bcdb fsck`.") from None
    ids_start = count_start + _COUNT.size
    if len(payload) != ids_start + count * ID_BYTES:
        raise StoreError(f"The record of {what} has not the length that it states; run `bcdb fsck`.")
    return BlockRecord(
        height,
        time_ns,
        payload[_BLOCK.size : hash_start],
        payload[hash_start:previous_start],
        payload[previous_start:count_start],
        app_hash,
        first_leaf,
        tuple(payload[at : at + ID_BYTES] for at in range(ids_start, len(payload), ID_BYTES)),
    )


_REJECTION = Packing(">QB")


def encode_rejection(rejection: Rejection) -> bytes:
    name = rejection.name.encode()
    return seal(_REJECTION.pack(rejection.height, len(name)) + name + rejection.text.encode())


def decode_rejection(value: bytes) -> Rejection:
    payload = unseal(value, "a rejected transaction")
    try:
        height, name_bytes = _REJECTION.unpack_from(payload)
        start = _REJECTION.size
        name = payload[start : start + name_bytes].decode()
        return Rejection(height, name, payload[start + name_bytes :].decode())
    except (PackingError, UnicodeDecodeError):
        raise StoreError("The record of a rejected transaction is damaged; run `bcdb fsck`.") from None


_HEAD = Packing(">QQQ32sI")


def encode_head(head: Head, frontier: tuple[bytes, ...]) -> bytes:
    """The head and the frontier of the log in one value, so that one write moves both."""
    fixed = _HEAD.pack(head.height, head.time_ns, head.log_size, head.app_hash, len(head.block_hash))
    return seal(b"".join((fixed, head.block_hash, *frontier)))


def decode_head(value: bytes) -> tuple[Head, tuple[bytes, ...]]:
    payload = unseal(value, "the head")
    try:
        height, time_ns, log_size, app_hash, hash_bytes = _HEAD.unpack_from(payload)
    except PackingError:
        raise StoreError("The record of the head is cut short; run `bcdb fsck`.") from None
    start = _HEAD.size + hash_bytes
    frontier = tuple(payload[at : at + ID_BYTES] for at in range(start, len(payload), ID_BYTES))
    return Head(height, time_ns, payload[_HEAD.size : start], app_hash, log_size), frontier
