"""What a node's answers hold, as typed values; transactions themselves stay plain JSON objects (dicts).

Fields that this version does not know are ignored, so that a newer node can say more.
"""

from typing import Any, Generic, Literal, TypeVar

import msgspec

from bcdb.model.errors import BcdbError

T = TypeVar("T")
Document = dict[str, Any]
"""A transaction as JSON: keys `id`, `version`, `operation`, `asset`, `metadata`, `inputs`, `outputs`."""
Mode = Literal["async", "sync", "commit"]


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list. `after` is the cursor that asks for the next one, None on the last."""

    items: list[T]
    after: str | None = None


class Answers(msgspec.Struct, Generic[T], frozen=True):
    """One page of answers, and the height of the ledger that they are good for. `after` as in `Page`."""

    items: list[T]
    height: int
    after: str | None = None


class Failure(msgspec.Struct, frozen=True):
    """Why a transaction was refused or rejected: the rule's name, e.g. `DoubleSpend`, and a sentence."""

    name: str
    text: str = ""


class TransactionStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of an accepted transaction, by its `id` (hex).

    `height` (from 1), `position` (from 0, among the block's transactions) and the block's `time` (RFC 3339,
    UTC) are set once it is committed; `error` once it is rejected, then `height` is that of the block that
    decided it.
    """

    id: str
    status: Literal["pending", "committed", "rejected"]
    height: int | None = None
    position: int | None = None
    time: str | None = None
    error: Failure | None = None


class OutputReference(msgspec.Struct, frozen=True):
    """An output of a transaction: the transaction's id (hex) and the index of the output in it."""

    transaction_id: str
    output_index: int


class FoundAsset(msgspec.Struct, frozen=True):
    """An asset that a search found: the id of its CREATE (hex) and its data."""

    id: str
    data: Any = None


class FoundMetadata(msgspec.Struct, frozen=True):
    """Metadata that a search found: the transaction's id (hex) and its metadata."""

    id: str
    metadata: Any = None


class Holding(msgspec.Struct, frozen=True):
    """What a key holds of an asset: the sum of the amounts of its unspent outputs, and their number."""

    asset_id: str
    amount: int
    outputs: int


class Building(msgspec.Struct, frozen=True):
    """A query store that is being built answers nothing before it has reached the height `target`."""

    height: int
    target: int


class StoreStatus(msgspec.Struct, frozen=True):
    """The query store of a node: its kind (`sqlite` or `mongodb`), and how far it is behind the ledger.

    `counts` are its documents by collection.
    """

    kind: str
    height: int
    ledger_height: int
    lag_blocks: int
    text_search: bool
    counts: dict[str, int] = {}
    building: Building | None = None


class Block(msgspec.Struct, frozen=True):
    """A block: height from 1, its transactions in order, when it was made (RFC 3339, UTC) and by whom.

    `hash`, `app_hash` (of the ledger after it) and `proposer` (the validator's address) are hex.
    """

    height: int
    transactions: list[Any] = []
    time: str | None = None
    hash: str | None = None
    app_hash: str | None = None
    proposer: str | None = None


class ValidatorKey(msgspec.Struct, frozen=True):
    """A validator's public key, e.g. type `ed25519-base64`."""

    type: str
    value: str


class Validator(msgspec.Struct, frozen=True):
    """A validator and its weight in votes."""

    public_key: ValidatorKey
    voting_power: int


class NodeStatus(msgspec.Struct, frozen=True):
    """A node at a glance.

    `height` is its last published block, `pending` counts what it accepted and no block holds yet,
    `projected_height` is how far its searches are (None: there are none). `reason` says why it is not ready.
    `app_hash` (hex) is that of `height`. In a network, up to some seconds ago, `peers` other nodes were
    connected, `catching_up` said that it still fetched blocks that others have, and `validator` that it
    votes.
    """

    url: str
    version: str
    ready: bool
    reason: str = ""
    chain_id: str = ""
    height: int = 0
    pending: int = 0
    projected_height: int | None = None
    app_hash: str = ""
    engine: str = ""
    peers: int = 0
    catching_up: bool = False
    validator: bool = False


class BatchResult(msgspec.Struct, frozen=True):
    """The outcome for one transaction of a batch, in the order sent.

    `accepted`: it is durable, pending or committed. Otherwise `error` says why not.
    """

    id: str | None
    accepted: bool
    status: str
    error: BcdbError | None = None
