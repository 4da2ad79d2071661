"""`bcdb doctor`: says what this machine and this home lack, and how to get it.

Each check is a function that gives one `Finding`. They look, and ask programs for their version; nothing in a
home is made or mended, nothing is sent, and what a home does not need is never told as missing.
"""

import errno
import fcntl
import os
import platform
import re
import resource
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import Literal

import msgspec
import typer
from rich.text import Text

from bcdb.cli.engine import source_of
from bcdb.cli.screen import output, print_json, say
from bcdb.cli.sockets import bind
from bcdb.model import limits
from bcdb.model.errors import BcdbError, SettingsError
from bcdb.node.keyfile import read_key_file
from bcdb.node.settings import DEFAULT_HOME, Settings, read_settings
from consensus.cometbft.binary import HOW_TO_GET_GO, HOW_TO_GET_IT, BinaryError, find, find_go

State = Literal["ok", "warn", "missing"]
COLOURS: dict[State, str] = {"ok": "green", "warn": "yellow", "missing": "bold red"}

PYTHON_AT_LEAST = (3, 11)
COMPILED: dict[str, Callable[[], object]] = {
    "rocksdict": lambda: import_module("rocksdict"),
    "msgspec": lambda: import_module("msgspec"),
    "msgpack": lambda: import_module("msgpack"),
    "protobuf": lambda: import_module("google.protobuf.message"),
    "uvloop": lambda: import_module("uvloop"),
    "httptools": lambda: import_module("httptools"),
    "py-ed25519-zebra-bindings": lambda: import_module("ed25519_zebra"),
    "based58": lambda: import_module("based58"),
    "cryptography": lambda: import_module("cryptography.hazmat.bindings._rust"),
}
"""Packages with machine code in them, which may be there and yet not run here, and how each is loaded."""

MONGOD_AT_LEAST = 6
ASK_S_MAX = 20.0
DISK_BYTES_MIN = limits.WAL_BYTES_MAX
DISK_BYTES_FEW = 2 * 1024**3
OPEN_FILES_FEW = limits.CONNECTIONS_PER_WORKER_MAX + 2_000
"""The connections that a worker takes, and the ledger's files beside them."""
YEAR_MIN = 2026
"""This version was made then: a clock that says less has not been set."""
CLOCK_SLACK_NS = 10 * 1_000_000_000

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "afs", "9p", "virtiofs", "lustre", "gfs2", "ocfs2"}
)
VOLATILE_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})
LAYERED_FILE_SYSTEMS = frozenset({"overlay", "aufs"})
MOUNTS = Path("/proc/self/mountinfo")


class Finding(msgspec.Struct, frozen=True):
    """What one check has seen.

    `missing`: what this home's settings need is not there, or not as it must be. `warn`: a node runs, but not
    as well or as safely as it should. `remedy` may also tell how to get what is not needed now.
    """

    name: str
    state: State
    text: str
    remedy: str = ""


def diagnose(home: Path | None, *, as_json: bool) -> None:
    """Print all findings; exit code 1 if something is missing."""
    settings = _settings_or_defaults(home)
    findings = list(look(home))
    missing = [finding for finding in findings if finding.state == "missing"]
    if as_json:
        print_json({"home": str(settings.home), "ok": not missing, "checks": findings})
    else:
        for finding in findings:
            state, name = f"{finding.state:7}", f"  {finding.name:12}  "
            output.print(Text.assemble((state, COLOURS[finding.state]), name, finding.text))
            if finding.remedy:
                say(f"{'':23}{finding.remedy}", "" if finding.state != "ok" else "dim")
        if missing:
            names = ", ".join(finding.name for finding in missing)
            say(f"What {settings.home} needs is not all there: {names}.", "bold red")
        else:
            say(f"All that {settings.home} needs is there.", "bold green")
    if missing:
        raise typer.Exit(1)


