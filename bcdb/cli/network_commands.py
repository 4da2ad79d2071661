"""The commands about networks of nodes: `bcdb engine`, `bcdb network` and `bcdb testnet`."""

from pathlib import Path
from typing import Annotated

import typer

from bcdb.cli import options as o
from bcdb.cli.screen import print_json, readable_errors, say
from bcdb.node.settings import read_settings

engine = typer.Typer(help="Get CometBFT, which orders in a network of nodes.", no_args_is_help=True)
network = typer.Typer(help="Found a network of several organisations, or join one.", no_args_is_help=True)
testnet = typer.Typer(help="Make and run a whole network on this machine.", no_args_is_help=True)

Folder = Annotated[Path, typer.Option("--home", help="The folder of the testnet.")]


@engine.command("install")
@readable_errors
def engine_install(
    version: Annotated[
        str | None, typer.Option("--version", help="The version to build; a tested one if not given.")
    ] = None,
    as_json: o.AsJson = False,
) -> None:
    """Build CometBFT with Go into this user's cache, for all nodes on this machine; a minute, once."""
    from bcdb.cli.engine import install

    install(version, as_json=as_json)


@engine.command("show")
@readable_errors
def engine_show(home: o.Home = None, as_json: o.AsJson = False) -> None:
    """Print which CometBFT a node would use; exit code 1 if there is none."""
    from bcdb.cli.engine import show

    show(home, as_json=as_json)


@network.command("card")
@readable_errors
def network_card(
    name: Annotated[str, typer.Option(help="The member's name among the others.")],
    address: Annotated[
        str, typer.Option(help="Where peers dial this node; nowhere if not given.", metavar="HOST:PORT")
    ] = "",
    observer: Annotated[bool, typer.Option("--observer", help="The node does not vote.")] = False,
    power: Annotated[int, typer.Option(help="The weight of its vote.", min=1)] = 10,
    out: Annotated[Path | None, typer.Option("--out", help="The file to make, instead of printing.")] = None,
    home: o.Home = None,
) -> None:
    """Make the card of this home's node, for whoever founds the network; nothing in it is secret."""
    from bcdb.cli.network import make_card, write_card

    card = make_card(read_settings(home), name, address, votes=not observer, power=power)
    if out is None:
        print_json(card)
    else:
        write_card(card, out)
        say(f"Made {out}")


@network.command("genesis")
@readable_errors
def network_genesis(
    cards: Annotated[list[Path], typer.Argument(help="The cards of all members.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to make, for all members.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="The home of a stopped solo node: the chain goes on from its ledger."),
    ] = None,
    chain_id: o.ChainId = None,
) -> None:
    """Found a network: make its genesis and members' file from the cards of its members."""
    from bcdb.cli.network import found_network, read_card

    origin = None if source is None else read_settings(source)
    genesis = found_network([read_card(path) for path in cards], out, chain_id=chain_id, source=origin)
    say(f"Made {out}: chain {genesis.chain_id}, {len(genesis.validators)} validators")
    say(f"Every member, you too: bcdb network join {out} --home HOME, then bcdb start --home HOME")


@network.command("join")
@readable_errors
def network_join(
    folder: Annotated[Path, typer.Argument(help="The folder that the founder has made.")],
    home: o.Home = None,
) -> None:
    """Make this home a part of a network. What the node already holds must fit the network's genesis."""
    from bcdb.cli.network import join_network

    settings = read_settings(home)
    genesis = join_network(folder, settings)
    say(f"{settings.home} is a part of chain {genesis.chain_id}: bcdb start --home {settings.home}")


@testnet.command("init")
@readable_errors
def init_testnet(
    validators: Annotated[int, typer.Option(help="How many nodes vote.", min=1, max=16)] = 4,
    observers: Annotated[int, typer.Option(help="How many more do not vote.", min=0, max=15)] = 0,
    home: Folder = Path("testnet"),
    port: Annotated[
        int, typer.Option(help="The HTTP port of the first node; each next one's is 10 above.", min=1)
    ] = 9984,
    workers: Annotated[int, typer.Option(help="API worker processes of each node.", min=1, max=256)] = 1,
    mongo: Annotated[
        bool, typer.Option("--mongo/--no-mongo", help="One MongoDB for the searches of all nodes.")
    ] = False,
    chain_id: o.ChainId = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="The home of a stopped solo node: the chain goes on from its ledger."),
    ] = None,
) -> None:
    """Make the nodes of a network on this machine. What exists is not overwritten."""
    from bcdb.cli.testnet import commands

    commands.init(
        home,
        validators,
        observers,
        port=port,
        workers=workers,
        mongo=mongo,
        chain_id=chain_id,
        source=source,
    )


@testnet.command("up")
@readable_errors
def up_testnet(
    home: Folder = Path("testnet"),
    detach: Annotated[
        bool, typer.Option("--detach", help="Go on in the background once all nodes are ready.")
    ] = False,
    node: Annotated[
        list[int] | None,
        typer.Option("--node", help="The number of a node to run; again for more, all if not given."),
    ] = None,
) -> None:
    """Run the nodes of a testnet and show how they are; Ctrl-C or SIGTERM stops them all."""
    from bcdb.cli.testnet import commands

    commands.up(home, node or [], detach=detach)


@testnet.command("status")
@readable_errors
def status_testnet(
    home: Folder = Path("testnet"),
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    as_json: o.AsJson = False,
) -> None:
    """Print how each node of a testnet is; exit code 1 if not all are up, or if their app hashes differ."""
    from bcdb.cli.testnet import commands

    commands.status(home, watch=watch, as_json=as_json)


@testnet.command("down")
@readable_errors
def down_testnet(home: Folder = Path("testnet")) -> None:
    """Stop the testnet that runs in a folder."""
    from bcdb.cli.testnet import commands

    commands.down(home)
