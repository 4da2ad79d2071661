"""Blocks: by height, the newest, and which one holds a transaction."""

import re
from typing import Annotated

from litestar import Controller, Response, get
from litestar.params import PathParameter
from msgspec import Struct

from bcdb.http.answer import Answer, height_header, json_array, rfc3339, to_json
from bcdb.http.describe import ApiRequest, operation, problems, query_of, reply, services_of
from bcdb.http.documents import HexId, SignedTransaction, Time
from bcdb.http.errors import no_such_address, not_found
from bcdb.http.fetch import read_id
from bcdb.http.params import MIN_HEIGHT, Argument, Arguments, read_text
from bcdb.http.reach import reach
from bcdb.http.services import Services
from bcdb.ledger import BlockRecord, SecondaryReader

Height = Annotated[str, PathParameter(description="A whole number from 0")]
_HEIGHT = re.compile(r"[0-9]+", re.ASCII)
_HEIGHT_DIGITS_MAX = 19


class OneBlock(Struct, frozen=True):
    """Which block must be there before the answer."""

    min_height: int | None = None


class OfTransaction(OneBlock, frozen=True, kw_only=True):
    """Whose block is asked for."""

    transaction_id: str


ONE_BLOCK = Arguments(OneBlock, min_height=MIN_HEIGHT)
OF_TRANSACTION = Arguments(
    OfTransaction,
    strict=True,
    transaction_id=Argument(read_text, "The id of a transaction.", required=True),
    min_height=MIN_HEIGHT,
)


class Block(Struct, frozen=True):
    """A block: its transactions in order, when it was made, its hash and the app hash after it (hex)."""

    height: int
    transactions: list[SignedTransaction]
    time: Time
    hash: str
    app_hash: HexId
    proposer: str


class Blocks(Controller):
    """Everything below the address of blocks."""

    path = "/api/v1/blocks"

    @get(
        tags=["Blocks"],
        summary="The block that holds a transaction",
        description="A list of its height, or an empty list.",
        operation_class=operation(OF_TRANSACTION, stored=True),
        responses=problems(),
    )
    async def of_transaction(self, request: ApiRequest) -> Response[list[int]]:
        asked, services = OF_TRANSACTION.parse(query_of(request)), services_of(request)
        await reach(services, asked.min_height)
        transaction_id = read_id(asked.transaction_id)
        reader = await services.ledger.ready()
        found = None if transaction_id is None else reader.transaction(transaction_id)
        heights = [] if found is None else [found.height]
        return reply(Answer(200, to_json(heights), headers=(height_header(reader.head.height),)))

    @get(
        "/latest",
        tags=["Blocks"],
        summary="The newest block",
        operation_class=operation(ONE_BLOCK, placed=True),
        responses=problems(404),
    )
    async def latest(self, request: ApiRequest) -> Response[Block]:
        services = services_of(request)
        await reach(services, ONE_BLOCK.parse(query_of(request)).min_height)
        reader = await services.ledger.ready()
        block = reader.block(reader.head.height)
        return reply(not_found() if block is None else _answer(reader, block))

    @get(
        "/{height:str}",
        tags=["Blocks"],
        summary="A block by its height",
        description="Heights count from 1; 0, the state before the first block, gives an empty list.",
        operation_class=operation(ONE_BLOCK, placed=True),
        responses=problems(404),
    )
    async def at_height(self, request: ApiRequest, height: Height) -> Response[Block]:
        asked = ONE_BLOCK.parse(query_of(request))
        return reply(await block_at(services_of(request), height, asked.min_height))


async def block_at(services: Services, text: str, min_height: int | None) -> Answer:
    """The block at a height. What is no number is no address; what is beyond the newest is not found."""
    if not _HEIGHT.fullmatch(text):
        return no_such_address()
    await reach(services, min_height)
    reader = await services.ledger.ready()
    digits = text.lstrip("0") or "0"
    if len(digits) > _HEIGHT_DIGITS_MAX or int(digits) > reader.head.height:
        return not_found()
    block = reader.block(int(digits))
    return Answer(200, b"[]") if block is None else _answer(reader, block)


def _answer(reader: SecondaryReader, block: BlockRecord) -> Answer:
    bodies = []
    for transaction_id in block.ids:
        stored = reader.transaction(transaction_id)
        assert stored is not None, "what a block lists is stored"
        bodies.append(stored.body)
    about = {
        "time": rfc3339(block.time_ns),
        "hash": block.block_hash.hex(),
        "app_hash": block.app_hash.hex(),
        "proposer": block.proposer.hex(),
    }
    head = b'{"height":%d,"transactions":' % block.height
    whole = b"".join((head, json_array(bodies), b",", to_json(about)[1:]))
    return Answer(200, whole, headers=(height_header(block.height),))
