"""The home folder of one CometBFT node: settings in, files out, the same files for the same settings.

Writing a home again changes only what differs. The two keys and the genesis of a home are never replaced:
they say who the node is and which chain it is of. Everything here is for this user's eyes alone.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from consensus.cometbft.keys import (
    HomeError,
    Key,
    node_key_file,
    read_key,
    validator_key_file,
    validator_state_file,
)

FOLDER_MODE = 0o700
FILE_MODE = 0o600
SOCKET_PATH_BYTES_MAX = 107
"""What the kernel allows for the path of a Unix socket."""
PEERS_MAX = 128
CACHE_FACTOR = 4
"""The cache of transactions seen outlives their time in the mempool: a peer may still send them."""
RPC_BODY_SLACK_BYTES = 64 * 1024
EVENT_BUFFER = 1_000
RPC_CONNECTIONS_MAX = 128

NODE_KEY = "config/node_key.json"
VALIDATOR_KEY = "config/priv_validator_key.json"
VALIDATOR_STATE = "data/priv_validator_state.json"
GENESIS = "config/genesis.json"
CONFIG = "config/config.toml"
CHAIN = ("data/state.db", "data/blockstore.db")
TRACES = (*CHAIN, "data/cs.wal")
"""What is there once CometBFT has run in a home."""

UNIX = "unix://"
TCP = "tcp://"
_NODE_ID = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[\w.-]{1,70}", re.ASCII)

Toml = dict[str, dict[str, str | int | bool]]
KeyFile = Callable[[Key], bytes]


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node: its id (40 hex digits) and where it listens, `host:port`."""

    id: str
    address: str

    def __post_init__(self) -> None:
        if _NODE_ID.fullmatch(self.id) is None:
            raise HomeError(f"The id of a node has 40 hex digits, small ones; {self.id[:64]!r} has not")
        _check_host_port(self.address, "A peer")

    def __str__(self) -> str:
        return f"{self.id}@{self.address}"


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What differs from node to node, and what a measurement may want to change.

    `app_socket`: where our ABCI server listens. `rpc`: where CometBFT's RPC listens, `unix:///path` or
    `tcp://` and an address of the loopback with a port. `p2p_listen` is `host:port`; `p2p_external` what
    others dial, if that differs. `tx_bytes_max`: the largest transaction; must be the same on all nodes.
    """

    app_socket: Path
    rpc: str
    tx_bytes_max: int
    moniker: str = "bcdb"
    p2p_listen: str = "127.0.0.1:26656"
    p2p_external: str = ""
    peers: tuple[Peer, ...] = ()
    mempool_txs_max: int = 5_000
    mempool_bytes_max: int = 256 * 1024 * 1024
    rate_bytes_per_s: int = 200 * 1024 * 1024
    timeout_propose_s: float = 3.0
    timeout_commit_s: float = 0.2
    empty_blocks_s: float = 10.0
    gossip_sleep_s: float = 0.005
    flush_throttle_s: float = 0.005
    packet_bytes: int = 65_536
    log_level: str = "main:info,p2p:info,*:error"

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.moniker) is None:
            raise HomeError(f"A node's name has letters, digits, `.`, `_` and `-`; not {self.moniker[:80]!r}")
        _check_socket_path(self.app_socket)
        _check_rpc(self.rpc)
        _check_host_port(self.p2p_listen, "The node")
        if self.p2p_external:
            _check_host_port(self.p2p_external, "The node, as others see it,")
        if len(self.peers) > PEERS_MAX:
            raise HomeError(f"A node has at most {PEERS_MAX} peers, not {len(self.peers)}")
        if not 0 < self.tx_bytes_max <= self.mempool_bytes_max or self.mempool_txs_max <= 0:
            raise HomeError("The mempool must have room for at least one transaction of the largest size")
        if min(self.timeout_propose_s, self.timeout_commit_s, self.empty_blocks_s) <= 0:
            raise HomeError("timeout_propose_s, timeout_commit_s and empty_blocks_s are above 0")

    @property
    def rpc_socket(self) -> Path | None:
        """The path of the RPC's Unix socket, if it is one."""
        return Path(self.rpc.removeprefix(UNIX)) if self.rpc.startswith(UNIX) else None


