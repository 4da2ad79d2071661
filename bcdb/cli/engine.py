"""`bcdb engine`: builds CometBFT into this user's cache, and tells which one a node would use.

Finding and building is the work of `consensus.cometbft.binary`; here is what a person sees of it. Go's own
output, a line for each of some hundred packages, never gets to the screen as it is.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from rich.status import Status
from rich.text import Text

from bcdb.cli.screen import fail, note, notes, print_json, say, warn
from bcdb.node.settings import ENVIRONMENT_PREFIX, Settings, explain_settings, read_settings
from consensus.cometbft.binary import QUALIFIED, VERSION, Binary, BinaryError, cached, find
from consensus.cometbft.binary import install as build

DOWNLOADING = "go: downloading "
PACKAGES_A_LINE = 100
"""Where no line can be drawn over another, one is written for so many packages."""
_QUALIFIED_ARE = f"bcdb's tests have passed with {' and '.join(QUALIFIED)}"
IN_PATH = "PATH"
IN_CACHE = "cache"


def install(version: str | None, *, as_json: bool) -> None:
    """Build CometBFT, unless this version is in the cache, and print where it is."""
    wanted = version or VERSION
    try:
        was_there = cached(wanted).exists()
        if wanted not in QUALIFIED:
            warn(f"CometBFT {wanted} is not qualified: {_QUALIFIED_ARE}.")
        with _told() as progress:
            found = build(wanted, progress)
    except BinaryError as error:
        fail(sentence(error))
    if as_json:
        print_json({**_described(found), "built": not was_there})
    elif was_there:
        say(f"CometBFT {found.version} is there already: {found.path}")
    else:
        say(f"CometBFT {found.version} is built: {found.path}")
    _tell_whose_it_is(found)


def _tell_whose_it_is(built: Binary) -> None:
    """Say so when a node does not take what has been built by itself."""
    try:
        used = find()
    except BinaryError:
        note(f"Nodes use it if their setting `cometbft` (or {ENVIRONMENT_PREFIX}COMETBFT) names it.")
        return
    if used.path != built.path:
        note(
            f"Nodes use CometBFT {used.version} at {used.path}, unless their setting `cometbft` (or "
            f"{ENVIRONMENT_PREFIX}COMETBFT) names this one."
        )


def show(home: Path | None, *, as_json: bool) -> None:
    """Print which CometBFT a node on this home would use. Raises `SettingsError`."""
    settings = read_settings(home)
    try:
        found = find(settings.cometbft)
    except BinaryError as error:
        fail(sentence(error))
    source = source_of(found, settings)
    if as_json:
        print_json({**_described(found), "from": source})
        return
    names = {IN_PATH: "the PATH", IN_CACHE: "the cache that `bcdb engine install` fills"}
    say(f"CometBFT {found.version}")
    say(f"  path       {found.path}")
    say(f"  from       {names.get(source, f'the setting `cometbft` in {source}')}")
    say(f"  qualified  {'yes' if found.is_qualified else 'no'}: {_QUALIFIED_ARE}")


def source_of(found: Binary, settings: Settings) -> str:
    """Where `find` has it from: `PATH`, `cache`, or where the setting stands: a file or a variable."""
    if settings.cometbft is not None:
        return explain_settings(settings.home)["cometbft"]
    return IN_CACHE if found.path == cached(VERSION) else IN_PATH


def sentence(error: BinaryError) -> str:
    """With its full stop, unless it ends in lines of another program."""
    text = str(error)
    return text if "\n" in text else f"{text}."


def _described(found: Binary) -> dict[str, object]:
    return {"path": str(found.path), "version": found.version, "qualified": found.is_qualified}


class _Progress:
    """Told the lines of a build; shows one line that changes, or, without `status`, few lines that stay."""

    def __init__(self, status: Status | None) -> None:
        self._status = status
        self._packages = 0
        self._began_s = time.monotonic()

    def __call__(self, line: str) -> None:
        is_package = " " not in line
        self._packages += is_package
        if self._status is not None:
            text = f"{self._packages} packages compiled: {line}" if is_package else line
            self._status.update(Text(text, no_wrap=True, overflow="ellipsis"))
        elif not is_package:
            note(line.removeprefix("go: ") if line.startswith(DOWNLOADING) else line)
        elif self._packages % PACKAGES_A_LINE == 0:
            note(f"compiled {self._packages} packages")

    def sum_up(self) -> None:
        if self._packages:
            note(f"Compiled {self._packages} packages in {time.monotonic() - self._began_s:.0f} s.")


@contextlib.contextmanager
def _told() -> Iterator[_Progress]:
    """Progress on standard error; nothing of it stays on a terminal but the sum."""
    with contextlib.ExitStack() as stack:
        status = stack.enter_context(notes.status("Looking for Go")) if notes.is_terminal else None
        progress = _Progress(status)
        yield progress
    progress.sum_up()
