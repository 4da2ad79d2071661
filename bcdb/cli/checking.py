"""`bcdb fsck`: checks the ledger of a node that is not running, with a progress bar for people."""

from pathlib import Path

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bcdb.cli.home import locked
from bcdb.cli.screen import fail, notes, print_json, say
from bcdb.ledger import fsck
from bcdb.model.errors import BcdbError, StoreError
from bcdb.node.settings import Settings, read_settings

FAULTY = 1
NOT_CHECKED = 2
"""Exit codes: the ledger has faults, or nothing is known of it (none there, in use, can't be opened)."""


def check_home(home: Path | None, *, as_json: bool) -> None:
    """Print every fault of the home's ledger; the exit code is `FAULTY` if there is one, or `NOT_CHECKED`."""
    try:
        settings = read_settings(home)
        faults = _check(settings)
    except BcdbError as error:
        fail(error.text, NOT_CHECKED)
    if as_json:
        print_json({"home": str(settings.home), "clean": not faults, "faults": faults})
    elif faults:
        for fault in faults:
            say(f"{fault.where}: {fault.what}", "red")
        say(f"{len(faults)} faults in the ledger of {settings.home}.", "bold red")
    else:
        say(f"The ledger of {settings.home} is clean.", "green")
    if faults:
        raise typer.Exit(FAULTY)


def _check(settings: Settings) -> list[fsck.Fault]:
    if not settings.ledger_path.is_dir():
        raise StoreError(f"There is no ledger in {settings.home}.")
    with locked(settings):
        return _with_bars(settings.ledger_path)


def _with_bars(ledger: Path) -> list[fsck.Fault]:
    columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, disable=not notes.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, expected: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=max(expected, done))

        return list(fsck.check(ledger, show))
