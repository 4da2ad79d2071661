"""`bcdb query`: how the copy of the ledger is that searches ask, and making it anew while the node serves.

A rebuild is asked for with a file in the home; it is the projector that does it. Nothing here touches the
store itself.
"""

import sys
import time
from pathlib import Path

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bcdb.cli.screen import note, notes, print_json, say
from bcdb.cli.talk import connect, url_of
from bcdb.client import Client, Unreachable
from bcdb.client.results import StoreStatus
from bcdb.model.errors import SettingsError, StoreError, Unavailable
from bcdb.node.settings import Settings, read_settings, write_private

ANSWER_S_MAX = 5.0
POLL_S = 0.2
SILENCE_S_MAX = 60.0
"""A node that does not answer for so long while its store is rebuilt is given up on."""


def show_status(nodes: list[str] | None, home: Path | None, *, as_json: bool) -> None:
    """Print the status of a node's query store. Raises `Unavailable` if the store is away."""
    with connect(nodes, home, timeout_s=ANSWER_S_MAX) as client:
        url = client.node().url
        try:
            found = client.store()
        except Unreachable:
            # The node does answer, or this says that it doesn't; then what hangs is its store.
            url = client.node().url
            raise Unavailable(
                f"The node {url} answers, but its query store has not for {ANSWER_S_MAX:g} s."
            ) from None
    if as_json:
        print_json(found)
        return
    say(f"{url}: {found.kind}")
    lines = {
        "height": str(found.height),
        "ledger": f"{found.ledger_height}, {found.lag_blocks} blocks ahead",
        "words": "can be searched for" if found.text_search else "can not be searched for",
    }
    if found.building is not None:
        building = found.building
        lines["building"] = f"block {building.height} of {building.target}; until then it answers nothing"
    for name, told in [*lines.items(), *found.counts.items()]:
        say(f"  {name:12} {told}")


def rebuild(home: Path | None, *, wait: bool, sure: bool) -> None:
    """Ask for a rebuild of the query store, and follow it if a node runs and `wait` says so."""
    settings = read_settings(home)
    if not settings.ledger_path.is_dir():
        raise StoreError(f"There is no ledger in {settings.home}, so nothing to build a query store from.")
    if not sure and sys.stdin.isatty():
        question = f"Questions are refused until the query store of {settings.home} is built anew. Go on?"
        typer.confirm(question, abort=True, err=True)
    try:
        write_private(settings.rebuild_request_path, b"")
    except OSError as error:
        raise SettingsError(
            f"The file {settings.rebuild_request_path} can't be written: {error.strerror}."
        ) from None
    try:
        client = connect([url_of(settings.home)], timeout_s=ANSWER_S_MAX)
    except Unreachable:
        note(f"No node runs on {settings.home}; it begins with the rebuild when it starts.")
        return
    with client:
        if wait:
            done = _follow(client, settings)
            say(f"The query store is built: it is at block {done.height}.")
        else:
            note("The rebuild is asked for; `bcdb query status` tells how far it is.")


def _follow(client: Client, settings: Settings) -> StoreStatus:
    """Show the progress of a rebuild until it is done. Raises `Unavailable`, `Unreachable`."""
    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    silent_since: float | None = None
    with Progress(*columns, console=notes, disable=not notes.is_terminal) as bars:
        task = bars.add_task("waiting for the node", total=None)
        while True:
            # In this order: the file goes once the store is empty, so what is seen without it is new.
            asked = settings.rebuild_request_path.exists()
            try:
                found = client.store()
            except (Unavailable, Unreachable) as error:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > SILENCE_S_MAX:
                    raise
                bars.update(task, description="the store is away")
                if isinstance(error, Unreachable):
                    time.sleep(POLL_S)
                continue
            silent_since = None
            building = found.building
            if building is not None:
                bars.update(task, description="blocks", completed=building.height, total=building.target)
            elif not asked:
                bars.update(task, description="blocks", completed=found.height, total=found.height)
                return found
            time.sleep(POLL_S)
