"""The node itself: the index pages, its validators, its health and figures, and the OpenAPI document."""

from litestar import Response, get

from bcdb import __version__
from bcdb.http import metrics
from bcdb.http.answer import Answer, to_json
from bcdb.http.describe import ApiRequest, head_of, problems, reply, scope_of, services_of
from bcdb.http.documents import Index, Live, PublicKey, Ready, RootIndex, Validator
from bcdb.http.index import api_index, root_index, streams_url
from bcdb.model.errors import Unavailable


@get(
    "/",
    tags=["Node"],
    summary="What this server is",
    responses=problems(),
)
async def root(request: ApiRequest) -> Response[RootIndex]:
    return reply(Answer(200, to_json(root_index(_streams(request)))))


@get(
    "/api/v1",
    tags=["Node"],
    summary="Where things are",
    responses=problems(),
)
async def api(request: ApiRequest) -> Response[Index]:
    return reply(Answer(200, to_json(api_index("/", _streams(request)))))


@get(
    "/api/v1/validators",
    tags=["Node"],
    summary="The validators of the chain",
    responses=problems(),
)
async def validators(request: ApiRequest) -> Response[list[Validator]]:
    info = await services_of(request).link.info()
    found = [Validator(PublicKey("ed25519-base64", key), power) for key, power in info.validators]
    return reply(Answer(200, to_json(found)))


@get(
    "/health/live",
    tags=["Operation"],
    summary="Whether the server runs",
    responses=problems(),
)
async def live(request: ApiRequest) -> Response[Live]:
    return reply(Answer(200, to_json(Live("live", __version__))))


@get(
    "/health/ready",
    tags=["Operation"],
    summary="Whether the server can take and answer requests",
    responses=problems(),
)
async def ready(request: ApiRequest) -> Response[Ready]:
    services = services_of(request)
    if not services.link.is_open:
        raise Unavailable("The node process is gone")
    info = await services.link.info()
    if info.engine_trouble:
        raise Unavailable(f"The engine does not order: {info.engine_trouble}")
    head = (await services.ledger.ready()).head
    store = await services.questions.look()
    projected = store.height if store.answers else None
    body = Ready(
        "ready",
        __version__,
        info.chain_id,
        head.height,
        info.pending_count,
        projected,
        head.app_hash.hex(),
        info.engine,
        info.peers,
        info.catching_up,
        info.is_validator,
    )
    return reply(Answer(200, to_json(body)))


@get(
    "/metrics",
    tags=["Operation"],
    summary="Figures for Prometheus",
    media_type="text/plain",
    responses=problems(),
)
async def figures(request: ApiRequest) -> Response[str]:
    return reply(await metrics.exposition(services_of(request)))


def _streams(request: ApiRequest) -> str:
    return streams_url(scope_of(request), head_of(request), services_of(request).settings)


HANDLERS = (root, api, validators, live, ready, figures)
