"""What a public key holds of each asset. Read in the ledger, now or as of a height."""

from collections.abc import Callable
from typing import Annotated

from litestar import Controller, Response, get
from litestar.params import PathParameter
from msgspec import Struct

from bcdb.http.answer import Answer, Header, height_header, to_json
from bcdb.http.describe import ApiRequest, gone_of, operation, problems, query_of, reply, services_of
from bcdb.http.documents import HexId
from bcdb.http.errors import ArgumentError
from bcdb.http.params import AFTER, AT_HEIGHT, BAD_KEY, LIMIT, MIN_HEIGHT, Arguments, link_next
from bcdb.http.reach import reach, state_at
from bcdb.http.services import Services
from bcdb.model import decode_key, limits
from bcdb.model.errors import ValidationError

PATH = "/api/v1/keys"

PublicKey = Annotated[str, PathParameter(description="An Ed25519 public key in base58")]


class Asked(Struct, frozen=True):
    """Which part of the holdings is asked for."""

    at_height: int | None = None
    min_height: int | None = None
    limit: int = limits.PAGE_ITEMS_DEFAULT
    after: str | None = None


HOLDINGS = Arguments(Asked, strict=True, at_height=AT_HEIGHT, min_height=MIN_HEIGHT, limit=LIMIT, after=AFTER)


class Held(Struct, frozen=True):
    """What is held of an asset: the sum of the amounts of unspent outputs, and how many these are."""

    asset_id: HexId
    amount: str
    outputs: int


class Holdings(Struct, frozen=True):
    """What a key holds after the block `height`, in order of the ids of the assets."""

    public_key: str
    height: int
    holdings: list[Held]


class Keys(Controller):
    """Everything below the address of keys."""

    path = PATH

    @get(
        "/{public_key:str}/holdings",
        tags=["Keys"],
        summary="The holdings of a public key",
        description=(
            "Of each asset the sum of the unspent outputs whose condition names the key, alone or among "
            "others."
        ),
        operation_class=operation(HOLDINGS, paged=True, stored=True),
        responses=problems(),
    )
    async def holdings(self, request: ApiRequest, public_key: PublicKey) -> Response[Holdings]:
        asked = HOLDINGS.parse(query_of(request))
        return reply(await holdings_of(services_of(request), public_key, asked, gone_of(request)))


async def holdings_of(services: Services, public_key: str, asked: Asked, gone: Callable[[], bool]) -> Answer:
    """A page of holdings. All pages tell the state that the first one does."""
    try:
        key = decode_key(public_key)
    except ValidationError:
        raise ArgumentError("public_key", BAD_KEY) from None
    await reach(services, asked.min_height)
    reader = await services.ledger.ready()
    height = state_at(reader, asked.at_height)
    # What is held now needs no look at what was spent.
    past = None if height == reader.head.height else height
    page = await services.turns.whole(
        reader.read_holdings(key, at_height=past, after=asked.after, limit=asked.limit), gone
    )
    held = [Held(item.asset_id.hex(), str(item.amount), item.outputs) for item in page.items]
    headers: list[Header] = [height_header(height)]
    if page.next is not None:
        arguments = {"at_height": str(height), "limit": str(asked.limit), "after": page.next}
        headers.append(link_next(f"{PATH}/{public_key}/holdings", arguments))
    return Answer(200, to_json(Holdings(public_key, height, held)), headers=tuple(headers))