@dataclass(frozen=True, slots=True)
class Home:
    """A home that is written. `node_id` is the node's name among its peers."""

    path: Path
    settings: NodeSettings
    node_id: str
    validator_key: bytes
    """The public key that it votes with, once it is in the validator set."""


def write_home(
    path: Path,
    settings: NodeSettings,
    genesis: bytes,
    *,
    node_key: Key | None = None,
    validator_key: Key | None = None,
) -> Home:
    """Make the home at `path`, or bring the one there up to `settings`.

    Keys that are not given are made, unless they are there. `genesis` comes from `genesis_file`. Raises
    `HomeError` when the home is another's: other keys, another genesis.
    """
    try:
        _make_folders(path)
        _keep_genesis(path / GENESIS, genesis)
        identity = _keep_key(path / NODE_KEY, node_key, node_key_file)
        had_key = (path / VALIDATOR_KEY).exists()
        voter = _keep_key(path / VALIDATOR_KEY, validator_key, validator_key_file)
        _keep_state(path, had_key)
        _write(path / CONFIG, config_file(settings))
    except OSError as error:
        raise HomeError(f"The CometBFT home {path} can't be written: {error.strerror}") from error
    return Home(path, settings, identity.id, voter.public)


def read_home(path: Path, settings: NodeSettings) -> Home:
    """A home that has been written before. Raises `HomeError` when it is not whole."""
    identity, voter = read_key(path / NODE_KEY), read_key(path / VALIDATOR_KEY)
    if identity is None or voter is None:
        raise HomeError(f"{path} has no keys of a CometBFT node: it was never made, or lost them")
    return Home(path, settings, identity.id, voter.public)


def make_keys(path: Path) -> tuple[str, bytes]:
    """Make the two keys of a home that is not of a chain yet, unless they are there.

    Gives the node's id and the public key that it votes with. Raises `HomeError`.
    """
    try:
        _make_folders(path)
        identity = _keep_key(path / NODE_KEY, None, node_key_file)
        had_key = (path / VALIDATOR_KEY).exists()
        voter = _keep_key(path / VALIDATOR_KEY, None, validator_key_file)
        _keep_state(path, had_key)
    except OSError as error:
        raise HomeError(f"The CometBFT home {path} can't be written: {error.strerror}") from error
    return identity.id, voter.public


def has_chain(path: Path) -> bool:
    """Whether CometBFT has blocks and a state in the home at `path`, as it has once it has run there."""
    return all((path / part).exists() for part in CHAIN)


def node_identity(path: Path) -> str:
    """The node id of the home at `path`, 40 hex digits. Raises `HomeError` if it has no keys yet."""
    identity = read_key(path / NODE_KEY)
    if identity is None:
        raise HomeError(f"{path} has no key of a CometBFT node: `bcdb init --engine cometbft` makes it")
    return identity.id


def config_file(settings: NodeSettings) -> bytes:
    """The content of `config.toml`: what is not in it is as CometBFT has it by default."""
    lines = ["# Written by bcdb at each start; changes belong into bcdb's own settings."]
    for section, entries in _config(settings).items():
        if section:
            lines += ["", f"[{section}]"]
        # A string of JSON is one of TOML, too; so are its numbers and its true and false.
        lines += [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in entries.items()]
    return "\n".join([*lines, ""]).encode()


