"""The typed web framework behind the hot routes: its routes, its errors in our shapes, the OpenAPI document.

The framework's own texts never reach a client.
"""

import logging
import re
from typing import Any

from litestar import Litestar, MediaType, Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import License
from litestar.routes import HTTPRoute

from bcdb import __version__
from bcdb.http.body import Disconnected
from bcdb.http.describe import reply
from bcdb.http.errors import answer_error, internal, method_not_allowed, no_such_address, refusal
from bcdb.http.routes.assets import OneAsset
from bcdb.http.routes.blocks import Blocks
from bcdb.http.routes.keys import Keys
from bcdb.http.routes.node import HANDLERS
from bcdb.http.routes.outputs import Outputs
from bcdb.http.routes.query import Query
from bcdb.http.routes.search import Assets, Metadata
from bcdb.http.routes.transactions import Transactions
from bcdb.http.services import Services
from bcdb.model.errors import BcdbError

log = logging.getLogger(__name__)

OPENAPI_PATH = "/openapi.json"
_ABOUT = (
    "The HTTP interface of a bcdb node. Unmodified clients of BigchainDB 2.2 speak a part of it; lists have "
    "pages, and errors are told in sentences. All addresses answer with and without a slash at the end. "
    "What is committed is also told over WebSocket: /api/v1/streams/valid_transactions tells transactions, "
    "/api/v1/streams/valid_blocks blocks, both from a height on with ?from_height=N."
)


def make_framework(services: Services | None) -> Litestar:
    """The application of all routes. Without `services` it is good for its OpenAPI document only."""
    return Litestar(
        route_handlers=[Transactions, Outputs, Assets, OneAsset, Keys, Metadata, Query, Blocks, *HANDLERS],
        state=State({"services": services}),
        exception_handlers={
            HTTPException: _on_http_exception,
            BcdbError: _on_bcdb_error,
            Exception: _on_exception,
        },
        openapi_config=OpenAPIConfig(
            title="bcdb",
            version=__version__,
            description=_ABOUT,
            license=License(name="Apache-2.0", identifier="Apache-2.0"),
            path=OPENAPI_PATH,
            render_plugins=[JsonRenderPlugin(path="/", media_type=MediaType.JSON)],
        ),
        logging_config=None,
        debug=False,
    )


def _on_bcdb_error(_request: Request[Any, Any, Any], error: BcdbError) -> Response[Any]:
    return reply(answer_error(error))


def _on_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    if error.status_code == 404:
        return reply(no_such_address())
    if error.status_code == 405:
        return reply(method_not_allowed(allowed_methods(request.app, request.scope["path"])))
    if error.status_code < 500:
        return reply(refusal(error.status_code, error.detail))
    log.error("A request failed: %s", error)
    return reply(internal())


def _on_exception(_request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    if isinstance(error, Disconnected):
        return reply(refusal(400, "The request was cut short"))
    log.error("A request failed", exc_info=error)
    return reply(internal())


def allowed_methods(framework: Litestar, path: str) -> str:
    """The methods of an address, for the `Allow` header."""
    path = "/" + path.strip("/")
    methods: set[str] = set()
    for route in framework.routes:
        if isinstance(route, HTTPRoute) and re.fullmatch(_pattern(route.path_format), path):
            methods |= set(route.methods)
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods))


def _pattern(template: str) -> str:
    return "/".join("[^/]+" if part.startswith("{") else re.escape(part) for part in template.split("/"))
