"""What the two index pages say; clients of the reference look into them before anything else."""

import re

from bcdb.http.answer import Scope
from bcdb.http.documents import Index, RootIndex, Versions
from bcdb.node.settings import Settings, is_loopback

API = "/api/v1/"
SOFTWARE = "BigchainDB"
VERSION = "2.2.2"
"""The version of the API that is spoken; clients compare it. bcdb's own is told at /health/live."""
DOCS = "https://docs.bigchaindb.com/projects/server/en/v2.2.2/"
_API_DOCS = DOCS + "http-client-server-api.html"
_STREAM = "/api/v1/streams/valid_transactions"
_HOST = re.compile(r"[A-Za-z0-9.-]{1,255}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")


def api_index(prefix: str, streams: str) -> Index:
    """The index below `prefix`: `/` seen from the API itself, `/api/v1/` seen from the root."""
    return Index(
        assets=f"{prefix}assets/",
        blocks=f"{prefix}blocks/",
        docs=_API_DOCS,
        metadata=f"{prefix}metadata/",
        outputs=f"{prefix}outputs/",
        streams=streams,
        transactions=f"{prefix}transactions/",
        validators=f"{prefix}validators",
    )


def root_index(streams: str) -> RootIndex:
    return RootIndex(Versions(api_index(API, streams)), DOCS, SOFTWARE, VERSION)


def streams_url(scope: Scope, head: dict[bytes, bytes], settings: Settings) -> str:
    """The address of the stream of transactions, on the host and port that the client has reached.

    A proxy on this machine may say with X-Forwarded-Proto that it was reached over TLS.
    """
    secure = scope.get("scheme") == "https"
    client = scope.get("client")
    if client and is_loopback(client[0]) and head.get(b"x-forwarded-proto") == b"https":
        secure = True
    host = head.get(b"host", b"").decode("latin-1")
    if not _HOST.fullmatch(host):
        host = settings.url.partition("://")[2]
    return f"{'wss' if secure else 'ws'}://{host}{_STREAM}"