def look(home: Path | None) -> Iterator[Finding]:
    """All checks that this home's settings give reason for, in the order of a start."""
    stated = check_settings(home)
    settings = _settings_or_defaults(home)
    running = in_use(settings)
    yield check_python()
    yield check_packages()
    yield stated
    yield check_home(settings)
    yield check_node_key(settings)
    yield check_space(settings)
    yield check_file_system(settings)
    yield check_open_files()
    ledger, last_block_ns = look_at_ledger(settings, running=running)
    yield ledger
    yield check_clock(time.time_ns(), last_block_ns)
    cometbft = check_cometbft(settings)
    yield cometbft
    yield check_go(needed=cometbft.state == "missing")
    yield check_mongod(settings)
    if stated.state == "missing":
        # With settings that nobody can read, nobody knows the ports either.
        return
    if settings.tls:
        yield check_tls(settings)
    yield from check_ports(settings, running=running)
    if settings.engine == "cometbft":
        yield check_genesis(settings)
        yield check_members(settings)


def _settings_or_defaults(home: Path | None) -> Settings:
    try:
        return read_settings(home)
    except BcdbError:
        return Settings(home=home or Path(os.environ.get("BCDB_HOME") or DEFAULT_HOME))


# --- the machine ------------------------------------------------------------------------------------------


def check_python() -> Finding:
    text = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    wanted = ".".join(map(str, PYTHON_AT_LEAST))
    if sys.version_info < PYTHON_AT_LEAST:
        return Finding("python", "missing", text, f"Install Python {wanted} or newer, and bcdb with it.")
    if sys.platform != "linux":
        return Finding("python", "warn", text, "bcdb is made for Linux and tested on nothing else.")
    return Finding("python", "ok", text)


def check_packages() -> Finding:
    """Whether the compiled packages can be loaded."""
    there, broken = [], []
    for name, load in COMPILED.items():
        try:
            load()
            there.append(f"{name} {metadata.version(name)}")
        except Exception as error:
            # Another Python's, another processor's, a library that they want: whatever it is, it is told.
            broken.append(f"{name} ({_one_line(error)})")
    if broken:
        return Finding(
            "packages",
            "missing",
            f"can't be loaded: {', '.join(broken)}",
            f"Install them again for this Python: {sys.executable} -m pip install --force-reinstall NAME",
        )
    return Finding("packages", "ok", ", ".join(there))


def check_cometbft(settings: Settings) -> Finding:
    needed = settings.engine == "cometbft"
    try:
        found = find(settings.cometbft)
    except BinaryError as error:
        remedy = f"To get it: {HOW_TO_GET_IT}."
        if settings.cometbft is not None:
            remedy = "Let the setting `cometbft` name one that runs here, or take it out to have one found."
        text = str(error).removesuffix(f": {HOW_TO_GET_IT}")
        return _lack("cometbft", text, remedy, needed=needed, use="`engine` = cometbft")
    text = f"{found.version} at {found.path} ({source_of(found, settings)})"
    if found.is_qualified:
        return Finding("cometbft", "ok", text)
    text += ", which bcdb's tests are not known to pass with"
    remedy = "`bcdb engine install` builds one that they have passed with."
    return Finding("cometbft", "warn" if needed else "ok", text, remedy)


def check_go(*, needed: bool) -> Finding:
    """`needed`: there is no CometBFT, and there should be."""
    try:
        return Finding("go", "ok", f"{find_go()} can build CometBFT")
    except BinaryError as error:
        text, remedy = str(error).removesuffix(f": {HOW_TO_GET_GO}"), f"To get it: {HOW_TO_GET_GO}."
        if needed:
            # A CometBFT from elsewhere would do.
            return Finding("go", "warn", text, remedy)
        return _lack("go", text, remedy, needed=False, use="building CometBFT")


