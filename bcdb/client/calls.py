"""Every call of the client, once: what it asks, and how the answer is read. `Client` and `AsyncClient` run
them.

The docstrings here are those of both clients. A call never signs or changes a transaction that it is given.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from bcdb.client.errors import UnexpectedAnswer, error_of, message_of, refusal
from bcdb.client.reading import amount, cursor, decode, expect_success, read
from bcdb.client.results import (
    Answers,
    BatchResult,
    Block,
    Document,
    Failure,
    FoundAsset,
    FoundMetadata,
    Holding,
    Mode,
    NodeStatus,
    OutputReference,
    Page,
    StoreStatus,
    TransactionStatus,
    Validator,
)
from bcdb.client.settling import may_differ, settle, status_path
from bcdb.client.steps import API, Arguments, Road, Steps
from bcdb.model import limits
from bcdb.model.build import Recipient, prepare_create, prepare_transfer, sign
from bcdb.model.errors import DuplicateTransaction, InvalidJson
from bcdb.model.keys import KeyPair

T = TypeVar("T")
Posted = Mapping[str, Any] | bytes
"""A signed transaction: a JSON object, or its text in UTF-8."""
Json = Mapping[str, Any] | None
Recipients = Sequence[Recipient] | None
Inputs = Sequence[tuple[Mapping[str, Any], int]]
"""What a TRANSFER spends: signed transactions, each with the index of one of its outputs."""

SETTLE_S_MAX = 30.0
"""What is accepted is waited for so long."""
BATCH_ITEMS = 1_000
"""Transactions in one request of a batch; and at most a quarter of the bytes that a node takes."""
BATCH_BYTES = limits.BATCH_BYTES_MAX // 4


class Calls:
    """The calls to the nodes at `urls`; `timeout_s` bounds all tries of one request together.

    `min_height` is a block that is committed: no node answers before it has that one.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout_s: float,
        min_height: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.road = Road(urls, timeout_s=timeout_s, min_height=min_height, clock=clock)

    def height(self) -> int:
        """The highest block that this client has seen committed, or was told of as `min_height`.

        Give it to another client as `min_height`, and that one sees all that this one saw, at any node.
        """
        return self.road.height

    # --- writing ------------------------------------------------------------------------------------------

    def create(
        self,
        issuer: KeyPair,
        *,
        asset: Json = None,
        metadata: Json = None,
        recipients: Recipients = None,
        mode: Mode = "commit",
    ) -> Steps[Document]:
        """Prepare, sign and send a CREATE of `asset`'s data; gives the signed transaction.

        `recipients` are (public keys, amount) pairs, by default the issuer with 1. Raises as `send` does.
        """
        prepared = prepare_create(
            issuers=[issuer.public_key], recipients=recipients, asset=asset, metadata=metadata
        )
        return (yield from self.send(sign(prepared, issuer), mode=mode))

    def transfer(
        self,
        owner: KeyPair | Iterable[KeyPair],
        inputs: Inputs,
        recipients: Sequence[Recipient],
        *,
        metadata: Json = None,
        mode: Mode = "commit",
    ) -> Steps[Document]:
        """Prepare, sign and send a TRANSFER of `inputs`, (transaction, output index) pairs, to `recipients`.

        The amounts of the recipients must sum up to those of the inputs. Gives the signed transaction.
        Raises as `send` does.
        """
        prepared = prepare_transfer(inputs=inputs, recipients=recipients, metadata=metadata)
        return (yield from self.send(sign(prepared, owner), mode=mode))

    def send(self, transaction: Posted, *, mode: Mode = "commit") -> Steps[Document]:
        """Post a signed transaction; gives it as a JSON object.

        `mode` "commit" returns once it is committed, so that every later call of this client sees it, at any
        node; "sync" and "async" once it is durable. A `DuplicateTransaction` that only a retry of this call
        can have caused is a success. With several nodes it goes to the next one when a node does not answer.
        Raises the `ValidationError` of the rule that is broken, `NotAllowed` when the node does not take what
        this issuer issued, `NotSettled` when it is accepted but not committed in time, `Overloaded`,
        `Unavailable` or `Unreachable`.
        """
        content, document = _document(transaction)
        reply = yield from self.road.travel(
            "POST", f"{API}/transactions", arguments={"mode": mode}, content=content
        )
        status = reply.response.status
        if 200 <= status < 300:
            return document
        error = error_of(status, reply.response.content)
        own = reply.doubtful and isinstance(error, DuplicateTransaction)
        late = status == 504 and mode == "commit"
        # What this node refuses, the one that may have got it before may have accepted.
        open_still = reply.elsewhere and mode == "commit" and may_differ(error)
        if not (own or late or open_still):
            raise error
        if mode == "commit":
            yield from settle(
                self.road,
                _part(str(document.get("id"))),
                timeout_s=SETTLE_S_MAX,
                content=content if len(self.road.nodes) > 1 else None,
                refused=error if open_still else None,
            )
        return document

    def wait(self, transaction_id: str, *, timeout_s: float = SETTLE_S_MAX) -> Steps[TransactionStatus]:
        """Wait until an accepted transaction is committed; `timeout_s` in all.

        With several nodes all are asked until one knows it. Raises the `ValidationError` for which it was
        rejected, `NotFound` when no node has accepted it, and `NotSettled` when the time is over.
        """
        return (yield from settle(self.road, _part(transaction_id), timeout_s=timeout_s))

    def batch(self, transactions: Iterable[Posted]) -> Steps[list[BatchResult]]:
        """Post many signed transactions in few requests; one result for each, in order, once all are durable.

        A refused transaction does not stop the others and raises nothing. What is sent again after a lost
        answer answers its status. Raises `Overloaded`, `Unavailable`, `Unreachable` or `BadRequest`.
        """
        results: list[BatchResult] = []
        lines: list[bytes] = []
        size = 0
        for transaction in transactions:
            line = _one_line(transaction)
            if lines and (len(lines) >= BATCH_ITEMS or size + len(line) > BATCH_BYTES):
                results += yield from self._batch(lines)
                lines, size = [], 0
            lines.append(line)
            size += len(line) + 1
        if lines:
            results += yield from self._batch(lines)
        return results

    # --- reading ------------------------------------------------------------------------------------------

    def transaction(self, transaction_id: str) -> Steps[Document]:
        """The committed transaction of this id (64 hex digits). Raises `NotFound`."""
        return (yield from self._get(f"/transactions/{_part(transaction_id)}", Document))

    def status(self, transaction_id: str) -> Steps[TransactionStatus]:
        """What became of a transaction. Raises `NotFound` for an id that this node never accepted nor saw."""
        reply = yield from self.road.travel("GET", status_path(_part(transaction_id)))
        found = read(reply, TransactionStatus)
        if found.height is not None:
            self.road.learn(reply.node, found.height)
        return found

    def transactions(
        self,
        asset_id: str,
        *,
        operation: str | None = None,
        newest: bool | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Steps[Page[Document]]:
        """The committed transactions of an asset, oldest first; `newest=True` only the last one.

        `operation` is CREATE or TRANSFER, None for all. `limit` items a page; `after` is the page before's
        cursor.
        """
        arguments = {"asset_id": asset_id, "operation": operation, "last_tx": newest}
        return (yield from self._list("/transactions", arguments, limit, after, Document))

    def outputs(
        self,
        public_key: str,
        *,
        spent: bool | None = None,
        at_height: int | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Steps[Page[OutputReference]]:
        """The outputs that name a public key (base58): all, or only spent or unspent ones.

        With `at_height` as it was after the block at that height.
        """
        arguments = {"public_key": public_key, "spent": spent, "at_height": at_height}
        return (yield from self._list("/outputs", arguments, limit, after, OutputReference))

    def asset(self, asset_id: str, *, at_height: int | None = None) -> Steps[Document]:
        """An asset: data, issuers, amount, when it was made, its last transaction. Raises `NotFound`."""
        return (yield from self._get(f"/assets/{_part(asset_id)}", Document, {"at_height": at_height}))

    def provenance(
        self,
        asset_id: str,
        *,
        at_height: int | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Steps[Answers[Document]]:
        """Who owned how much of an asset and from whom: its transactions in order, with what became of their
        outputs. Raises `NotFound`.
        """
        arguments = {"at_height": at_height, "limit": limit, "after": after}
        reply = yield from self.road.travel(
            "GET", f"{API}/assets/{_part(asset_id)}/provenance", arguments=arguments
        )
        found = read(reply, _Provenance)
        return Answers(found.transactions, found.height, cursor(reply.response.headers.get("link", "")))

    def holdings(
        self,
        public_key: str,
        *,
        at_height: int | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Steps[Answers[Holding]]:
        """What a public key (base58) holds of each asset, now or after the block at `at_height`."""
        arguments = {"at_height": at_height, "limit": limit, "after": after}
        reply = yield from self.road.travel(
            "GET", f"{API}/keys/{_part(public_key)}/holdings", arguments=arguments
        )
        found = read(reply, _Holdings)
        items = [Holding(item.asset_id, amount(item.amount), item.outputs) for item in found.holdings]
        return Answers(items, found.height, cursor(reply.response.headers.get("link", "")))

    def find(
        self,
        collection: str,
        filter: Json = None,
        *,
        projection: Json = None,
        sort: Mapping[str, int] | None = None,
        limit: int | None = None,
        after: str | None = None,
        min_height: int | None = None,
    ) -> Steps[Answers[Document]]:
        """Documents of the query store that match a filter in MongoDB's language.

        `collection` is `transactions`, `assets`, `metadata`, `outputs` or `blocks`. `sort` maps paths to 1 or
        -1, by default the order of commitment. Raises `BadRequest` for a question that this node's store does
        not answer, `Unavailable` while the store is away or has not reached `min_height`.
        """
        asked = {
            "filter": filter, "projection": projection, "sort": sort, "limit": limit, "after": after,
            "min_height": min_height,
        }  # fmt: skip
        found = yield from self._ask(f"/query/{_part(collection)}", asked)
        return Answers(found.documents, found.height, found.next)

    def aggregate(
        self, collection: str, pipeline: Sequence[Mapping[str, Any]], *, min_height: int | None = None
    ) -> Steps[Answers[Document]]:
        """What an aggregation pipeline of MongoDB makes of a collection. Raises as `find` does."""
        asked = {"pipeline": pipeline, "min_height": min_height}
        found = yield from self._ask(f"/query/{_part(collection)}/aggregate", asked)
        return Answers(found.documents, found.height)

    def store(self) -> Steps[StoreStatus]:
        """The query store of the node: how far it is and how much it holds. Raises `Unavailable`."""
        return read((yield from self.road.travel("GET", f"{API}/query", carries=False)), StoreStatus)

    def search_assets(
        self, text: str, *, limit: int | None = None, after: str | None = None
    ) -> Steps[Page[FoundAsset]]:
        """Assets whose data match `text`: words, "a phrase", -without."""
        return (yield from self._list("/assets", {"search": text}, limit, after, FoundAsset))

    def search_metadata(
        self, text: str, *, limit: int | None = None, after: str | None = None
    ) -> Steps[Page[FoundMetadata]]:
        """Metadata of transactions that match `text`, as in `search_assets`."""
        return (yield from self._list("/metadata", {"search": text}, limit, after, FoundMetadata))

    def block(self, height: int) -> Steps[Block]:
        """The block at `height`, from 1. Raises `NotFound`."""
        return (yield from self._get(f"/blocks/{height}", Block))

    def latest_block(self) -> Steps[Block]:
        """The newest block. Raises `NotFound` while there is none."""
        return (yield from self._get("/blocks/latest", Block))

    def blocks_of(self, transaction_id: str) -> Steps[list[int]]:
        """Heights of the blocks that hold a transaction: one, or none."""
        return (yield from self._get("/blocks", list[int], {"transaction_id": transaction_id}))

    def validators(self) -> Steps[list[Validator]]:
        """The validators of the chain."""
        reply = yield from self.road.travel("GET", f"{API}/validators", carries=False)
        return read(reply, list[Validator])

    def node(self) -> Steps[NodeStatus]:
        """The node at a glance, also one that is not ready. Raises `Unreachable` when none answers."""
        asked = yield from self.road.travel("GET", "/health/live", patient=False, carries=False)
        live = read(asked, _Live)
        reply = yield from self.road.travel("GET", "/health/ready", patient=False, carries=False)
        url = reply.node.url
        if reply.response.status != 200:
            return NodeStatus(url, live.version, False, message_of(reply.response.content))
        ready = read(reply, _Ready)
        return NodeStatus(url, live.version, True, **msgspec.structs.asdict(ready))

    # --- shared -------------------------------------------------------------------------------------------

    def _get(self, path: str, kind: type[T], arguments: Arguments | None = None) -> Steps[T]:
        return read((yield from self.road.travel("GET", API + path, arguments=arguments)), kind)

    def _list(
        self, path: str, arguments: Arguments, limit: int | None, after: str | None, kind: type[T]
    ) -> Steps[Page[T]]:
        paged = {**arguments, "limit": limit, "after": after}
        reply = yield from self.road.travel("GET", API + path, arguments=paged)
        items = read(reply, list[kind])  # type: ignore[valid-type]
        return Page(items, cursor(reply.response.headers.get("link", "")))

    def _ask(self, path: str, asked: Mapping[str, Any]) -> "Steps[_Found]":
        given = {name: value for name, value in asked.items() if value is not None}
        content = msgspec.json.encode(given)
        # A later page tells the height of the first one, whatever was committed meanwhile.
        first = "after" not in given
        return read((yield from self.road.travel("POST", API + path, content=content, carries=first)), _Found)

    def _batch(self, lines: list[bytes]) -> Steps[list[BatchResult]]:
        reply = yield from self.road.travel(
            "POST",
            f"{API}/transactions/batch",
            content=b"\n".join(lines) + b"\n",
            media_type="application/x-ndjson",
        )
        expect_success(reply.response)
        found = [decode(line, _BatchLine) for line in reply.response.content.splitlines() if line.strip()]
        if len(found) != len(lines):
            text = f"The node answered {len(found)} of {len(lines)} transactions of a batch."
            raise UnexpectedAnswer(text, reply.response.status)
        for line in found:
            if line.height is not None:
                self.road.learn(reply.node, line.height)
        return [line.result() for line in found]


class _Live(msgspec.Struct):
    version: str


class _Ready(msgspec.Struct):
    chain_id: str
    height: int
    pending: int
    projected_height: int | None = None
    app_hash: str = ""
    engine: str = ""
    peers: int = 0
    catching_up: bool = False
    validator: bool = False


class _Found(msgspec.Struct):
    height: int
    documents: list[Document]
    next: str | None = None


class _Provenance(msgspec.Struct):
    height: int
    transactions: list[Document]


class _HoldingLine(msgspec.Struct):
    asset_id: str
    amount: str
    outputs: int


class _Holdings(msgspec.Struct):
    height: int
    holdings: list[_HoldingLine]


class _BatchLine(msgspec.Struct):
    status: str
    id: str | None = None
    height: int | None = None
    error: Failure | None = None

    def result(self) -> BatchResult:
        error = refusal(self.error.name, self.error.text) if self.error else None
        return BatchResult(self.id, error is None, self.status, error)


def _document(transaction: Posted) -> tuple[bytes, Document]:
    content = transaction if isinstance(transaction, bytes) else msgspec.json.encode(transaction)
    try:
        return content, msgspec.json.decode(content, type=Document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJson(f"The transaction is not a JSON object: {error}.") from None


def _one_line(transaction: Posted) -> bytes:
    # Line ends within a JSON text are blanks between its tokens; inside its strings they are escaped.
    text = transaction if isinstance(transaction, bytes) else msgspec.json.encode(transaction)
    return text.replace(b"\r", b" ").replace(b"\n", b" ")


def _part(text: str) -> str:
    return quote(text, safe="")
