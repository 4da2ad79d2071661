"""What an operator can choose, where each choice comes from, and where a node keeps its files.

A setting is taken from the flag, else from the environment (`BCDB_PORT`), else from `HOME/config.toml`,
else from the defaults below. An unknown name is an error everywhere: a misspelt `write_keys` must never
leave a node open to all.
"""

import difflib
import hashlib
import ipaddress
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import quote

import msgspec

from bcdb.model import limits
from bcdb.model.errors import BcdbError, SettingsError
from bcdb.model.keys import decode_key

DEFAULT_HOME = "~/.bcdb"
CONFIG_FILE = "config.toml"
ENVIRONMENT_PREFIX = "BCDB_"
OTHER_VARIABLES = frozenset({"BCDB_CRASH_AT", "BCDB_TRACE_FILE", "BCDB_NODE"})
"""Variables with the prefix that are no settings: switches of the tests, and the node a client talks to."""
SECRET = frozenset({"mongo_uri"})
"""Settings that may hold a password: no message says their value."""
MONGO_SCHEMES = ("mongodb://", "mongodb+srv://")
MONGO_SYSTEM_DATABASES = ("admin", "config", "local")
SOCKET_PATH_BYTES_MAX = 100
"""The kernel takes 107 bytes for the path of a Unix socket; a name beside it needs some of them."""

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
Workers = Annotated[int, msgspec.Meta(ge=0, le=256)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one node, complete and checked.

    `home`: folder with everything the node keeps. `port`, `stream_port`: 0 lets the system choose;
    `stream_port` is `port + 1` unless given. `workers`: API worker processes, 0 means one for each core.
    `tls_cert`, `tls_key`: PEM files, both or none. `write_keys`: base58 public keys that may issue assets
    over HTTP, empty means everybody. `rate_limit`: requests a second from one client address, 0 for no bound;
    loopback addresses are exempt. `chain_id`: made once by `bcdb init`, empty before. `mongo`: searches are
    answered by a mongod of the node's own; `mongo_uri`: by this one; with neither by a file of SQLite. A
    `mongo_uri` may hold a password and is never shown whole. `text_search`: whether searches for words are
    offered. `engine`: who orders; with `cometbft` the node is one of a network, listens for its peers at
    `p2p_listen`, tells them to dial `p2p_external` if that is another address, and runs the program
    `cometbft`, None for the one that is found. Raises `SettingsError` for values that do not fit together.
    """

    home: Path
    host: str = "127.0.0.1"
    port: Port = 9984
    stream_port: Annotated[int, msgspec.Meta(ge=-1, le=65535)] = -1
    workers: Workers = 0
    tls_cert: Path | None = None
    tls_key: Path | None = None
    write_keys: tuple[str, ...] = ()
    rate_limit: Amount = 2000
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    chain_id: str = ""
    mongo: bool = False
    mongo_uri: str = ""
    mongo_database: str = "bcdb"
    text_search: bool = True
    engine: Literal["solo", "cometbft"] = "solo"
    p2p_listen: str = "127.0.0.1:26656"
    p2p_external: str = ""
    cometbft: Path | None = None

    def __post_init__(self) -> None:
        settle = msgspec.structs.force_setattr
        settle(self, "home", absolute(self.home))
        if self.stream_port == -1:
            settle(self, "stream_port", self.port + 1 if self.port else 0)
        if self.workers == 0:
            settle(self, "workers", len(os.sched_getaffinity(0)))
        _check(self)

    @property
    def config_path(self) -> Path:
        return self.home / CONFIG_FILE

    @property
    def ledger_path(self) -> Path:
        return self.home / "ledger"

    @property
    def store_path(self) -> Path:
        return self.home / "query.sqlite"

    @property
    def store_kind(self) -> Literal["sqlite", "mongodb"]:
        """Which database keeps the copy of the ledger that searches are answered from."""
        return "mongodb" if self.mongo or self.mongo_uri else "sqlite"

    @property
    def mongo_path(self) -> Path:
        """The data folder of the node's own mongod."""
        return self.home / "mongo"

    @property
    def mongo_socket_path(self) -> Path:
        """The Unix socket of the node's own mongod, beside the node's."""
        return self.socket_path.with_name("mongo.sock")

    @property
    def mongo_connection(self) -> str:
        """The address of the MongoDB to use, "" if it is none. Not to be shown: see `hide_secrets`."""
        if self.mongo:
            return f"mongodb://{quote(os.fsencode(self.mongo_socket_path), safe='')}/?directConnection=true"
        return self.mongo_uri

    @property
    def rebuild_request_path(self) -> Path:
        """The projector drops the query store and makes it anew when it finds this file, and removes it."""
        return self.home / "query.rebuild"

    @property
    def node_key_path(self) -> Path:
        """The node's own Ed25519 key, mode 0600."""
        return self.home / "node_key.json"

    @property
    def genesis_path(self) -> Path:
        """What the network's chain begins with, the same file at every member."""
        return self.home / "genesis.json"

    @property
    def members_path(self) -> Path:
        """Whom this node listens to (see `members`)."""
        return self.home / "members.toml"

    @property
    def cometbft_path(self) -> Path:
        """The home of this node's CometBFT, with its keys."""
        return self.home / "cometbft"

    @property
    def abci_socket_path(self) -> Path:
        return self.socket_path.with_name("abci.sock")

    @property
    def rpc_socket_path(self) -> Path:
        """Where this node's CometBFT answers this node."""
        return self.socket_path.with_name("rpc.sock")

    @property
    def run_path(self) -> Path:
        """What only matters while the node runs; nothing in it outlives a start."""
        return self.home / "run"

    @property
    def lock_path(self) -> Path:
        return self.home / "lock"

    @property
    def metrics_path(self) -> Path:
        """`PROMETHEUS_MULTIPROC_DIR` of the node's processes."""
        return self.run_path / "metrics"

    @property
    def socket_path(self) -> Path:
        """The node process's Unix socket; if `home` is too deep, in a private folder in the temporary one."""
        path = self.run_path / "node.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
            return path
        name = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"bcdb-{os.getuid()}-{name}" / "node.sock"

    def scratch_path(self, name: str) -> Path:
        """Folder for the bookkeeping of one reader of the ledger, e.g. `worker-0`."""
        return self.run_path / "readers" / name

    @property
    def tls(self) -> bool:
        return self.tls_cert is not None

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the node."""
        return is_loopback(self.host)

    @property
    def url(self) -> str:
        """Where a client on this machine finds the node, e.g. `http://localhost:9984`."""
        return f"{'https' if self.tls else 'http'}://{_reachable(self.host)}:{self.port}"

    @property
    def stream_url(self) -> str:
        scheme = "wss" if self.tls else "ws"
        return f"{scheme}://{_reachable(self.host)}:{self.stream_port}/api/v1/streams/valid_transactions"

    def make_folders(self) -> None:
        """Make `home` and what belongs in it, private to this user. Raises `SettingsError` if it can't."""
        readers = self.run_path / "readers"
        folders = [self.home, self.run_path, readers, self.metrics_path, self.socket_path.parent]
        if self.mongo:
            folders.append(self.mongo_path)
        for folder in folders:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise SettingsError(f"The folder {folder} can't be made: {error.strerror}.") from None
        # The temporary folder is everybody's, so somebody may have made ours before us.
        about = self.socket_path.parent.stat()
        shared = self.socket_path.parent != self.run_path and about.st_mode & 0o077
        if about.st_uid != os.getuid() or shared:
            raise SettingsError(f"The folder {self.socket_path.parent} must belong to this user alone.")

    def dump(self, path: Path) -> None:
        """Write the settings as JSON, mode 0600, for `load` in a child process."""
        write_private(path, msgspec.json.encode(self, enc_hook=str))

    @staticmethod
    def load(path: Path) -> "Settings":
        """Read what `dump` wrote. Raises `SettingsError`."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=Settings, dec_hook=_decode_path)
        except (OSError, msgspec.MsgspecError) as error:
            raise SettingsError(f"The settings file {path} can't be read: {error}.") from None

    def as_dict(self) -> dict[str, Any]:
        """All settings by name as JSON values, to be shown: without the secrets in them."""
        result = msgspec.to_builtins(self, enc_hook=str)
        assert isinstance(result, dict)
        return {**result, "mongo_uri": hide_secrets(self.mongo_uri)}

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.as_dict().items())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return list(self.as_dict().items())


NAMES = Settings.__struct_fields__
_TYPES = get_type_hints(Settings, include_extras=True)

MEANING = {
    "chain_id": ("The name of this chain. Made once; the ledger refuses another one.", '"..."'),
    "host": ("The address to listen on. Others than this machine's need TLS and write_keys.", '"127.0.0.1"'),
    "port": ("The port of the HTTP API; 0 lets the system choose.", "9984"),
    "stream_port": ("The port of the WebSocket streams; port + 1 if not given.", "9985"),
    "workers": ("API worker processes; 0 means one for each core.", "0"),
    "tls_cert": ("The PEM file with the certificate chain, beside this file if relative.", '"cert.pem"'),
    "tls_key": ("The PEM file with the certificate's private key.", '"key.pem"'),
    "write_keys": ("The public keys that may issue assets over HTTP; [] means everybody.", "[]"),
    "rate_limit": ("Requests a second from one client address; 0 for no bound.", "2000"),
    "log_level": ("What is logged: debug, info, warning or error.", '"info"'),
    "log_format": ("How it is logged: console or json.", '"console"'),
    "mongo": ("Whether to run a MongoDB of the node's own for searches, instead of SQLite.", "false"),
    "mongo_uri": ("The mongodb:// address of the MongoDB to use for searches, with its password.", '""'),
    "mongo_database": ("The name of the database in that MongoDB.", '"bcdb"'),
    "text_search": (
        "Whether assets and metadata can be searched for words.",
        "true",
    ),
    "engine": ("Who orders: solo, this node alone, or cometbft, the validators of a network.", '"solo"'),
    "p2p_listen": ("The address on which this node's CometBFT listens for its peers.", '"127.0.0.1:26656"'),
    "p2p_external": ("The address that peers dial, if it is another one.", '""'),
    "cometbft": (
        "The CometBFT program; the one on the PATH or built by `bcdb engine install` if not given.",
        '""',
    ),
}
"""Each setting of `config.toml`: what it means, and its default in TOML. The command's help says the same."""


def read_settings(
    home: Path | str | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of the node in `home`: defaults, then `config.toml`, then the environment, then `flags`.

    `flags` maps setting names to values; None means not given. Raises `SettingsError` that names the setting
    and where it was found, for an unknown name with the nearest known one.
    """
    return Settings(**{name: value for name, (value, _) in _gather(home, flags or {}, environ).items()})


def explain_settings(
    home: Path | str | None = None, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Where `read_settings` finds each setting: `default`, a file's path, or an environment variable."""
    found = _gather(home, {}, environ)
    return {name: found[name][1] if name in found else "default" for name in NAMES}


def _gather(
    home: Path | str | None, flags: Mapping[str, Any], environ: Mapping[str, str] | None
) -> dict[str, tuple[Any, str]]:
    """Every setting that is given anywhere, with its source; later sources replace earlier ones."""
    from_environment = _read_environment(os.environ if environ is None else environ)
    chosen = home or flags.get("home")
    source = "flag" if chosen else "environment" if "home" in from_environment else "default"
    folder = absolute(chosen or from_environment.get("home") or DEFAULT_HOME)
    config = folder / CONFIG_FILE
    found = {name: (value, str(config)) for name, value in read_config(config).items()}
    for name, value in from_environment.items():
        found[name] = (value, ENVIRONMENT_PREFIX + name.upper())
    for name, value in flags.items():
        if value is not None:
            found[name] = (convert(name, value, f"the flag --{name.replace('_', '-')}"), "flag")
    found["home"] = (folder, source)
    return found


def read_config(path: Path) -> dict[str, Any]:
    """The settings in one TOML file, {} if there is none; file names in it are relative to its folder."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}.") from None
    except ValueError as error:
        raise SettingsError(f"{path} is not TOML: {error}.") from None
    known = tuple(name for name in NAMES if name != "home")
    values = {}
    for name, value in table.items():
        if name not in known:
            raise SettingsError(f"Unknown setting {name!r} in {path}{_nearest(name, known)}")
        values[name] = convert(name, value, str(path))
        if isinstance(values[name], Path):
            values[name] = path.parent / values[name]
    return values


def convert(name: str, value: Any, source: str) -> Any:
    """`value` as the type of the setting `name`; texts are parsed, lists may be comma-separated."""
    if name not in _TYPES:
        raise SettingsError(f"Unknown setting {name!r} in {source}{_nearest(name, NAMES)}")
    if name == "write_keys" and isinstance(value, str):
        value = [key.strip() for key in value.split(",") if key.strip()]
    if isinstance(value, Path):
        value = str(value)
    shown = "what is there" if name in SECRET else repr(value)
    try:
        result = msgspec.convert(value, _TYPES[name], strict=False, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        choices = get_args(_TYPES[name]) if get_origin(_TYPES[name]) is Literal else ()
        reason = (
            f"expected one of {', '.join(choices)}" if choices else str(error)[0].lower() + str(error)[1:]
        )
        raise SettingsError(f"{name} in {source} can't be {shown}: {reason}.") from None
    if isinstance(result, Path) and not str(value).strip():
        return None
    return result


def hide_secrets(uri: str) -> str:
    """The address of a MongoDB with stars for what opens it: the password, and options that hold one.

    It rather hides too much than too little of an address that is not as it should be.
    """
    hidden = re.sub(r"(?s)(//[^:/?@]*:).*@", r"\1***@", uri)
    return re.sub(r"(?i)([?&;][^=&;]*(?:password|properties)[^=&;]*=)[^&;]*", r"\1***", hidden)


def write_private(path: Path, content: bytes) -> None:
    """Replace the file at `path` in one step; only this user can read it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def new_config(given: Mapping[str, Any]) -> str:
    """Text of a first `config.toml`: what is `given`, and every other setting explained in a comment."""
    lines = [
        "# Settings of this bcdb node; the environment (BCDB_PORT) and flags (--port) win over this file.",
        "",
    ]
    for name, (meaning, example) in MEANING.items():
        value = given.get(name)
        setting = f"# {name} = {example}" if value is None else f"{name} = {_toml(value)}"
        lines += [f"# {meaning}", setting, ""]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    return json.dumps(msgspec.to_builtins(value, enc_hook=str), ensure_ascii=False)


def absolute(path: Path | str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))


def is_loopback(host: str) -> bool:
    """Whether an address or name means this machine; names are not looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reachable(host: str) -> str:
    if host in ("0.0.0.0", "::", "", "127.0.0.1", "::1"):
        return "localhost"
    return f"[{host}]" if ":" in host else host


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in OTHER_VARIABLES:
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name not in NAMES:
            known = [ENVIRONMENT_PREFIX + known.upper() for known in NAMES]
            raise SettingsError(f"Unknown setting {variable} in the environment{_nearest(variable, known)}")
        values[name] = convert(name, text, f"the environment variable {variable}")
    return values


def _nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"; the nearest known one is {close[0]!r}."


def _decode_path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(os.path.expanduser(value))
    raise ValueError("expected a file name")


def _check(settings: Settings) -> None:
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise SettingsError("tls_cert and tls_key belong together: give both or none.")
    if settings.stream_port > 65535:
        raise SettingsError(
            f"stream_port is port + 1 unless given, and {settings.stream_port} is over 65535."
        )
    if settings.port and settings.port == settings.stream_port:
        raise SettingsError(f"port and stream_port can't both be {settings.port}.")
    if settings.chain_id and not re.fullmatch(r"[A-Za-z0-9._-]+", settings.chain_id):
        raise SettingsError(f"chain_id is made of letters, digits and '._-', not {settings.chain_id!r}.")
    if len(settings.chain_id) > limits.CHAIN_ID_CHARS_MAX:
        raise SettingsError(
            f"chain_id has at most {limits.CHAIN_ID_CHARS_MAX} characters, this one {len(settings.chain_id)}."
        )
    for key in settings.write_keys:
        try:
            decode_key(key)
        except BcdbError as error:
            raise SettingsError(f"write_keys has {key!r}, which is no public key: {error.text}") from None
    _check_mongo(settings)
    _check_peering(settings)


def _check_peering(settings: Settings) -> None:
    for name, address in (("p2p_listen", settings.p2p_listen), ("p2p_external", settings.p2p_external)):
        host, _, port = address.rpartition(":")
        if address and not (host and port.isascii() and port.isdigit() and int(port) <= 65535):
            raise SettingsError(f"{name} is an address like 192.0.2.7:26656, not {address[:80]!r}.")
    if not settings.p2p_listen:
        raise SettingsError("p2p_listen is missing: it is the address to listen on for peers.")


def _check_mongo(settings: Settings) -> None:
    uri, name = settings.mongo_uri, settings.mongo_database
    if settings.mongo and uri:
        raise SettingsError(
            "mongo and mongo_uri exclude each other: give the one for a MongoDB that the node runs itself, "
            "the other for one that runs already."
        )
    if uri and not uri.startswith(MONGO_SCHEMES):
        raise SettingsError("mongo_uri begins with mongodb:// or mongodb+srv://, and this one does not.")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", name) or name in MONGO_SYSTEM_DATABASES:
        raise SettingsError(
            f"mongo_database has 1 to 63 letters, digits and '_-' and is none of MongoDB's own "
            f"({', '.join(MONGO_SYSTEM_DATABASES)}); {name!r} can't be used."
        )