def _config(settings: NodeSettings) -> Toml:
    return {
        "": {
            "proxy_app": f"{UNIX}{settings.app_socket}",
            "abci": "socket",
            "moniker": settings.moniker,
            "db_backend": "goleveldb",
            "log_level": settings.log_level,
            "log_format": "json",
            "filter_peers": True,
            "event_bus_buffer_capacity": EVENT_BUFFER,
        },
        "rpc": {
            "laddr": settings.rpc,
            # It offers to dial peers, and to empty the mempool: on a socket that only this user can open.
            "unsafe": settings.rpc_socket is not None,
            "max_open_connections": RPC_CONNECTIONS_MAX,
            "max_request_batch_size": 0,
            # A transaction travels as base64 in JSON.
            "max_body_bytes": settings.tx_bytes_max * 4 // 3 + RPC_BODY_SLACK_BYTES,
        },
        "p2p": {
            "laddr": f"{TCP}{settings.p2p_listen}",
            "external_address": settings.p2p_external,
            "persistent_peers": ",".join(map(str, settings.peers)),
            "pex": False,
            "addr_book_strict": False,
            "allow_duplicate_ip": True,
            "max_num_inbound_peers": PEERS_MAX,
            "max_num_outbound_peers": PEERS_MAX,
            "flush_throttle_timeout": _duration(settings.flush_throttle_s),
            "max_packet_msg_payload_size": settings.packet_bytes,
            "send_rate": settings.rate_bytes_per_s,
            "recv_rate": settings.rate_bytes_per_s,
        },
        "mempool": {
            "type": "flood",
            "recheck": True,
            "broadcast": True,
            "size": settings.mempool_txs_max,
            "max_txs_bytes": settings.mempool_bytes_max,
            "cache_size": settings.mempool_txs_max * CACHE_FACTOR,
            "max_tx_bytes": settings.tx_bytes_max,
        },
        "consensus": {
            "timeout_propose": _duration(settings.timeout_propose_s),
            "timeout_commit": _duration(settings.timeout_commit_s),
            "skip_timeout_commit": True,
            # A block carries the time of the votes on the one before it, so an idle chain must make some.
            "create_empty_blocks": False,
            "create_empty_blocks_interval": _duration(settings.empty_blocks_s),
            "peer_gossip_sleep_duration": _duration(settings.gossip_sleep_s),
        },
        "storage": {"discard_abci_responses": True},
        "tx_index": {"indexer": "null"},
        "instrumentation": {"prometheus": False},
    }


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _make_folders(path: Path) -> None:
    for folder in (path, path / "config", path / "data"):
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        folder.chmod(FOLDER_MODE)


def _keep_genesis(path: Path, genesis: bytes) -> None:
    there = path.read_bytes() if path.exists() else None
    if there is not None and there != genesis:
        raise HomeError(f"{path} is the genesis of another chain: use a home of its own for each")
    _write(path, genesis)


def _keep_key(path: Path, given: Key | None, content: KeyFile) -> Key:
    there = read_key(path)
    if there is not None and given is not None and there != given:
        raise HomeError(f"{path} holds another key than the one that it should")
    key = there or given or Key.generate()
    if there is None:
        _write(path, content(key))
    path.chmod(FILE_MODE)
    return key


def _keep_state(path: Path, had_key: bool) -> None:
    state = path / VALIDATOR_STATE
    if state.exists():
        state.chmod(FILE_MODE)
        return
    if had_key and any((path / trace).exists() for trace in TRACES):
        raise HomeError(
            f"{state} is missing: it is the record of what this validator has signed, and without it the "
            "validator could sign twice; bring it back, or give the node a new validator key"
        )
    _write(state, validator_state_file())


def _write(path: Path, content: bytes) -> None:
    """Write a file of this user's, whole or not at all, unless it has this content."""
    if path.exists() and path.read_bytes() == content:
        path.chmod(FILE_MODE)
        return
    fresh = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check_socket_path(path: Path) -> None:
    if not path.is_absolute():
        raise HomeError(f"The path of a socket is an absolute one; {path} is not")
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES_MAX:
        text = f"The path of a socket has at most {SOCKET_PATH_BYTES_MAX} bytes; {path} has {length}"
        raise HomeError(f"{text}: use a shorter home")


def _check_rpc(address: str) -> None:
    if address.startswith(UNIX):
        _check_socket_path(Path(address.removeprefix(UNIX)))
        return
    host = _check_host_port(address.removeprefix(TCP), "The RPC")
    try:
        is_ours = address.startswith(TCP) and ip_address(host.strip("[]")).is_loopback
    except ValueError:
        is_ours = False
    if not is_ours:
        raise HomeError(
            f"CometBFT's RPC is for this machine alone: a Unix socket or 127.0.0.1, not {address}"
        )


def _check_host_port(text: str, who: str) -> str:
    """The host of `host:port`. Raises `HomeError`."""
    host, _, port = text.rpartition(":")
    is_bad = not host or set(host) & set("/@, \t\n\"'\\") or len(host) > 255
    if is_bad or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise HomeError(f"{who} has an address like `example.org:26656`, not {text[:300]!r}")
    return host
