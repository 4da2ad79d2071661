"""The commands of `bcdb testnet`, as a person sees them: what is made, that it runs, how it is, its end.

What they show is on standard output, hints are beside it; no command waits for anything without a bound.
"""

import asyncio
import contextlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from bcdb.cli.home import locked
from bcdb.cli.screen import note, print_json, say
from bcdb.cli.testnet import logfile
from bcdb.cli.testnet.figures import FAILURES_MAX, Picture, Watcher
from bcdb.cli.testnet.layout import Layout, Node, make_testnet, plan, read_layout
from bcdb.cli.testnet.running import (
    POLL_S,
    Runner,
    environment,
    read_processes,
    running_pid,
    stop_running,
)
from bcdb.cli.testnet.table import LOOK_PAUSE_S, live, print_table
from bcdb.model.errors import BcdbError, SettingsError
from bcdb.node import logs
from bcdb.node.settings import read_settings

READY_S_MAX = 60.0
READY_S_MAX_PER_NODE = 15.0
"""Together the time that all nodes have to become ready before `--detach` gives them up."""
CATCH_UP_S_MAX = 10.0
"""Ready nodes are waited for so long to say that they have all blocks: one alone never says so."""


class NotReady(BcdbError):
    """A testnet that was started in the background did not come up."""


def init(
    folder: Path,
    validators: int,
    observers: int,
    *,
    port: int,
    workers: int,
    mongo: bool,
    chain_id: str | None,
    source: Path | None,
) -> None:
    """Make the folder of a testnet. Raises `BcdbError` or `EngineError`."""
    nodes = plan(validators, observers, port=port)
    origin = None if source is None else read_settings(source)
    made = make_testnet(folder, nodes, workers=workers, mongo=mongo, chain_id=chain_id, source=origin)
    where = shlex.quote(str(made.folder))
    say(f"Made {made.folder}: chain {made.chain_id}, {validators} validators, {observers} observers")
    for node in nodes:
        say(f"  {node.name:7} {node.url}")
    if mongo:
        say(f"Searches will be answered by one MongoDB for all, in {made.settings.mongo_path}")
    say(f"Start it: bcdb testnet up --home {where}")


def up(folder: Path, numbers: Sequence[int], *, detach: bool) -> None:
    """Run nodes of a testnet until it is told to stop, or go on in the background once they are ready."""
    layout = read_layout(folder)
    nodes = layout.chosen(numbers)
    if detach:
        _start_in_background(layout, nodes, numbers)
        return
    with locked(layout.settings) as lock:
        asyncio.run(Runner(layout, nodes, lock).run(_accompany))
    note("Stopped.")


def status(folder: Path, *, watch: bool, as_json: bool) -> None:
    """Print how the nodes are; exit code 1 if not all are up, or if they do not agree."""
    layout = read_layout(folder)
    if watch:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_watch(layout, as_json=as_json))
        return
    picture = asyncio.run(_look_twice(layout))
    if as_json:
        print_json(picture)
    elif not picture.up and running_pid(layout.folder) is None:
        note(_not_running(layout))
    else:
        print_table(picture)
    if len(picture.up) < len(picture.nodes) or not picture.agrees:
        raise typer.Exit(1)


def down(folder: Path) -> None:
    """Stop the testnet that runs in a folder. Raises `BcdbError` when it does not end."""
    layout = read_layout(folder)
    pid = stop_running(layout.folder)
    if pid is None:
        note(_not_running(layout))
    else:
        say(f"The testnet in {layout.folder} (process {pid}) is stopped.")


async def _accompany(runner: Runner) -> None:
    """Show how the nodes are while they run, and once that all are ready."""
    async with Watcher(runner.layout) as watcher, live() as (show, pause_s):
        # Only now: what is logged must not go between the lines of a table.
        logs.configure(runner.layout.settings, process="testnet")
        told = False
        while True:
            picture = await watcher.look(runner.processes)
            if not told and _all_up(picture, runner.nodes):
                told = True
                for text in _how_to_use(runner.layout, runner.nodes):
                    note(text)
            show(picture)
            await asyncio.sleep(pause_s if told else LOOK_PAUSE_S)


