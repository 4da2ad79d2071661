"""How a handler's arguments, body and errors come into the OpenAPI document.

The tables that read the arguments are the ones that describe them, so the document can't tell another story.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from litestar import Request, Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import (
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
)

from bcdb.http.answer import Answer, Receive, Scope
from bcdb.http.answer import gone_of as gone_of_scope
from bcdb.http.documents import ArgumentProblem, Problem, SignedTransaction
from bcdb.http.members import Members
from bcdb.http.params import Argument, Arguments
from bcdb.http.services import Services

ApiRequest = Request[Any, Any, Any]

_MEANING = {
    400: "The transaction breaks a rule, the question can't be answered, or an argument is missing or wrong",
    403: "This node does not take transactions of this issuer",
    404: "It is not there",
    413: "The body is too long",
    415: "The body is encoded",
    429: "Too many requests, or too much is pending; try again after Retry-After seconds",
    503: "The part that should answer is starting, stopping or gone",
    504: "Accepted and durable, but not yet committed",
}


def services_of(request: ApiRequest) -> Services:
    services: Services = request.app.state.services
    return services


def scope_of(request: ApiRequest) -> Scope:
    return cast(Scope, request.scope)


def query_of(request: ApiRequest) -> bytes:
    query: bytes = request.scope["query_string"]
    return query


def head_of(request: ApiRequest) -> dict[bytes, bytes]:
    """The headers by lower-case name; of a repeated one the last."""
    return dict(request.scope["headers"])


def receive_of(request: ApiRequest) -> Receive:
    return cast(Receive, request.receive)


def gone_of(request: ApiRequest) -> Callable[[], bool]:
    """As `gone_of` of a scope."""
    return gone_of_scope(scope_of(request))


def reply(answer: Answer) -> Response[Any]:
    """An answer as the framework wants it."""
    kind = (b"content-type", answer.media_type)
    return Response(
        answer.body,
        status_code=answer.status,
        media_type=answer.media_type.decode(),
        headers={name.decode(): value.decode("latin-1") for name, value in (kind, *answer.headers)},
    )


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """The errors that a route may answer, besides those that any may (400, 429, 503)."""
    return {
        status: ResponseSpec(
            Problem | ArgumentProblem if status == 400 else Problem,
            description=_MEANING[status],
            generate_examples=False,
        )
        for status in sorted({*statuses, 400, 429, 503})
    }


def operation(
    arguments: Arguments[Any] | None = None,
    *,
    paged: bool = False,
    body: str | None = None,
    members: Members[Any] | None = None,
    stored: bool = False,
    placed: bool = False,
    shapes: Sequence[str] = (),
) -> type[Operation]:
    """An operation of the document with these arguments; `body` is the media type of a body
    that has a transaction, or one on each line, `members` what a JSON object as its body holds.

    `paged`: the answer may have a next page. `stored`: it tells its height, as all do that come from
    the query store. `placed`: it tells the height of the block that it is about, if it stands in one.
    `shapes`: media types of text that it can have instead of JSON.
    """
    table: Mapping[str, Argument] = arguments.table if arguments else {}

    @dataclass
    class Described(Operation):
        def __post_init__(self) -> None:
            self.parameters = [*(self.parameters or ()), *(_parameter(*item) for item in table.items())]
            if body:
                schema = Reference(ref=f"#/components/schemas/{SignedTransaction.__name__}")
                self.request_body = RequestBody({body: OpenAPIMediaType(schema=schema)}, required=True)
            if members:
                content = {"application/json": OpenAPIMediaType(schema=_object(members))}
                self.request_body = RequestBody(content, required=True)
            success = next(
                (told for status, told in (self.responses or {}).items() if status[0] == "2"), None
            )
            headers = {
                **(_LINK if paged else {}),
                **(_HEIGHT if stored else {}),
                **(_PLACE if placed else {}),
            }
            if headers and isinstance(success, OpenAPIResponse):
                success.headers = dict(headers)
            if shapes and isinstance(success, OpenAPIResponse):
                text = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))
                success.content = {**(success.content or {}), **dict.fromkeys(shapes, text)}

    return Described


_LINK = {
    "Link": OpenAPIHeader(
        schema=Schema(type=OpenAPIType.STRING),
        description='The next page, with rel="next" (RFC 8288); none on the last one',
        required=False,
    )
}
_HEIGHT = {
    "Bcdb-Height": OpenAPIHeader(
        schema=Schema(type=OpenAPIType.INTEGER),
        description="The height of the block up to which the answer is good",
        required=True,
    )
}

_PLACE = {
    "Bcdb-Height": OpenAPIHeader(
        schema=Schema(type=OpenAPIType.INTEGER),
        description="The height of the block in which it stands, left out while it stands in none",
        required=False,
    )
}


def _object(members: Members[Any]) -> Schema:
    """The schema of a body; a member that is null counts as left out."""
    properties = {
        name: Schema(description=member.description, **cast(dict[str, Any], member.schema))
        for name, member in members.table.items()
    }
    required = [name for name, member in members.table.items() if member.required]
    return Schema(
        type=OpenAPIType.OBJECT,
        properties=cast(dict[str, Any], properties),
        required=required or None,
        additional_properties=False,
    )


def _parameter(name: str, argument: Argument) -> Parameter:
    return Parameter(
        name=name,
        param_in="query",
        description=argument.description,
        required=argument.required,
        schema=Schema(**cast(dict[str, Any], argument.schema)),
    )
