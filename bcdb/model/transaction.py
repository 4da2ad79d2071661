"""The typed shapes of transaction format 2.0 and what verification makes of a transaction.

The fields of every shape stand in alphabetical order, so that encoding a shape gives the canonical key order.
Nothing here checks a rule: that is `bcdb.model.validation` and `bcdb.model.operations`.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar

from msgspec import Meta, Struct

from bcdb.model.conditions import Details

VERSION = "2.0"

AssetT = TypeVar("AssetT")


class Link(Struct, forbid_unknown_fields=True, gc=False):
    """Names an output of an earlier transaction: its index and the 64 lower-case hex digits of the id."""

    output_index: int
    transaction_id: str


class Input(Struct, forbid_unknown_fields=True):
    """What is spent (nothing, for a CREATE) and the proof that its owners want it so.

    `fulfillment` is base64url text, null while the transaction is being signed.
    """

    fulfillment: str | None
    fulfills: Link | None
    owners_before: list[str]


class OutputCondition(Struct, forbid_unknown_fields=True):
    """A crypto-condition twice: as a tree with its keys, and as the URI that is computed from the tree."""

    details: Details
    uri: str


class Output(Struct, forbid_unknown_fields=True):
    """A share of an asset, `amount` as decimal text, and the condition under which it can be spent."""

    amount: str
    condition: OutputCondition
    public_keys: list[str]


class DataAsset(Struct, forbid_unknown_fields=True):
    """The asset of a CREATE: any JSON object, or null."""

    data: dict[str, Any] | None


class LinkedAsset(Struct, forbid_unknown_fields=True, gc=False):
    """The asset of a TRANSFER: the id of the CREATE that made it, 64 lower-case hex digits."""

    id: str

    @property
    def data(self) -> None:
        """A linked asset carries no data of its own."""
        return None


class Transaction(Struct, Generic[AssetT], forbid_unknown_fields=True):
    """A transaction as posted; `id` is null while it is being hashed or signed."""

    asset: AssetT
    id: str | None
    inputs: list[Input]
    metadata: Annotated[dict[str, Any], Meta(min_length=1)] | None
    operation: str
    outputs: list[Output]
    version: Literal["2.0"]


class Spend(Struct, array_like=True, frozen=True, gc=False):
    """One spent output, as the ledger needs it.

    `condition` is the URI of the fulfillment that was verified, `owners` the sorted, unique base58 keys
    that the input names in `owners_before`. Both must equal what the spent output says; only the ledger can
    tell.
    """

    transaction_id: bytes
    output_index: int
    condition: str
    owners: tuple[str, ...]


class NewOutput(Struct, array_like=True, frozen=True, gc=False):
    """One new output: its amount (1 to 9e18), its condition's URI and its sorted, unique base58 keys."""

    amount: int
    condition: str
    public_keys: tuple[str, ...]


class Verified(Struct, array_like=True, frozen=True, gc=False):
    """A transaction that passed everything that can be checked without the ledger.

    `id` and `asset_id` are 32 bytes (a CREATE's asset is its own id), `issuers` the sorted, unique keys
    that signed a CREATE (empty for others), `signatures` how many were verified. `body` is the canonical
    text with the id in its place: the bytes that are ordered, stored and returned. Put `null` for the id
    and its SHA3-256 is the id.
    """

    id: bytes
    operation: str
    asset_id: bytes
    issuers: tuple[str, ...]
    spends: tuple[Spend, ...]
    outputs: tuple[NewOutput, ...]
    body: bytes
    signatures: int