async def _watch(layout: Layout, *, as_json: bool) -> None:
    async with Watcher(layout) as watcher:
        if as_json:
            await _repeat(watcher, layout, lambda picture: print_json(picture, indent=0), LOOK_PAUSE_S)
        async with live() as (show, pause_s):
            await _repeat(watcher, layout, show, pause_s)


async def _repeat(watcher: Watcher, layout: Layout, show: Callable[[Picture], None], pause_s: float) -> None:
    while True:
        show(await watcher.look(read_processes(layout.folder)))
        await asyncio.sleep(pause_s)


async def _look_twice(layout: Layout) -> Picture:
    """With a second between, so that there is a rate of transactions."""
    async with Watcher(layout) as watcher:
        picture = await watcher.look(read_processes(layout.folder))
        if picture.up:
            await asyncio.sleep(LOOK_PAUSE_S)
            picture = await watcher.look(read_processes(layout.folder))
        return picture


def _start_in_background(layout: Layout, nodes: Sequence[Node], numbers: Sequence[int]) -> None:
    if (pid := running_pid(layout.folder)) is not None:
        raise SettingsError(
            f"The testnet in {layout.folder} runs already (process {pid}); `bcdb testnet down` stops it."
        )
    log = layout.own_log
    log.unlink(missing_ok=True)
    command = [sys.executable, "-P", "-m", "bcdb.cli.testnet.background", str(layout.folder)]
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*command, *map(str, numbers)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            env=environment(layout.folder),
        )
    try:
        picture = asyncio.run(_until_ready(layout, nodes, process, log))
    except BaseException:
        _end(process)
        raise
    print_table(picture)
    for text in _how_to_use(layout, nodes):
        note(text)
    note(f"It goes on in the background (process {process.pid}, log {log}).")
    note(f"It is stopped by: bcdb testnet down --home {shlex.quote(str(layout.folder))}")


async def _until_ready(
    layout: Layout, nodes: Sequence[Node], process: "subprocess.Popen[bytes]", log: Path
) -> Picture:
    """Wait until all of `nodes` are up. Raises `NotReady` as soon as it is clear that they will not be."""
    deadline = time.monotonic() + READY_S_MAX + READY_S_MAX_PER_NODE * len(nodes)
    settled = float("inf")
    async with Watcher(layout) as watcher:
        while True:
            if process.poll() is not None:
                words = logfile.last_words(log).removeprefix("Error: ")
                raise NotReady(f"The testnet did not start: {words or f'see {log}.'}")
            picture = await watcher.look(read_processes(layout.folder))
            if _all_up(picture, nodes):
                settled = min(settled, time.monotonic() + CATCH_UP_S_MAX)
                if not any(one.catching_up for one in picture.up) or time.monotonic() > settled:
                    return picture
            waiting = [one for one in picture.nodes if one.state != "up" and one.name in _names(nodes)]
            failing = [one for one in waiting if one.failures >= FAILURES_MAX]
            late = time.monotonic() > deadline
            if failing or late:
                told = "; ".join(f"{one.name}: {one.reason}" for one in failing or waiting)
                raise NotReady(f"The testnet did not become ready and is stopped. {told}")
            await asyncio.sleep(POLL_S if not picture.up else LOOK_PAUSE_S / 2)


def _not_running(layout: Layout) -> str:
    return f"The testnet in {layout.folder} is not running."


def _all_up(picture: Picture, nodes: Sequence[Node]) -> bool:
    return _names(nodes) <= {one.name for one in picture.up}


def _names(nodes: Sequence[Node]) -> set[str]:
    return {node.name for node in nodes}


def _how_to_use(layout: Layout, nodes: Sequence[Node]) -> list[str]:
    first = nodes[0]
    return [
        f"The testnet is ready: chain {layout.chain_id}, {len(nodes)} nodes, {first.name} at {first.url}",
        f"Try: bcdb status --node {first.url}",
    ]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Stop what was started in the background and does not come up."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    process.wait()
