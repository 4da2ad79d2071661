"""One asset: what it is, and its whole graph of custody. Read in the ledger, now or as of a height."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, cast

from litestar import Controller, Response, get
from litestar.params import PathParameter
from msgspec import Raw, Struct

from bcdb.http.answer import Answer, Header, height_header, to_json
from bcdb.http.describe import ApiRequest, gone_of, operation, problems, query_of, reply, services_of
from bcdb.http.documents import HexId, Time
from bcdb.http.errors import not_found
from bcdb.http.fetch import read_id
from bcdb.http.params import (
    AFTER,
    AT_HEIGHT,
    FORMATS,
    LIMIT,
    MIN_HEIGHT,
    Argument,
    Arguments,
    link_next,
    read_format,
)
from bcdb.http.provenance import CSV, DOT, SHAPES, Provenance, read_page
from bcdb.http.reach import reach, state_at
from bcdb.http.services import Services
from bcdb.ledger.history import asset_of
from bcdb.ledger.times import rfc3339
from bcdb.model import limits

PATH = "/api/v1/assets"

AssetId = Annotated[str, PathParameter(description="The id of its CREATE: 64 lower-case hex digits")]


class State(Struct, frozen=True):
    """Which state of an asset is asked for."""

    at_height: int | None = None
    min_height: int | None = None


class Story(State, frozen=True):
    """Which part of an asset's provenance is asked for, and in which shape."""

    format: str = "json"
    limit: int = limits.PAGE_ITEMS_MAX
    after: str | None = None


STATE = Arguments(State, strict=True, at_height=AT_HEIGHT, min_height=MIN_HEIGHT)
STORY = Arguments(
    Story,
    strict=True,
    format=Argument(
        read_format,
        "`json`, `dot` for a picture by Graphviz, or `csv` for a spreadsheet.",
        {"type": "string", "enum": list(FORMATS), "default": "json"},
    ),
    at_height=AT_HEIGHT,
    min_height=MIN_HEIGHT,
    limit=replace(LIMIT, schema={**LIMIT.schema, "default": limits.PAGE_ITEMS_MAX}),
    after=AFTER,
)


class Made(Struct, frozen=True):
    """Where the transaction stands that made the asset."""

    height: int
    position: int
    time: Time


class Latest(Struct, frozen=True):
    """The last transaction of the asset."""

    transaction_id: HexId
    operation: str
    height: int
    position: int
    time: Time


class AssetState(Struct, frozen=True):
    """An asset after the block `height`. `issuers` have signed it, `amount` is the sum of all its shares."""

    id: HexId
    data: dict[str, Any] | None
    issuers: list[str]
    amount: str
    created: Made
    latest: Latest
    height: int


class OneAsset(Controller):
    """Everything below the address of one asset."""

    path = PATH

    @get(
        "/{asset_id:str}",
        tags=["Assets"],
        summary="An asset",
        description="What it is, who issued how much of it, and what was done with it last.",
        operation_class=operation(STATE, stored=True),
        responses=problems(404),
    )
    async def fetch(self, request: ApiRequest, asset_id: AssetId) -> Response[AssetState]:
        return reply(await asset_at(services_of(request), asset_id, STATE.parse(query_of(request))))

    @get(
        "/{asset_id:str}/provenance",
        tags=["Assets"],
        summary="The provenance of an asset",
        description=(
            "Its whole graph of custody: every transaction in order, from whom and to whom, and what became "
            "of what they got. A page ends early when it has become long."
        ),
        operation_class=operation(STORY, paged=True, stored=True, shapes=(DOT.decode(), CSV.decode())),
        responses=problems(404),
    )
    async def provenance(self, request: ApiRequest, asset_id: AssetId) -> Response[Provenance]:
        asked = STORY.parse(query_of(request))
        return reply(await provenance_of(services_of(request), asset_id, asked, gone_of(request)))


async def asset_at(services: Services, text: str, asked: State) -> Answer:
    """The asset of this id; 404 for any other text, and for a height at which it was not there yet."""
    await reach(services, asked.min_height)
    reader = await services.ledger.ready()
    height = state_at(reader, asked.at_height)
    asset_id = read_id(text)
    asset = None if asset_id is None else asset_of(reader, asset_id, height)
    if asset is None:
        return not_found()
    (latest,) = reader.transactions_of(asset.id, newest=True, at_height=height, limit=1).items
    body = AssetState(
        asset.id.hex(),
        # As it stands in the transaction: nothing is decoded on the way.
        cast(Any, Raw(asset.data)),
        list(asset.issuers),
        str(asset.amount),
        Made(asset.height, asset.position, rfc3339(reader.block_time(asset.height))),
        Latest(
            latest.id.hex(),
            latest.operation,
            latest.height,
            latest.position,
            rfc3339(reader.block_time(latest.height)),
        ),
        height,
    )
    return Answer(200, to_json(body), headers=(height_header(height),))


async def provenance_of(services: Services, text: str, asked: Story, gone: Callable[[], bool]) -> Answer:
    """A page of the provenance; 404 where there is no asset. All pages tell the state of the first one."""
    await reach(services, asked.min_height)
    reader = await services.ledger.ready()
    height = state_at(reader, asked.at_height)
    asset_id = read_id(text)
    if asset_id is None or not reader.transactions_of(asset_id, at_height=height, limit=1).items:
        return not_found()
    shape = SHAPES[asked.format](asset_id, height)
    body, after = await services.turns.whole(
        read_page(reader, asset_id, shape, asked.after, asked.limit), gone
    )
    headers: list[Header] = [height_header(height)]
    if after is not None:
        arguments: Mapping[str, str | None] = {
            "format": asked.format,
            "at_height": str(height),
            "limit": str(asked.limit),
            "after": after,
        }
        headers.append(link_next(f"{PATH}/{text}/provenance", arguments))
    return Answer(200, body, shape.media_type, tuple(headers))
