"""Full text search: assets by their data, transactions by their metadata."""

from collections.abc import Callable

from litestar import Controller, Response, get
from msgspec import Struct

from bcdb.http.answer import Answer, Header, height_header, json_array
from bcdb.http.describe import ApiRequest, gone_of, operation, problems, query_of, reply, services_of
from bcdb.http.documents import FoundAsset, FoundMetadata
from bcdb.http.errors import RequestError
from bcdb.http.params import (
    AFTER,
    MIN_HEIGHT,
    Argument,
    Arguments,
    link_next,
    read_search_limit,
    read_text,
)
from bcdb.http.reach import reach
from bcdb.http.search import Kind, search
from bcdb.http.services import Services
from bcdb.model import limits

API = "/api/v1/"
EMPTY = "text_search cannot be empty"


class Query(Struct, frozen=True):
    """What is searched for."""

    search: str
    limit: int = limits.PAGE_ITEMS_MAX
    after: str | None = None
    min_height: int | None = None


QUERY = Arguments(
    Query,
    search=Argument(
        read_text,
        'Words of which one must occur; "a phrase" that must occur; -word that must not.',
        {"type": "string", "min_length": 1, "max_length": limits.SEARCH_TEXT_CHARS_MAX},
        required=True,
    ),
    limit=Argument(
        read_search_limit,
        f"How many items a page has at most; 0 means {limits.PAGE_ITEMS_MAX}, which is also the bound.",
        {"type": "integer", "default": 0},
    ),
    after=AFTER,
    min_height=MIN_HEIGHT,
)


class Assets(Controller):
    """Search in the data of assets."""

    path = API + "assets"

    @get(
        tags=["Search"],
        summary="Search assets",
        description="Best match first. Waits a moment for the newest block to be searchable.",
        operation_class=operation(QUERY, paged=True, stored=True),
        responses=problems(),
    )
    async def search(self, request: ApiRequest) -> Response[list[FoundAsset]]:
        asked = QUERY.parse(query_of(request))
        return reply(await found(services_of(request), "assets", asked, gone_of(request)))


class Metadata(Controller):
    """Search in the metadata of transactions."""

    path = API + "metadata"

    @get(
        tags=["Search"],
        summary="Search metadata",
        description="Best match first. Waits a moment for the newest block to be searchable.",
        operation_class=operation(QUERY, paged=True, stored=True),
        responses=problems(),
    )
    async def search(self, request: ApiRequest) -> Response[list[FoundMetadata]]:
        asked = QUERY.parse(query_of(request))
        return reply(await found(services_of(request), "metadata", asked, gone_of(request)))


async def found(services: Services, kind: Kind, asked: Query, gone: Callable[[], bool]) -> Answer:
    """A page of matches."""
    if not asked.search:
        raise RequestError(400, EMPTY)
    if len(asked.search) > limits.SEARCH_TEXT_CHARS_MAX:
        raise RequestError(
            400,
            f"A search has at most {limits.SEARCH_TEXT_CHARS_MAX} characters, this one {len(asked.search)}",
        )
    await reach(services, asked.min_height)
    # Where to go on is told by a page that was there: there is nothing to wait for.
    min_height = 0 if asked.min_height is None and asked.after is not None else asked.min_height
    page = await search(services.questions, kind, asked.search, asked.limit, asked.after, min_height, gone)
    headers: list[Header] = [height_header(page.height)]
    if page.next is not None:
        arguments = {"search": asked.search, "limit": str(asked.limit), "after": page.next}
        headers.append(link_next(API + kind, arguments))
    return Answer(200, json_array(page.documents), headers=tuple(headers))
