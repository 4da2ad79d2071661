"""The commands of `bcdb` and their arguments; what they do is in the modules beside this one."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import bcdb
from bcdb.cli import options as o
from bcdb.cli.network_commands import engine, network, testnet
from bcdb.cli.screen import note, print_json, readable_errors, say
from bcdb.node.settings import absolute, explain_settings, read_settings

app = typer.Typer(
    name="bcdb",
    help="A permissioned blockchain database: run a node, make keys, send transactions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
keys = typer.Typer(help="Make keys.", no_args_is_help=True)
tx = typer.Typer(help="Send and read transactions.", no_args_is_help=True)
config = typer.Typer(help="Look at the settings of a node.", no_args_is_help=True)
query = typer.Typer(help="Look after the copy of the ledger that searches ask.", no_args_is_help=True)
app.add_typer(keys, name="keys")
app.add_typer(tx, name="tx")
app.add_typer(config, name="config")
app.add_typer(query, name="query")
app.add_typer(network, name="network")
app.add_typer(testnet, name="testnet")
app.add_typer(engine, name="engine")

KeyFile = Annotated[
    Path, typer.Option("--key", help="The key file to sign with, as `bcdb keys new` makes it.")
]
To = Annotated[
    list[str] | None,
    typer.Option(
        "--to", help="Who gets it, and how much (1 if not given); again for more.", metavar="KEY[:AMOUNT]"
    ),
]
Heirs = Annotated[
    list[str],
    typer.Option(
        "--to",
        help="Who gets it, and how much; all of it if this is the only one and names no amount, else 1.",
        metavar="KEY[:AMOUNT]",
    ),
]
Metadata = Annotated[str | None, typer.Option(help="JSON object, or @FILE.", metavar="JSON")]
Mode = Annotated[str, typer.Option(help="Return once it is committed (commit), or durable (sync, async).")]


def _version(wanted: bool) -> None:
    if wanted:
        say(bcdb.__version__)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A permissioned blockchain database: run a node, make keys, send transactions."""


@app.command()
@readable_errors
def init(
    home: o.Home = None,
    chain_id: o.ChainId = None,
    host: o.Host = None,
    port: o.Port = None,
    stream_port: o.StreamPort = None,
    workers: o.Workers = None,
    mongo: o.Mongo = None,
    mongo_uri: o.MongoUri = None,
    mongo_database: o.MongoDatabase = None,
    text_search: o.TextSearch = None,
    engine: o.Engine = None,
    p2p_listen: o.P2pListen = None,
    p2p_external: o.P2pExternal = None,
    as_json: o.AsJson = False,
) -> None:
    """Make a node's folder: config.toml with a chain id, and the node's key. What exists is kept."""
    from bcdb.cli.home import make_home
    from bcdb.cli.start import store_of

    flags = {
        "chain_id": chain_id,
        "host": host,
        "port": port,
        "stream_port": stream_port,
        "workers": workers,
        "mongo": mongo,
        "mongo_uri": mongo_uri,
        "mongo_database": mongo_database,
        "text_search": text_search,
        "engine": engine,
        "p2p_listen": p2p_listen,
        "p2p_external": p2p_external,
    }
    settings, made = make_home(home, flags, kept=flags)
    if as_json:
        print_json(
            {"home": str(settings.home), "chain_id": settings.chain_id, "made": [str(path) for path in made]}
        )
        return
    for path in made:
        say(f"Made {path}")
    say(f"Searches will be answered by {store_of(settings)}")
    if settings.engine == "cometbft" and not settings.genesis_path.exists():
        say(f"The home {settings.home} is ready for a network: bcdb network card --home {settings.home} ...")
    else:
        place = settings.home
        say(f"The home {place} of chain {settings.chain_id} is ready: bcdb start --home {place}")


@app.command()
@readable_errors
def start(
    home: o.Home = None,
    host: o.Host = None,
    port: o.Port = None,
    stream_port: o.StreamPort = None,
    workers: o.Workers = None,
    tls_cert: o.TlsCert = None,
    tls_key: o.TlsKey = None,
    write_keys: o.WriteKeys = None,
    rate_limit: o.RateLimit = None,
    log_level: o.LogLevel = None,
    log_format: o.LogFormat = None,
    chain_id: o.ChainId = None,
    mongo: o.Mongo = None,
    mongo_uri: o.MongoUri = None,
    mongo_database: o.MongoDatabase = None,
    text_search: o.TextSearch = None,
    engine: o.Engine = None,
    p2p_listen: o.P2pListen = None,
    p2p_external: o.P2pExternal = None,
    cometbft: o.CometBft = None,
) -> None:
    """Run a node in the foreground, making what is missing in its folder; Ctrl-C or SIGTERM stops it."""
    from bcdb.cli.start import run_node

    run_node(
        home,
        {
            "host": host,
            "port": port,
            "stream_port": stream_port,
            "workers": workers,
            "tls_cert": absolute(tls_cert) if tls_cert else None,
            "tls_key": absolute(tls_key) if tls_key else None,
            "write_keys": write_keys,
            "rate_limit": rate_limit,
            "log_level": log_level,
            "log_format": log_format,
            "chain_id": chain_id,
            "mongo": mongo,
            "mongo_uri": mongo_uri,
            "mongo_database": mongo_database,
            "text_search": text_search,
            "engine": engine,
            "p2p_listen": p2p_listen,
            "p2p_external": p2p_external,
            "cometbft": absolute(cometbft) if cometbft else None,
        },
    )


