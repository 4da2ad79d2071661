"""Between the client's steps and httpx: requests out, answers and failures in."""

import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from bcdb.client.steps import Lost, Request, Response

F = TypeVar("F", bound=Callable[..., Any])
Verify = bool | str | ssl.SSLContext

CONNECT_S_MAX = 5.0
DIRECT = dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]"))
"""Addresses that are never reached through a proxy, whatever the environment says."""


def outgoing(request: Request) -> dict[str, Any]:
    """The arguments of httpx's `request`."""
    return {
        "method": request.method,
        "url": request.url,
        "content": request.content,
        "headers": {"content-type": request.media_type} if request.content is not None else {},
        "timeout": httpx.Timeout(request.timeout_s, connect=min(request.timeout_s, CONNECT_S_MAX)),
    }


def received(response: httpx.Response) -> Response:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Response(response.status_code, headers, response.content)


def lost(error: httpx.HTTPError) -> Lost:
    never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return Lost(str(error) or type(error).__name__, sent=not never_sent)


def documented(call: Callable[..., Any]) -> Callable[[F], F]:
    """Give a client's method the docstring of the call that it runs."""

    def give(method: F) -> F:
        method.__doc__ = call.__doc__
        return method

    return give
