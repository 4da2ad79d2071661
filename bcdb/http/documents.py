"""The shapes of the answers, for the OpenAPI document and for encoding the small ones.

A transaction is never built from these: it is sent as the bytes that are stored.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from bcdb.model import Transaction

HexId = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="32 bytes in lower-case hex")]
Time = Annotated[str, Meta(description="RFC 3339 in UTC, with nanoseconds")]


class Problem(Struct, frozen=True):
    """A rule is broken, a limit is passed, something is not there. The text is for a person."""

    message: str
    status: int


class ArgumentProblem(Struct, frozen=True):
    """An argument that is missing or wrong, by its name, or a request that can't be read at all."""

    message: dict[str, str] | str


class Asset(Struct, frozen=True):
    """In a CREATE the asset's `data`, any JSON object or null; in all others the `id` of that CREATE."""

    data: dict[str, Any] | UnsetType | None = UNSET
    id: HexId | UnsetType = UNSET


class SignedTransaction(Transaction[Asset]):
    """A transaction of format 2.0."""


class OutputReference(Struct, frozen=True):
    """Names an output of a transaction."""

    transaction_id: HexId
    output_index: int


class FoundAsset(Struct, frozen=True):
    """An asset that a search found, by the id of its CREATE."""

    data: dict[str, Any]
    id: HexId


class FoundMetadata(Struct, frozen=True):
    """Metadata that a search found, by the id of its transaction."""

    metadata: dict[str, Any]
    id: HexId


class FoundDocuments(Struct, frozen=True):
    """Documents of a collection. None is of a block above `height`.

    `next`: give it as `after` of the same question to go on, null on the last page.
    """

    height: int
    documents: list[dict[str, Any]]
    next: str | None


class MadeDocuments(Struct, frozen=True):
    """What an aggregation made of the documents of the blocks up to `height`."""

    height: int
    documents: list[dict[str, Any]]


class Building(Struct, frozen=True):
    """The store is at `height` and answers questions from `target` on."""

    height: int
    target: int


class StoreStatus(Struct, frozen=True):
    """The query store: its kind, its height and the ledger's, its documents by collection.

    `text_search`: whether assets and metadata can be searched. `building` is null when it is complete.
    """

    kind: str
    height: int
    ledger_height: int
    lag_blocks: int
    building: Building | None
    text_search: bool
    counts: dict[str, int]


class PublicKey(Struct, frozen=True):
    """An Ed25519 public key in base64."""

    type: Literal["ed25519-base64"]
    value: str


class Validator(Struct, frozen=True):
    """One that orders transactions, and the weight of its vote."""

    public_key: PublicKey
    voting_power: int


class Index(Struct, frozen=True):
    """Where things are, from the address of this index on; `streams` is whole."""

    assets: str
    blocks: str
    docs: str
    metadata: str
    outputs: str
    streams: str
    transactions: str
    validators: str


class Versions(Struct, frozen=True):
    """The versions of the API that this server speaks."""

    v1: Index


class RootIndex(Struct, frozen=True):
    """What clients of BigchainDB ask first. The version is that of the API that is spoken."""

    api: Versions
    docs: str
    software: str
    version: str


class Live(Struct, frozen=True):
    """The worker that answers is alive."""

    status: Literal["live"]
    version: str


class Ready(Struct, frozen=True):
    """The worker has a node and a ledger. `height` is the last published block, `pending` waits for a block.

    `projected_height` is how far the searches are, null while there is no query copy. `app_hash` is that of
    `height`. In a network `peers` counts the nodes that this one is connected to, `catching_up` says that it
    still fetches blocks that others have, `validator` that it votes; all three are up to some seconds old.
    """

    status: Literal["ready"]
    version: str
    chain_id: str
    height: int
    pending: int
    projected_height: int | None
    app_hash: HexId
    engine: str
    peers: int
    catching_up: bool
    validator: bool