@app.command()
@readable_errors
def status(node: o.Nodes = None, home: o.Home = None, as_json: o.AsJson = False) -> None:
    """Ask a running node how it is; exit code 1 if it is not ready."""
    from bcdb.cli.talk import connect

    with connect(node, home) as client:
        found = client.node()
    if as_json:
        print_json(found)
    else:
        say(f"{found.url}: {'ready' if found.ready else 'NOT READY: ' + found.reason}")
        say(f"  version    {found.version}")
        if found.ready:
            say(f"  chain      {found.chain_id}")
            say(f"  height     {found.height}")
            say(f"  pending    {found.pending}")
            behind = None if found.projected_height is None else found.height - found.projected_height
            say(f"  searches   {'not available' if behind is None else f'{behind} blocks behind'}")
            if found.engine == "cometbft":
                say(
                    f"  network    {found.peers} peers, {'a validator' if found.validator else 'an observer'}"
                )
                say(f"  app hash   {found.app_hash}")
            if found.catching_up:
                say("  It is catching up: it fetches blocks that the others have.")
    if not found.ready:
        raise typer.Exit(1)


@keys.command("new")
@readable_errors
def keys_new(
    out: Annotated[Path, typer.Option("--out", help="The file to make; readable by you alone.")],
    as_json: o.AsJson = False,
) -> None:
    """Make a key pair in a new file and print the public key."""
    from bcdb.model.keys import KeyPair
    from bcdb.node.keyfile import write_key_file

    pair = KeyPair.generate()
    write_key_file(out, pair)
    if as_json:
        print_json({"public_key": pair.public_key, "file": str(out)})
    else:
        say(pair.public_key)
        note(f"The private key is in {out}; whoever has that file can sign as you.")


@tx.command("create")
@readable_errors
def tx_create(
    key: KeyFile,
    asset: Annotated[str, typer.Option(help="The asset's data: a JSON object, or @FILE.", metavar="JSON")],
    metadata: Metadata = None,
    to: To = None,
    mode: Mode = "commit",
    node: o.Nodes = None,
    as_json: o.AsJson = False,
) -> None:
    """Register an asset. Without --to the issuer owns it, with an amount of 1."""
    from bcdb.cli.transactions import create

    create(node, key, asset=asset, metadata=metadata, to=to or [], mode=mode, as_json=as_json)


@tx.command("transfer")
@readable_errors
def tx_transfer(
    transaction_id: Annotated[str, typer.Argument(help="The transaction with the output to spend.")],
    key: KeyFile,
    to: Heirs,
    output: Annotated[
        int | None, typer.Option(help="The index of the output; the only one of this key if not given.")
    ] = None,
    metadata: Metadata = None,
    mode: Mode = "commit",
    node: o.Nodes = None,
    as_json: o.AsJson = False,
) -> None:
    """Hand an output to new owners. What is left of its amount goes back to the key that signs."""
    from bcdb.cli.transactions import transfer

    transfer(node, transaction_id, key, to=to, output=output, metadata=metadata, mode=mode, as_json=as_json)


@tx.command("get")
@readable_errors
def tx_get(
    transaction_id: Annotated[str, typer.Argument(help="64 hex digits.")],
    status_only: Annotated[
        bool,
        typer.Option("--status", help="Print what became of it instead; also for what is not committed."),
    ] = False,
    node: o.Nodes = None,
    as_json: o.AsJson = False,
) -> None:
    """Print a committed transaction, or the status of an accepted one."""
    from bcdb.cli.transactions import get

    get(node, transaction_id, status_only=status_only, as_json=as_json)


@app.command()
@readable_errors
def fsck(
    home: o.Home = None,
    store: Annotated[
        bool,
        typer.Option("--store", help="Compare the copy for searches with the ledger, document by document."),
    ] = False,
    mongo: o.Mongo = None,
    mongo_uri: o.MongoUri = None,
    mongo_database: o.MongoDatabase = None,
    as_json: o.AsJson = False,
) -> None:
    """Read a stopped node's whole ledger again and check it; exit code 1 for faults, 2 if it can't be."""
    from bcdb.cli.checking import check_home, check_store

    if store:
        flags = {"mongo": mongo, "mongo_uri": mongo_uri, "mongo_database": mongo_database}
        check_store(home, flags, as_json=as_json)
    else:
        check_home(home, as_json=as_json)


@app.command()
@readable_errors
def doctor(home: o.Home = None, as_json: o.AsJson = False) -> None:
    """Tell what a node lacks, in its folder and on its machine, and how to get it; exit code 1 for a lack."""
    from bcdb.cli.doctor import diagnose

    diagnose(home, as_json=as_json)


@query.command("status")
@readable_errors
def query_status(node: o.Nodes = None, home: o.Home = None, as_json: o.AsJson = False) -> None:
    """Print how far the copy for searches is behind the ledger, and what is in it."""
    from bcdb.cli.querying import show_status

    show_status(node, home, as_json=as_json)


@query.command("rebuild")
@readable_errors
def query_rebuild(
    home: o.Home = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Show how it goes on until it is done.")
    ] = True,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
) -> None:
    """Drop the copy for searches and make it anew from the ledger; the node need not stop for that."""
    from bcdb.cli.querying import rebuild

    rebuild(home, wait=wait, sure=yes)


@config.command("show")
@readable_errors
def config_show(home: o.Home = None, as_json: o.AsJson = False) -> None:
    """Print the settings that `bcdb start` would use, and where each comes from."""
    settings = read_settings(home)
    values: dict[str, Any] = settings.as_dict()
    if as_json:
        print_json(values)
        return
    sources = explain_settings(home)
    width = max(map(len, values))
    for name, value in values.items():
        text = ", ".join(value) if isinstance(value, list | tuple) else "" if value is None else str(value)
        if isinstance(value, bool):
            text = text.lower()
        say(f"{name:{width}}  {text or '(none)'}  [{sources[name]}]")
    sys.stdout.flush()
