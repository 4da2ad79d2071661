"""The outputs of a public key: what somebody owns or has owned. Read in the ledger, now or as of a height."""

from collections.abc import Callable

from litestar import Controller, Response, get
from msgspec import Struct

from bcdb.http.answer import Answer, Header, height_header, json_array
from bcdb.http.describe import ApiRequest, gone_of, operation, problems, query_of, reply, services_of
from bcdb.http.documents import OutputReference
from bcdb.http.params import (
    AFTER,
    AT_HEIGHT,
    LIMIT,
    MIN_HEIGHT,
    Argument,
    Arguments,
    link_next,
    read_boolean,
    read_key,
)
from bcdb.http.reach import reach, state_at
from bcdb.http.services import Services
from bcdb.model import decode_key, limits
from bcdb.model.errors import ValidationError

PATH = "/api/v1/outputs"


class List(Struct, frozen=True):
    """What is asked of the list."""

    public_key: str
    spent: bool | None = None
    at_height: int | None = None
    min_height: int | None = None
    limit: int = limits.PAGE_ITEMS_DEFAULT
    after: str | None = None


LIST = Arguments(
    List,
    strict=True,
    public_key=Argument(
        read_key,
        "An Ed25519 public key in base58.",
        {"type": "string", "pattern": "^[1-9A-HJ-NP-Za-km-z]{43,44}$"},
        required=True,
    ),
    spent=Argument(read_boolean, "Only spent ones, or only unspent ones.", {"type": "boolean"}),
    at_height=AT_HEIGHT,
    min_height=MIN_HEIGHT,
    limit=LIMIT,
    after=AFTER,
)


class Outputs(Controller):
    """The list of outputs."""

    path = PATH

    @get(
        tags=["Outputs"],
        summary="The outputs of a public key",
        description="Those whose condition names the key, oldest first.",
        operation_class=operation(LIST, paged=True, stored=True),
        responses=problems(),
    )
    async def of_key(self, request: ApiRequest) -> Response[list[OutputReference]]:
        asked = LIST.parse(query_of(request))
        return reply(await outputs_of(services_of(request), asked, gone_of(request)))


async def outputs_of(services: Services, asked: List, gone: Callable[[], bool]) -> Answer:
    """A page of outputs; a text that only looks like a key has none, as in the reference."""
    await reach(services, asked.min_height)
    reader = await services.ledger.ready()
    height = state_at(reader, asked.at_height)
    headers: list[Header] = [height_header(height)]
    try:
        key = decode_key(asked.public_key)
    except ValidationError:
        return Answer(200, b"[]", headers=tuple(headers))
    # Without a height each page is as new as it can be, as the list always was.
    page = await services.turns.whole(
        reader.read_outputs(
            key, spent=asked.spent, at_height=asked.at_height, after=asked.after, limit=asked.limit
        ),
        gone,
    )
    items = [
        f'{{"transaction_id":"{item.transaction_id.hex()}","output_index":{item.output_index}}}'.encode()
        for item in page.items
    ]
    if page.next is not None:
        arguments = {
            "public_key": asked.public_key,
            "spent": None if asked.spent is None else str(asked.spent).lower(),
            "at_height": None if asked.at_height is None else str(asked.at_height),
            "limit": str(asked.limit),
            "after": page.next,
        }
        headers.append(link_next(PATH, arguments))
    return Answer(200, json_array(items), headers=tuple(headers))