def check_mongod(settings: Settings) -> Finding:
    from query.errors import QueryError
    from query.mongo.binary import HOW_TO_GET_IT as HOW_TO_GET_MONGOD
    from query.mongo.binary import find_mongod

    try:
        path = find_mongod()
        said = subprocess.run([path, "--version"], capture_output=True, timeout=ASK_S_MAX, check=True).stdout
    except QueryError as error:
        text = error.text.removesuffix(f": {HOW_TO_GET_MONGOD}")
    except subprocess.CalledProcessError as error:
        text = f"{path} does not run here: {_one_line(error.stderr.decode(errors='replace'))}"
    except (OSError, subprocess.TimeoutExpired) as error:
        text = f"{path} can't be run: {_one_line(error)}"
    else:
        version = re.search(rb"db version v((\d{1,4})[\w.-]{1,40})", said)
        if version is not None and int(version[2]) >= MONGOD_AT_LEAST:
            return Finding("mongod", "ok", f"{version[1].decode()} at {path}")
        seen = "does not tell its version" if version is None else f"is {version[1].decode()}"
        text = f"{path} {seen}; {MONGOD_AT_LEAST}.0 or newer is needed"
    remedy = f"To get it: {HOW_TO_GET_MONGOD}."
    return _lack("mongod", text, remedy, needed=settings.mongo, use="the setting `mongo`")


def check_open_files() -> Finding:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY or most >= OPEN_FILES_FEW:
        told = "any number" if most == resource.RLIM_INFINITY else f"{most:,}"
        return Finding("open files", "ok", f"{told} for each process")
    return Finding(
        "open files",
        "warn",
        f"{most:,} for each process: too few for the connections that a worker takes",
        "Raise the hard limit: LimitNOFILE=65536 in the unit for systemd, or `ulimit -Hn 65536` as root.",
    )


