"""`bcdb fsck`: checks a node that is not running, with a progress bar for people: its ledger, or its store.

Nothing is mended or made, and a check that could not be done is never told as a clean one.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bcdb.cli.home import locked
from bcdb.cli.screen import fail, note, notes, print_json, say
from bcdb.ledger import fsck
from bcdb.model.errors import BcdbError, StoreError
from bcdb.node import logs
from bcdb.node.blocks import open_still
from bcdb.node.settings import Settings, read_settings
from bcdb.node.stores import open_reader
from query import checking
from query.errors import QueryError

FAULTY = 1
NOT_CHECKED = 2
"""Exit codes: there are faults, or nothing is known (nothing there, in use, can't be opened)."""
Show = Callable[[str, int, int], None]
"""Told what is being read, how much of it is done and how much there is."""


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
    with _bars() as show:
        return list(fsck.check(ledger, show))


def check_store(home: Path | None, flags: Mapping[str, Any], *, as_json: bool) -> None:
    """Print every difference between the home's query store and its ledger; exit codes as `check_home`."""
    found: list[checking.Difference] = []
    count = 0

    def tell(difference: checking.Difference) -> None:
        nonlocal count
        count += 1
        if as_json:
            found.append(difference)
        else:
            # As they come: there may be more of them than fit into memory.
            say(f"{difference.where}: {difference.what}", "red")

    try:
        settings = read_settings(home, flags)
        if not settings.ledger_path.is_dir():
            raise StoreError(f"There is no ledger in {settings.home}.")
        with locked(settings) as lock:
            height, head = asyncio.run(_compare(settings, lock, tell))
    except (BcdbError, QueryError) as error:
        fail(error.text, NOT_CHECKED)
    kind = settings.store_kind
    if as_json:
        print_json(
            {
                "home": str(settings.home),
                "store": kind,
                "height": height,
                "ledger_height": head,
                "clean": not count,
                "faults": found,
            }
        )
    elif count:
        say(f"{count} differences between the query store of {settings.home} and its ledger.", "bold red")
    else:
        say(f"The query store of {settings.home} is what its ledger says, up to block {height}.", "green")
    if kind == "sqlite" and settings.mongo_path.exists():
        note("That was SQLite's. To check the MongoDB of the node's own, say --mongo.")
    if height < head:
        note(f"It is behind: the ledger ends at block {head}. A node that runs makes that good.")
    if count:
        raise typer.Exit(FAULTY)


async def _compare(
    settings: Settings, lock: int, tell: Callable[[checking.Difference], None]
) -> tuple[int, int]:
    """Tell all differences; the heights of store and ledger. Raises `BcdbError`, `QueryError`."""
    async with contextlib.AsyncExitStack() as stack:
        ledger = stack.enter_context(open_still(settings.ledger_path))
        if settings.mongo:
            from bcdb.cli.mongod import running

            # What there is to say about its start belongs on standard error, as everything but the answer.
            logs.configure(settings, process="fsck")
            await stack.enter_async_context(running(settings, lock))
        elif settings.store_kind == "sqlite" and not settings.store_path.exists():
            hint = " Is it MongoDB's? Then say --mongo." if settings.mongo_path.exists() else ""
            raise StoreError(f"There is no query store in {settings.home}.{hint}")
        store = open_reader(settings)
        stack.push_async_callback(store.close)
        show = stack.enter_context(_bars())
        async for difference in checking.check(ledger, store, show):
            tell(difference)
        with contextlib.suppress(QueryError):
            return (await store.checkpoint()).height, await ledger.head()
        # Its checkpoint can't be read, which has been told.
        return 0, await ledger.head()


@contextlib.contextmanager
def _bars() -> Iterator[Show]:
    """A bar on standard error for each thing that is read; none if that is no terminal."""
    columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, disable=not notes.is_terminal, redirect_stdout=False) as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, expected: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=max(expected, done))

        yield show
