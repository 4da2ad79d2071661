"""Questions to the query store in MongoDB's language: documents of a collection, aggregations, its status.

What may be asked is decided by the package `query` before the store sees it; here bodies become questions.
"""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from litestar import Controller, Response, get, post
from litestar.params import PathParameter
from msgspec import Struct, field

from bcdb.http.answer import Answer, height_header, json_array, to_json
from bcdb.http.body import read_body
from bcdb.http.describe import (
    ApiRequest,
    gone_of,
    head_of,
    operation,
    problems,
    query_of,
    receive_of,
    reply,
    services_of,
)
from bcdb.http.documents import Building, FoundDocuments, MadeDocuments, StoreStatus
from bcdb.http.errors import RequestError
from bcdb.http.members import Member, Members, read_height, read_limit, read_list, read_object, read_text
from bcdb.http.params import MIN_HEIGHT, Arguments
from bcdb.http.reach import reach
from bcdb.http.services import Services
from bcdb.model import limits
from query import fields, filters, pipelines, sorting
from query.documents import COLLECTIONS
from query.store import Aggregated, Find, InvalidSearch, Page, QueryStore

PATH = "/api/v1/query"
SHOWN_CHARS_MAX = 32

Result = TypeVar("Result")
Collection = Annotated[str, PathParameter(description="One of " + ", ".join(COLLECTIONS))]


class Freshness(Struct, frozen=True):
    """What stands behind the `?` of a question."""

    min_height: int | None = None


class Question(Struct, frozen=True):
    """The body of a question for documents."""

    filter: dict[str, Any] = field(default_factory=dict)
    projection: dict[str, Any] | None = None
    sort: dict[str, Any] | None = None
    limit: int = limits.PAGE_ITEMS_DEFAULT
    after: str | None = None
    min_height: int | None = None


class Aggregation(Struct, frozen=True):
    """The body of an aggregation."""

    pipeline: list[Any]
    min_height: int | None = None


ARGUMENTS = Arguments(Freshness, strict=True, min_height=MIN_HEIGHT)
_MIN_HEIGHT = Member(read_height, MIN_HEIGHT.description, MIN_HEIGHT.schema)
QUESTION = Members(
    Question,
    filter=Member(read_object, "What the documents must match; {} or nothing matches all."),
    projection=Member(read_object, 'The fields to answer, {"path": 1}, or those to leave out, {"path": 0}.'),
    sort=Member(
        read_object,
        'The order, {"path": 1} or {"path": -1}, the first path counting most; else that of commitment.',
    ),
    limit=Member(
        read_limit,
        "How many documents a page has at most.",
        {
            "type": "integer",
            "minimum": 1,
            "maximum": limits.PAGE_ITEMS_MAX,
            "default": limits.PAGE_ITEMS_DEFAULT,
        },
    ),
    after=Member(read_text, "Where to go on: `next` of the page before.", {"type": "string"}),
    min_height=_MIN_HEIGHT,
)
AGGREGATION = Members(
    Aggregation,
    pipeline=Member(
        read_list,
        "The stages, from the documents of the collection on.",
        {"type": "array"},
        required=True,
    ),
    min_height=_MIN_HEIGHT,
)


class Query(Controller):
    """Everything below the address of the query store."""

    path = PATH

    @get(
        tags=["Query"],
        summary="The query store",
        description="How far it is behind the ledger, and how much it holds.",
        operation_class=operation(stored=True),
        responses=problems(),
    )
    async def status(self, request: ApiRequest) -> Response[StoreStatus]:
        return reply(await status_of_store(services_of(request)))

    @post(
        "/{collection:str}",
        status_code=200,
        tags=["Query"],
        summary="Find documents",
        description="Waits a moment for the newest block, unless it is told what to wait for.",
        operation_class=operation(ARGUMENTS, members=QUESTION, stored=True),
        responses=problems(404, 413, 415),
    )
    async def find(self, request: ApiRequest, collection: Collection) -> Response[FoundDocuments]:
        given, raw = await _asked(request, collection)
        asked = QUESTION.parse(raw)
        wanted = _higher(given.min_height, asked.min_height)
        return reply(await found(services_of(request), collection, asked, wanted, gone_of(request)))

    @post(
        "/{collection:str}/aggregate",
        status_code=200,
        tags=["Query"],
        summary="Aggregate documents",
        description="Offered by MongoDB only. Waits as a question for documents does.",
        operation_class=operation(ARGUMENTS, members=AGGREGATION, stored=True),
        responses=problems(404, 413, 415),
    )
    async def aggregate(self, request: ApiRequest, collection: Collection) -> Response[MadeDocuments]:
        given, raw = await _asked(request, collection)
        asked = AGGREGATION.parse(raw)
        wanted = _higher(given.min_height, asked.min_height)
        return reply(await aggregated(services_of(request), collection, asked, wanted, gone_of(request)))