def check_clock(now_ns: int, last_block_ns: int) -> Finding:
    """`last_block_ns`: the time of the ledger's last block, 0 if it is not known."""
    text = f"{_utc(now_ns)} UTC"
    remedy = "Set the clock, and let NTP (chrony, systemd-timesyncd) keep it right."
    if time.gmtime(now_ns // 1_000_000_000).tm_year < YEAR_MIN:
        return Finding("clock", "warn", f"{text}, which is before this version of bcdb was made", remedy)
    if last_block_ns > now_ns + CLOCK_SLACK_NS:
        return Finding("clock", "warn", f"{text}, but the last block is of {_utc(last_block_ns)}", remedy)
    return Finding("clock", "ok", text)


# --- the home ---------------------------------------------------------------------------------------------


def check_settings(home: Path | None) -> Finding:
    """Whether they can be read and fit together; the sentence that a start would say, if not."""
    from bcdb.cli.start import check_uri

    try:
        settings = read_settings(home)
        check_uri(settings.mongo_uri)
    except BcdbError as error:
        remedy = "Mend it where it says; `bcdb config show` then tells what holds."
        return Finding("settings", "missing", error.text, remedy)
    if not settings.config_path.exists():
        return Finding("settings", "ok", f"there is no {settings.config_path} yet: the defaults hold")
    return Finding("settings", "ok", f"{settings.config_path}")


def check_home(settings: Settings) -> Finding:
    """Whether this user can write there, and others can not look."""
    home = settings.home
    there = _nearest(home)
    if there != home:
        if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
            remedy = f"bcdb init --home {home}"
            return Finding("home", "ok", f"there is no {home} yet; a start makes it", remedy)
        text = f"there is no {home}, and it can't be made in {there}"
        return Finding("home", "missing", text, "Choose another --home, or make it for this user as root.")
    about = home.stat()
    if not home.is_dir() or not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        text = f"{home} is no folder that this user can write in"
        return Finding("home", "missing", text, f"As root: chown -R {os.getuid()} {home}; or another --home.")
    if about.st_uid != os.getuid():
        text = f"{home} belongs to user {about.st_uid}, and this is user {os.getuid()}"
        remedy = "Run bcdb as the user that the folder belongs to: files of another one are in its way later."
        return Finding("home", "warn", text, remedy)
    if about.st_mode & 0o077:
        text = f"{home} is open to other users (mode {about.st_mode & 0o777:04o})"
        return Finding("home", "warn", text, f"chmod 700 {home}")
    return Finding("home", "ok", f"{home}, for this user alone")


def check_node_key(settings: Settings) -> Finding:
    path = settings.node_key_path
    remedy = "Bring it back from the backup."
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.exists(settings.ledger_path) and not os.path.exists(settings.genesis_path):
            return Finding("node key", "ok", f"there is no {path} yet; a start makes it")
        text = f"there is no {path}; a start would make another one, and be another node to all others"
        return Finding("node key", "missing" if settings.engine == "cometbft" else "warn", text, remedy)
    except OSError as error:
        return Finding("node key", "missing", f"{path} can't be read: {error.strerror}", remedy)
    if mode & 0o077:
        return Finding("node key", "missing", f"{path} is open to other users", f"chmod 600 {path}")
    try:
        pair = read_key_file(path)
    except BcdbError as error:
        return Finding("node key", "missing", error.text, remedy)
    return Finding("node key", "ok", f"{path}, of {pair.public_key}")


def check_space(settings: Settings) -> Finding:
    """Free space where the ledger lies, or will."""
    place = _nearest(settings.ledger_path)
    free = shutil.disk_usage(place).free
    text = f"{free / 1024**3:.1f} GiB free at {place}"
    remedy = "Make room, or move the home to a larger disk: a write that finds none ends the node."
    if free < DISK_BYTES_MIN:
        return Finding("disk", "missing", f"{text}: less than accepted transactions may take", remedy)
    return Finding("disk", "warn" if free < DISK_BYTES_FEW else "ok", text, remedy * (free < DISK_BYTES_FEW))


def check_file_system(settings: Settings) -> Finding:
    """Whether an fsync means there what it has to mean."""
    place = _nearest(settings.ledger_path)
    try:
        kind = file_system_of(place, MOUNTS.read_text(errors="surrogateescape"))
    except OSError as error:
        return Finding("file system", "ok", f"not known: {MOUNTS} can't be read ({error.strerror})")
    remedy = "Put the home on a disk of this machine: what a 202 promises is as good as its fsync."
    if kind in NETWORK_FILE_SYSTEMS or kind.startswith("fuse"):
        text = f"{kind} at {place}: many such say that they have written what they have not"
        return Finding("file system", "warn", text, remedy)
    if kind in VOLATILE_FILE_SYSTEMS:
        return Finding("file system", "warn", f"{kind} at {place} is memory: a restart loses all", remedy)
    if kind in LAYERED_FILE_SYSTEMS:
        text = f"{kind} at {place}: a container's own folders, which go when it goes"
        return Finding("file system", "warn", text, "Mount a volume for the home.")
    return Finding("file system", "ok", f"{kind or 'unknown'} at {place}")


def file_system_of(path: Path, mounts: str) -> str:
    """The type of the file system that an existing `path` is on, by the text of `mountinfo`, or ""."""
    best, kind = "", ""
    resolved = path.resolve()
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])
        # Of two at one place the later one hides the earlier one.
        if resolved.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind


def look_at_ledger(settings: Settings, *, running: bool) -> tuple[Finding, int]:
    """Whether it opens and is of this chain; and the time of its last block, 0 if that is not known."""
    if not os.path.isdir(settings.ledger_path):
        return Finding("ledger", "ok", "there is none yet; a start makes it"), 0
    if running:
        return Finding("ledger", "ok", "not looked at: a bcdb is using it"), 0
    try:
        from bcdb.ledger import Reader
        from bcdb.ledger.store import check_identity, locked, open_read_only

        with locked(settings.ledger_path):
            families = open_read_only(settings.ledger_path)
            try:
                chain_id = check_identity(families, settings.ledger_path, settings.chain_id or None)
                head = Reader(families).head
            finally:
                families.close()
    except (BcdbError, OSError, ImportError) as error:
        text = error.text if isinstance(error, BcdbError) else f"can't be opened: {_one_line(error)}"
        remedy = f"`bcdb fsck --home {settings.home}` tells more; a damaged one comes back from the backup."
        return Finding("ledger", "missing", text, remedy), 0
    return Finding("ledger", "ok", f"chain {chain_id}, at block {head.height}"), head.time_ns


