"""Transactions: post one or many, read one, list those of an asset, ask for the fate of one.

Posting one and reading one are hot: the dispatcher answers them before they come here, with the same
functions.
"""

from typing import Annotated, Any

from litestar import Controller, Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import PathParameter
from msgspec import UNSET, Struct

from bcdb.http import batch, submit
from bcdb.http.answer import Answer, Header, height_header, json_array, to_json
from bcdb.http.batch import Refused
from bcdb.http.describe import (
    ApiRequest,
    head_of,
    operation,
    problems,
    query_of,
    receive_of,
    reply,
    scope_of,
    services_of,
)
from bcdb.http.documents import SignedTransaction
from bcdb.http.errors import not_found
from bcdb.http.fetch import ARGUMENTS as FRESHNESS
from bcdb.http.fetch import fetch, read_id
from bcdb.http.params import (
    AFTER,
    LIMIT,
    MIN_HEIGHT,
    Argument,
    Arguments,
    link_next,
    read_boolean,
    read_hash,
    read_operation,
)
from bcdb.http.reach import reach
from bcdb.http.services import Services
from bcdb.http.status import Status, status_of
from bcdb.model import limits

PATH = "/api/v1/transactions"
CHUNK_ITEMS = 16
"""Transactions read between two looks at how many bytes a page has by now."""

TransactionId = Annotated[str, PathParameter(description="64 lower-case hex digits")]


class List(Struct, frozen=True):
    """What is asked of the list; the id is raw bytes."""

    asset_id: bytes
    operation: str | None = None
    last_tx: bool = False
    min_height: int | None = None
    limit: int = limits.PAGE_ITEMS_DEFAULT
    after: str | None = None


LIST = Arguments(
    List,
    operation=Argument(
        read_operation,
        "Only the CREATE, or only TRANSFERs; all operations if left out.",
        {"type": "string", "enum": ["CREATE", "TRANSFER"]},
    ),
    asset_id=Argument(
        read_hash,
        "The id of the asset, which is that of its CREATE.",
        {"type": "string", "pattern": "^[a-fA-F0-9]{64}$"},
        required=True,
    ),
    last_tx=Argument(read_boolean, "Only the newest transaction.", {"type": "boolean", "default": False}),
    min_height=MIN_HEIGHT,
    limit=LIMIT,
    after=AFTER,
)


class Transactions(Controller):
    """Everything below the address of transactions."""

    path = PATH

    @post(
        status_code=202,
        tags=["Transactions"],
        summary="Post a signed transaction",
        description="Answers once the transaction is durable, with `mode=commit` once it is committed.",
        operation_class=operation(submit.ARGUMENTS, body="application/json", placed=True),
        responses=problems(403, 413, 415, 504),
    )
    async def submit(self, request: ApiRequest) -> Response[SignedTransaction]:
        services, scope, head = services_of(request), scope_of(request), head_of(request)
        return reply(await submit.submit(services, scope, head, receive_of(request)))

    @get(
        tags=["Transactions"],
        summary="The transactions of an asset",
        description="Committed ones, oldest first: the CREATE, then what was done with the asset.",
        operation_class=operation(LIST, paged=True, stored=True),
        responses=problems(),
    )
    async def of_asset(self, request: ApiRequest) -> Response[list[SignedTransaction]]:
        return reply(await transactions_of(services_of(request), LIST.parse(query_of(request))))

    @post(
        "/batch",
        status_code=200,
        tags=["Transactions"],
        summary="Post many signed transactions",
        description=(
            "One JSON text on each line, and one line of answer for each, in order, once all are durable. An "
            f"item that was sent before answers its status. At most {limits.BATCH_ITEMS_MAX} items and "
            f"{limits.BATCH_BYTES_MAX} bytes."
        ),
        operation_class=operation(batch.ARGUMENTS, body="application/x-ndjson"),
        responses={
            200: ResponseSpec(
                Status | Refused,
                description="A line for each item",
                media_type="application/x-ndjson",
                generate_examples=False,
            ),
            **problems(413, 415),
        },
    )
    async def batch(self, request: ApiRequest) -> Response[Any]:
        services, scope, head = services_of(request), scope_of(request), head_of(request)
        return reply(await batch.submit_batch(services, scope, head, receive_of(request)))

    @get(
        "/{transaction_id:str}",
        tags=["Transactions"],
        summary="A committed transaction",
        description="Byte for byte as it was agreed on: the canonical form from which its id is made.",
        operation_class=operation(FRESHNESS, placed=True),
        responses=problems(404),
    )
    async def fetch(self, request: ApiRequest, transaction_id: TransactionId) -> Response[SignedTransaction]:
        return reply(await fetch(services_of(request), transaction_id, query_of(request)))

    @get(
        "/{transaction_id:str}/status",
        tags=["Transactions"],
        summary="The fate of a transaction",
        description="Pending and rejected are known to the node that accepted it, committed to every node.",
        operation_class=operation(FRESHNESS, placed=True),
        responses=problems(404),
    )
    async def status(self, request: ApiRequest, transaction_id: TransactionId) -> Response[Status]:
        asked = FRESHNESS.parse(query_of(request))
        return reply(await status_at(services_of(request), transaction_id, asked.min_height))


async def status_at(services: Services, text: str, min_height: int | None) -> Answer:
    """The fate of the transaction of this id, once the block `min_height` is here."""
    await reach(services, min_height)
    transaction_id = read_id(text)
    found = None if transaction_id is None else await status_of(services, transaction_id)
    if found is None:
        return not_found()
    headers = () if found.height is UNSET else (height_header(found.height),)
    return Answer(200, to_json(found), headers=headers)


async def transactions_of(services: Services, asked: List) -> Answer:
    """A page of the transactions of an asset. It ends early when it has become too many bytes."""
    await reach(services, asked.min_height)
    wanted = 1 if asked.last_tx else asked.limit
    bodies: list[bytes] = []
    size, after = 0, asked.after
    while True:
        reader = await services.ledger.ready()
        page = reader.transactions_of(
            asked.asset_id,
            operation=asked.operation,
            newest=asked.last_tx,
            after=after,
            limit=min(CHUNK_ITEMS, wanted - len(bodies)),
        )
        for item in page.items:
            stored = reader.transaction(item.id)
            assert stored is not None, "what an asset lists is stored"
            bodies.append(stored.body)
            size += len(stored.body)
        after = page.next
        if after is None or len(bodies) >= wanted or size >= limits.PAGE_BYTES_MAX:
            break
    headers: list[Header] = [height_header(reader.head.height)]
    if after is not None and not asked.last_tx:
        arguments = {
            "asset_id": asked.asset_id.hex(),
            "operation": asked.operation,
            "limit": str(asked.limit),
            "after": after,
        }
        headers.append(link_next(PATH, arguments))
    return Answer(200, json_array(bodies), headers=tuple(headers))
