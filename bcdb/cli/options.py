"""The options that several commands share, with the help that `bcdb.node.settings` has for each setting."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bcdb.node.settings import DEFAULT_HOME, MEANING


def _setting(name: str, *more: str, metavar: str | None = None) -> Any:
    return typer.Option(f"--{name.replace('_', '-')}", *more, help=MEANING[name][0], metavar=metavar)


def _switch(name: str) -> Any:
    flag = name.replace("_", "-")
    return typer.Option(f"--{flag}/--no-{flag}", help=MEANING[name][0])


Home = Annotated[
    Path | None,
    typer.Option("--home", help=f"The node's folder; BCDB_HOME or {DEFAULT_HOME} if not given."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Nodes = Annotated[
    list[str] | None,
    typer.Option(
        "--node",
        help="The address of a node, more than once for several; BCDB_NODE if not given.",
        metavar="URL",
    ),
]

Host = Annotated[str | None, _setting("host")]
Port = Annotated[int | None, _setting("port")]
StreamPort = Annotated[int | None, _setting("stream_port")]
Workers = Annotated[int | None, _setting("workers")]
TlsCert = Annotated[Path | None, _setting("tls_cert")]
TlsKey = Annotated[Path | None, _setting("tls_key")]
WriteKeys = Annotated[str | None, _setting("write_keys", metavar="KEY,KEY...")]
RateLimit = Annotated[int | None, _setting("rate_limit")]
LogLevel = Annotated[str | None, _setting("log_level")]
LogFormat = Annotated[str | None, _setting("log_format")]
ChainId = Annotated[str | None, _setting("chain_id")]
Mongo = Annotated[bool | None, _switch("mongo")]
MongoUri = Annotated[str | None, _setting("mongo_uri", metavar="URI")]
MongoDatabase = Annotated[str | None, _setting("mongo_database", metavar="NAME")]
TextSearch = Annotated[bool | None, _switch("text_search")]
Engine = Annotated[str | None, _setting("engine", metavar="NAME")]
P2pListen = Annotated[str | None, _setting("p2p_listen", metavar="HOST:PORT")]
P2pExternal = Annotated[str | None, _setting("p2p_external", metavar="HOST:PORT")]
CometBft = Annotated[Path | None, _setting("cometbft", metavar="FILE")]