def check_tls(settings: Settings) -> Finding:
    assert settings.tls_cert is not None, "asked only then"
    try:
        # A passphrase, so that none is asked for on the terminal.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password="-")
    except (OSError, ssl.SSLError) as error:
        text = f"{settings.tls_cert} and {settings.tls_key} can't be used: {_one_line(error)}"
        return Finding("tls", "missing", text, "They are PEM files of one key, without a passphrase.")
    return Finding("tls", "ok", f"{settings.tls_cert}")


def in_use(settings: Settings) -> bool:
    """Whether a node, or another command, holds the home's lock."""
    try:
        handle = os.open(settings.lock_path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno == errno.EWOULDBLOCK
    finally:
        os.close(handle)
    return False


def check_ports(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """One for each address that a start listens on."""
    wanted = [("port", settings.host, settings.port), ("stream_port", settings.host, settings.stream_port)]
    if settings.engine == "cometbft":
        host, _, digits = settings.p2p_listen.rpartition(":")
        wanted.append(("p2p_listen", host.strip("[]"), int(digits)))
    for name, host, port in wanted:
        if running:
            yield Finding(name, "ok", f"{port} is not looked at: a bcdb is using this home")
        else:
            yield check_port(name, host, port)


def check_port(name: str, host: str, port: int) -> Finding:
    try:
        for listener in bind(host, port, 1):
            listener.close()
    except SettingsError as error:
        remedy = f"Choose another one with the setting `{name}`, or stop what uses it."
        return Finding(name, "missing", error.text.partition(";")[0], remedy)
    return Finding(name, "ok", f"{port} on {host} is free" if port else "the system chooses one")


def check_genesis(settings: Settings) -> Finding:
    """Whether the chain's beginning can be read, and is of the chain that the settings name."""
    from consensus.cometbft.genesis import read_genesis
    from consensus.cometbft.keys import HomeError

    path = settings.genesis_path
    remedy = "`bcdb network join` makes it; it is the same file at each member of the network."
    try:
        genesis = read_genesis(path.read_bytes())
    except OSError as error:
        return Finding("genesis", "missing", f"{path} can't be read: {error.strerror}", remedy)
    except HomeError as error:
        return Finding("genesis", "missing", f"{path} can't be used: {_one_line(error)}", remedy)
    if genesis.chain_id != settings.chain_id:
        text = f"{path} is of the chain {genesis.chain_id!r}, the settings are of {settings.chain_id!r}"
        return Finding("genesis", "missing", text, remedy)
    return Finding("genesis", "ok", f"{genesis.chain_id}, with {len(genesis.validators)} validators at first")


def check_members(settings: Settings) -> Finding:
    from bcdb.node.members import read_members

    try:
        members = read_members(settings.members_path)
    except SettingsError as error:
        return Finding("members", "missing", error.text, "Mend it, or get it again from another member.")
    return Finding("members", "ok", f"{len(members.all)} in {settings.members_path}")


def _lack(name: str, text: str, remedy: str, *, needed: bool, use: str) -> Finding:
    """The finding on a program that is not there, or of no use."""
    if needed:
        return Finding(name, "missing", text, remedy)
    return Finding(name, "ok", f"{text}; not needed here: it is for {use}", remedy)


def _nearest(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    # Not `Path.exists`, which raises where this user may not look.
    return next(place for place in (path, *path.parents) if os.path.exists(place) or place == place.parent)


def _one_line(said: object) -> str:
    """The first line of what an error or a program says, cut to a length that can be shown."""
    return (str(said).strip().splitlines() or ["it says nothing"])[0][:300]


def _utc(time_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time_ns // 1_000_000_000))
