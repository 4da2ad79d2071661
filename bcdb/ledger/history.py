"""The history of an asset: what it is, and what each of its transactions moved from whom to whom.

Told as of a height: an output that was spent later is told as unspent. Because committed transactions never
change, what is read here stays right however far the ledger moves on while it is being read.
"""

from struct import error as PackingError

from msgspec import UNSET, DecodeError, Raw, Struct, UnsetType
from msgspec.json import Decoder

from bcdb.ledger.reader import AssetTransaction, Reader
from bcdb.ledger.records import decode_output, output_key, unpack_output
from bcdb.model.errors import StoreError
from bcdb.model.transaction import Link


class AssetRecord(Struct, frozen=True, gc=False):
    """An asset as its first transaction makes it: `data` is JSON text, `amount` the sum of all its shares."""

    id: bytes
    data: bytes
    issuers: tuple[str, ...]
    amount: int
    height: int
    position: int


class Given(Struct, frozen=True, gc=False):
    """An input of a transaction: who gave it, and the output and the amount that it spends, if any."""

    owners_before: list[str]
    fulfills: Link | None
    amount: int | None


class Taken(Struct, frozen=True, gc=False):
    """An output of a transaction: who got how much, and what spent it by then, if anything."""

    output_index: int
    public_keys: tuple[str, ...]
    amount: int
    spent_height: int | None
    spent_by: bytes | None


class Movement(Struct, frozen=True, gc=False):
    """What a transaction of an asset moved."""

    id: bytes
    operation: str
    height: int
    position: int
    inputs: list[Given]
    outputs: list[Taken]


# What is stored was verified, so no more is read of it than is told.


class _Input(Struct, gc=False):
    fulfills: Link | None
    owners_before: list[str]


class _Output(Struct, gc=False):
    pass


class _Moved(Struct, gc=False):
    inputs: list[_Input]
    outputs: list[_Output]


class _Asset(Struct, gc=False):
    data: Raw | UnsetType = UNSET


class _Share(Struct, gc=False):
    amount: str


class _Made(Struct, gc=False):
    asset: _Asset
    inputs: list[_Input]
    outputs: list[_Share]


_decode_moved = Decoder(_Moved).decode
_decode_made = Decoder(_Made).decode


def asset_of(reader: Reader, asset_id: bytes, at_height: int) -> AssetRecord | None:
    """The asset of this id, None if there was none after the block at `at_height`. Raises StoreError."""
    stored = reader.transaction(asset_id)
    if stored is None or stored.height > at_height:
        return None
    try:
        made = _decode_made(stored.body)
        amount = sum([int(share.amount) for share in made.outputs])
    except (DecodeError, ValueError):
        raise _damaged(asset_id) from None
    # Only what makes an asset carries data; all others name the asset by its id.
    if not isinstance(made.asset.data, Raw):
        return None
    issuers = {owner for given in made.inputs for owner in given.owners_before}
    return AssetRecord(
        asset_id, bytes(made.asset.data), tuple(sorted(issuers)), amount, stored.height, stored.position
    )


class History:
    """The movements of an asset as of a height, one after another."""

    def __init__(self, reader: Reader, at_height: int) -> None:
        self._reader = reader
        self._at_height = at_height
        self._amounts: dict[bytes, int] = {}
        """Of the outputs told so far that are not spent in what was told."""

    def movement(self, item: AssetTransaction) -> Movement:
        """What this transaction moved. Raises StoreError when the ledger lacks a part of it."""
        stored = self._reader.transaction(item.id)
        if stored is None:
            raise StoreError(f"The ledger lacks the transaction {item.id.hex()}; run `bcdb fsck`.")
        try:
            moved = _decode_moved(stored.body)
            return Movement(
                item.id,
                item.operation,
                item.height,
                item.position,
                [self._given(found) for found in moved.inputs],
                [self._taken(item.id, index) for index in range(len(moved.outputs))],
            )
        except (DecodeError, ValueError, PackingError):
            raise _damaged(item.id) from None

    def _given(self, found: _Input) -> Given:
        link = found.fulfills
        if link is None:
            return Given(found.owners_before, None, None)
        key = output_key(bytes.fromhex(link.transaction_id), link.output_index)
        # An output is spent once, so its amount is not asked for again.
        amount = self._amounts.pop(key, None)
        if amount is None:
            amount = unpack_output(self._output(key))[0]
        return Given(found.owners_before, link, amount)

    def _taken(self, transaction_id: bytes, index: int) -> Taken:
        key = output_key(transaction_id, index)
        output = decode_output(self._output(key))
        self._amounts[key] = output.amount
        if not 0 < output.spent_height <= self._at_height:
            return Taken(index, output.public_keys, output.amount, None, None)
        return Taken(index, output.public_keys, output.amount, output.spent_height, output.spent_by)

    def _output(self, key: bytes) -> bytes:
        record = self._reader.get_output(key)
        if record is None:
            raise StoreError(f"The ledger lacks the output {key.hex()}; run `bcdb fsck`.")
        return record


def _damaged(transaction_id: bytes) -> StoreError:
    return StoreError(f"The transaction {transaction_id.hex()} in the ledger is damaged; run `bcdb fsck`.")
