"""Who may read an answer in a browser: everybody, told in the headers that clients of the reference know.

There are no cookies or credentials here, so an answer to one origin gives away nothing that another lacks.
"""

from bcdb.http.answer import Header, visible

METHODS = b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
EXPOSE = (b"access-control-expose-headers", b"Bcdb-Height, Link, Retry-After")
"""Headers that scripts may read; they see them only when they are named here."""
ANY: tuple[Header, ...] = ((b"access-control-allow-origin", b"*"), EXPOSE)


def cors_headers(origin: bytes | None) -> tuple[Header, ...]:
    """The headers for an answer to a request with this `Origin`."""
    origin = visible(origin)
    if origin is None:
        return ANY
    return ((b"access-control-allow-origin", origin), (b"vary", b"Origin"), EXPOSE)


def preflight_headers(head: dict[bytes, bytes]) -> tuple[Header, ...]:
    """What an answer to `OPTIONS` has besides `cors_headers` when a browser asks before it sends."""
    if head.get(b"access-control-request-method", b"").upper() not in METHODS.split(b", "):
        return ()
    wanted = visible(head.get(b"access-control-request-headers"))
    allow = ((b"access-control-allow-headers", wanted),) if wanted else ()
    return (*allow, (b"access-control-allow-methods", METHODS))
