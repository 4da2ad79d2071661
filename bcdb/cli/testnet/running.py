"""Runs the nodes of a testnet as child processes, and the mongod that they may share, until told to stop.

Who runs it holds the lock of the folder. A node that ends by itself is started again with a growing pause;
when this process is killed the kernel ends the nodes with it.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bcdb.cli.children import Child, child_environment
from bcdb.cli.home import clear_run
from bcdb.cli.testnet import logfile
from bcdb.cli.testnet.layout import Layout, Node, bring_up_to_date, folder_settings
from bcdb.model import limits
from bcdb.model.errors import BcdbError
from bcdb.node.settings import ENVIRONMENT_PREFIX, read_settings, write_private
from consensus.cometbft.binary import find

if TYPE_CHECKING:
    from bcdb.cli.mongod import Mongod

LOOK_AFTER_S = 2.0
NODES_STOP_S = limits.STOP_S_MAX + 5.0
"""A node takes `limits.STOP_S_MAX` at most; here several share the cores of one machine."""
MONGOD_STOP_S = 10.0
DOWN_S_MAX = NODES_STOP_S + MONGOD_STOP_S + 5.0
POLL_S = 0.05
OWN = (
    *("home", "host", "port", "stream_port", "workers", "chain_id", "mongo", "mongo_uri", "mongo_database"),
    *("engine", "p2p_listen", "p2p_external"),
)
"""Settings that each node has of its own: what the environment says of them is kept from all."""
_DROPPED = frozenset({"PROMETHEUS_MULTIPROC_DIR", *(ENVIRONMENT_PREFIX + name.upper() for name in OWN)})


class Process(msgspec.Struct, frozen=True):
    """A node's process: its id, None while there is none; when it began or ended (Unix time); how often it
    has ended by itself since it last ran for long."""

    pid: int | None
    since_s: float
    failures: int = 0


Processes = Mapping[str, Process]


class Runner:
    """One run of these nodes. `lock` is the descriptor of the folder's lock.

    Raises `BcdbError` or `EngineError` if this machine lacks what they need.
    """

    def __init__(self, layout: Layout, nodes: Sequence[Node], lock: int) -> None:
        self.layout = layout
        self.nodes = tuple(nodes)
        for node in nodes:
            find(read_settings(layout.home(node)).cometbft)
        bring_up_to_date(layout)
        self._mongod = _shared_mongod(layout, lock)
        self._children = {node.name: _child(layout, node) for node in nodes}
        self._ended_s: dict[str, float] = {}
        self._started_s: dict[str, float] = {}
        self._written = b""
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    @property
    def processes(self) -> dict[str, Process]:
        """By the name of the node."""
        return {name: self._process(name) for name in self._children}

    async def run(self, accompany: Callable[["Runner"], Coroutine[Any, Any, None]]) -> None:
        """Run until SIGTERM or SIGINT, or until `accompany`, which goes on beside it, raises."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        settings = self.layout.settings
        clear_run(settings)
        settings.make_folders()
        work = (accompany(self), self._look_after(), *self._keeping())
        tasks = [asyncio.create_task(one) for one in work]
        stop = asyncio.create_task(self._stop.wait())
        try:
            waiting = {stop, *tasks}
            while not stop.done():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in (stop, *tasks):
                task.cancel()
            await asyncio.gather(stop, *tasks, return_exceptions=True)
            await self._end()
            clear_run(settings)

    def _keeping(self) -> list[Coroutine[Any, Any, object]]:
        work: list[Coroutine[Any, Any, object]] = []
        if self._mongod is not None:
            work += [self._mongod.child.keep(lambda pid: None), self._mongod.look_after()]
        for name, child in self._children.items():
            child.started = lambda name=name: self._on_start(name)  # type: ignore[misc]
            work.append(child.keep(lambda pid, name=name: self._on_end(name)))  # type: ignore[misc]
        return work

    async def _look_after(self) -> None:
        while True:
            for log in (self.layout.own_log, *map(self.layout.log, self.nodes)):
                await asyncio.to_thread(logfile.bound, log)
            self._write()
            await asyncio.sleep(LOOK_AFTER_S)

    def _process(self, name: str) -> Process:
        child = self._children[name]
        running = child.process
        if running is None or running.returncode is not None:
            return Process(None, self._ended_s.get(name, 0.0), child.failures)
        return Process(running.pid, self._started_s.get(name, 0.0), child.failures)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _on_start(self, name: str) -> None:
        self._started_s[name] = time.time()
        self._write()

    def _on_end(self, name: str) -> None:
        self._ended_s[name] = time.time()
        self._write()

    def _write(self) -> None:
        content = msgspec.json.encode(self.processes)
        if content != self._written:
            with contextlib.suppress(OSError):
                write_private(_processes_path(self.layout.folder), content)
                self._written = content

    async def _end(self) -> None:
        """Stop all nodes at once, then the mongod; at a second signal all are killed."""
        stopping = asyncio.create_task(self._stop_all())
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({stopping, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            for child in (*self._children.values(), *([self._mongod.child] if self._mongod else [])):
                child.signal(signal.SIGKILL)
        await stopping
        hurry.cancel()

    async def _stop_all(self) -> None:
        await asyncio.gather(*(child.stop(NODES_STOP_S) for child in self._children.values()))
        if self._mongod is not None:
            await self._mongod.child.stop(MONGOD_STOP_S)


def running_pid(folder: Path) -> int | None:
    """The process that runs the testnet of this folder: it holds the lock, whatever a file says."""
    path = folder_settings(folder).lock_path
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        deadline = time.monotonic() + LOOK_AFTER_S
        while time.monotonic() < deadline:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                with contextlib.suppress(ValueError):
                    return int(os.pread(handle, 20, 0))
            # It has the lock, and is about to write its id into it.
            time.sleep(POLL_S)
        return None
    finally:
        os.close(handle)


def read_processes(folder: Path) -> Processes:
    """The processes of the run that goes on; {} if none does."""
    if running_pid(folder) is None:
        return {}
    try:
        return msgspec.json.decode(_processes_path(folder).read_bytes(), type=dict[str, Process])
    except (OSError, msgspec.MsgspecError):
        return {}


def stop_running(folder: Path) -> int | None:
    """Stop the run of this folder and wait until it has ended; its process id, None if there was none.

    Raises `BcdbError` when it does not end in time.
    """
    pid = running_pid(folder)
    if pid is None:
        return None
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_S_MAX
    while running_pid(folder) is not None:
        if time.monotonic() > deadline:
            raise BcdbError(
                f"The testnet in {folder} (process {pid}) has not ended {DOWN_S_MAX:.0f} s after SIGTERM; it "
                "may still be at it. Killing that process ends its nodes, too, and loses nothing."
            )
        time.sleep(POLL_S)
    return pid


def environment(folder: Path) -> dict[str, str]:
    """For processes that are started here: this very `bcdb`, and no settings that are one node's own."""
    found = child_environment(folder)
    return {name: value for name, value in found.items() if name not in _DROPPED}


def go_threads(nodes: int) -> str:
    """Cores for the Go programs of each of so many nodes: left to itself, each would idle on all of them."""
    return str(max(1, len(os.sched_getaffinity(0)) // nodes))


def _child(layout: Layout, node: Node) -> Child:
    log = layout.log(node)
    logfile.bound(log)
    home = str(layout.home(node))
    started = [sys.executable, "-P", "-m", "bcdb", "start", "--home", home]
    child = Child(
        node.name,
        "bcdb.cli.testnet.logfile",
        # It keeps the current folder: a program may be named relative to it.
        [str(log), str(os.getpid()), os.getcwd(), *started],
        descriptors=(),
        environment={"GOMAXPROCS": go_threads(len(layout.nodes)), **environment(layout.folder)},
    )
    child.last_words = lambda: logfile.last_words(log)
    return child


def _shared_mongod(layout: Layout, lock: int) -> "Mongod | None":
    if not layout.mongo:
        return None
    from bcdb.cli.mongod import Mongod

    return Mongod(layout.settings, lock)


def _processes_path(folder: Path) -> Path:
    return folder_settings(folder).run_path / "processes.json"