async def status_of_store(services: Services) -> Answer:
    """What the store tells of itself, beside the height of the ledger."""
    status = await services.questions.status()
    ledger_height = (await services.link.newest()).height
    body = StoreStatus(
        kind=status.kind,
        height=status.height,
        ledger_height=ledger_height,
        lag_blocks=max(ledger_height - status.height, 0),
        building=Building(status.height, status.target) if status.height < status.target else None,
        text_search=status.text_search,
        counts=dict(status.counts),
    )
    return Answer(200, to_json(body), headers=(height_header(status.height),))


async def found(
    services: Services,
    collection: str,
    asked: Question,
    min_height: int | None,
    gone: Callable[[], bool],
) -> Answer:
    """A page of documents. Raises `RequestError` and as `Questions.ask` does."""
    question = _checked(lambda: _find(collection, asked))

    async def find(store: QueryStore, _height: int) -> Page:
        page = await store.find(question)
        if page.height < (min_height or 0):
            raise RequestError(
                400,
                f"`after` goes on with an answer of height {page.height}, and `min_height` asks for "
                f"{min_height}: leave one of them out",
            )
        return page

    await reach(services, min_height)
    if min_height is None and asked.after is not None:
        # The first page has decided how new the others are: there is nothing to wait for.
        min_height = 0
    page = await services.questions.ask("find", find, min_height, gone)
    body = b'{"height":%d,"documents":%b,"next":%b}' % (
        page.height,
        json_array(page.documents),
        to_json(page.next),
    )
    return Answer(200, body, headers=(height_header(page.height),))


async def aggregated(
    services: Services,
    collection: str,
    asked: Aggregation,
    min_height: int | None,
    gone: Callable[[], bool],
) -> Answer:
    """What a pipeline makes. Raises `RequestError` and as `Questions.ask` does."""
    stages = _checked(lambda: pipelines.check(asked.pipeline, collection))

    async def make(store: QueryStore, _height: int) -> Aggregated:
        return await store.aggregate(collection, stages)

    await reach(services, min_height)
    made = await services.questions.ask("aggregate", make, min_height, gone)
    body = b'{"height":%d,"documents":%b}' % (made.height, json_array(made.documents))
    return Answer(200, body, headers=(height_header(made.height),))


async def _asked(request: ApiRequest, collection: str) -> tuple[Freshness, bytes]:
    """The arguments and the body of a question. Its media type has no meaning."""
    if collection not in COLLECTIONS:
        raise RequestError(
            404,
            f"There is no collection {collection[:SHOWN_CHARS_MAX]!r}; there are {', '.join(COLLECTIONS)}",
        )
    given = ARGUMENTS.parse(query_of(request))
    return given, await read_body(head_of(request), receive_of(request), limits.QUESTION_BYTES_MAX)


def _higher(first: int | None, second: int | None) -> int | None:
    """Of what is asked in two places, that which satisfies both."""
    return max((height for height in (first, second) if height is not None), default=None)


def _find(collection: str, asked: Question) -> Find:
    paths, exclude = fields.parse(asked.projection or {}, collection)
    return Find(
        collection,
        filters.parse(asked.filter, collection),
        fields=paths,
        exclude=exclude,
        sort=sorting.parse(asked.sort or {}, collection),
        limit=asked.limit,
        after=asked.after,
    )


def _checked(read: Callable[[], Result]) -> Result:
    try:
        return read()
    except InvalidSearch as error:
        raise RequestError(400, error.text) from None
