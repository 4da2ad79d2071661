"""The folder of a testnet: a home for each node, the network that they have joined, and what `up` must know.

It is made once and whole; what is there already is never overwritten.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bcdb.cli.home import make_home, write_settings
from bcdb.cli.network import Card, found_network, join_network, make_card
from bcdb.model.errors import SettingsError
from bcdb.node.settings import Settings, absolute, read_config, write_private

FILE = "testnet.json"
NETWORK_FOLDER = "network"
DEFAULT_FOLDER = "testnet"
HOST = "127.0.0.1"
FORMAT = 1
NODES_MAX = 16
PORTS_PER_NODE = 10
PORT_MAX = 65_535


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One node: its name, which is its folder's too, its three ports, and whether it votes."""

    name: str
    port: int
    stream_port: int
    p2p_port: int
    validator: bool = True

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def address(self) -> str:
        """Where its peers find it."""
        return f"{HOST}:{self.p2p_port}"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    chain_id: str
    nodes: tuple[Node, ...]
    mongo: bool
    format: int = FORMAT


class Layout(msgspec.Struct, frozen=True):
    """A testnet as it lies in `folder`. `mongo`: its nodes share one mongod, with a database for each."""

    folder: Path
    chain_id: str
    nodes: tuple[Node, ...]
    mongo: bool = False

    @property
    def settings(self) -> Settings:
        """Those of the folder itself, which is a home with a lock and a mongod, and no node."""
        return folder_settings(self.folder, mongo=self.mongo)

    def home(self, node: Node) -> Path:
        return self.folder / node.name

    def log(self, node: Node) -> Path:
        """Where its output goes when `bcdb testnet up` runs it."""
        return self.folder / f"{node.name}.log"

    @property
    def own_log(self) -> Path:
        """Where `bcdb testnet up --detach` writes to."""
        return self.folder / "testnet.log"

    def chosen(self, numbers: Sequence[int]) -> tuple[Node, ...]:
        """The nodes with these numbers, all of them if there are none. Raises `SettingsError`."""
        for number in numbers:
            if not 0 <= number < len(self.nodes):
                last = len(self.nodes) - 1
                raise SettingsError(f"The nodes of {self.folder} are numbered 0 to {last}; {number} is none.")
        return tuple(node for at, node in enumerate(self.nodes) if not numbers or at in numbers)


def folder_settings(folder: Path, *, mongo: bool = False) -> Settings:
    return Settings(home=folder, mongo=mongo, log_level="warning")


def plan(validators: int, observers: int = 0, *, port: int = 9984) -> tuple[Node, ...]:
    """That many nodes on neighbouring ports. Raises `SettingsError`."""
    count = validators + observers
    if validators < 1 or observers < 0 or count > NODES_MAX:
        raise SettingsError(
            f"A testnet has 1 to {NODES_MAX} nodes, at least one of them a validator; "
            f"not {validators} validators and {observers} observers."
        )
    last = port + PORTS_PER_NODE * (count - 1) + 2
    if port < 1 or last > PORT_MAX:
        raise SettingsError(
            f"{count} nodes from port {port} on would need the ports up to {last}; there are 1 to {PORT_MAX}."
        )
    firsts = (port + PORTS_PER_NODE * number for number in range(count))
    return tuple(
        Node(f"node{number}", first, first + 1, first + 2, number < validators)
        for number, first in enumerate(firsts)
    )


def make_testnet(
    folder: Path,
    nodes: Sequence[Node],
    *,
    workers: int = 1,
    mongo: bool = False,
    chain_id: str | None = None,
    source: Settings | None = None,
) -> Layout:
    """Make the homes of these nodes, found their network and let each join it; write down what `up` needs.

    With `source` the chain goes on from the ledger of that stopped node. Raises `BcdbError` or `EngineError`;
    then nothing is left of it.
    """
    folder = absolute(folder)
    made = [folder / name for name in (FILE, NETWORK_FOLDER, *(node.name for node in nodes))]
    for path in made:
        if path.exists():
            raise SettingsError(f"There is {path} already, and it is not overwritten: choose another --home.")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        homes, cards = [], []
        for node in nodes:
            settings, card = _make_node(folder, node, workers=workers, mongo=mongo)
            homes.append(settings)
            cards.append(card)
        genesis = found_network(cards, folder / NETWORK_FOLDER, chain_id=chain_id, source=source)
        for settings in homes:
            join_network(folder / NETWORK_FOLDER, settings)
        layout = Layout(folder, genesis.chain_id, tuple(nodes), mongo)
        content = msgspec.json.encode(_File(layout.chain_id, layout.nodes, mongo))
        write_private(folder / FILE, msgspec.json.format(content) + b"\n")
    except OSError as error:
        _remove(made)
        raise SettingsError(f"The testnet can't be made in {folder}: {error.strerror}.") from None
    except BaseException:
        _remove(made)
        raise
    return layout


def read_layout(folder: Path) -> Layout:
    """The testnet in this folder. Raises `SettingsError`."""
    folder = absolute(folder)
    path = folder / FILE
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        raise SettingsError(
            f"There is no testnet in {folder}; `bcdb testnet init --home {folder}` makes one."
        ) from None
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}.") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not as `bcdb testnet init` makes it: {error}.") from None
    if found.format != FORMAT:
        raise SettingsError(f"{path} has the format {found.format}, this version of bcdb knows {FORMAT}.")
    return Layout(folder, found.chain_id, found.nodes, found.mongo)


def bring_up_to_date(layout: Layout) -> None:
    """Tell the nodes where the mongod is now, should the folder have been moved."""
    if not layout.mongo:
        return
    uri = layout.settings.mongo_connection
    for node in layout.nodes:
        settings = Settings(home=layout.home(node))
        if read_config(settings.config_path).get("mongo_uri") != uri:
            write_settings(settings, {"mongo_uri": uri})


def _make_node(folder: Path, node: Node, *, workers: int, mongo: bool) -> tuple[Settings, Card]:
    # All that must differ from node to node is given: what the environment says holds for none of them.
    flags: dict[str, Any] = {
        "host": HOST,
        "port": node.port,
        "stream_port": node.stream_port,
        "workers": workers,
        "mongo": False,
        "mongo_uri": folder_settings(folder, mongo=mongo).mongo_connection,
        "mongo_database": node.name,
        "engine": "cometbft",
        "p2p_listen": node.address,
        "p2p_external": "",
    }
    settings, _ = make_home(folder / node.name, flags, kept=flags)
    return settings, make_card(settings, node.name, node.address, votes=node.validator)


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
