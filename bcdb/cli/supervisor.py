"""Runs a node: binds its ports, starts node process, projector, API workers and mongod, and watches them.

The supervisor never touches the ledger. When the node process ends, everything ends, unless it was killed and
is one of a network; any other that ends is started again. It leaves no process behind, also when it is killed
itself (see `children`, `tied`).
"""

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import structlog

from bcdb.cli.children import Child, child_environment, fate
from bcdb.cli.home import clear_run
from bcdb.cli.sockets import bind, port_of
from bcdb.model import limits
from bcdb.model.errors import BcdbError, SettingsError
from bcdb.node.settings import Settings, write_private

if TYPE_CHECKING:
    from bcdb.cli.mongod import Mongod

START_POLL_S = 0.02
READY_POLL_S = 0.05
FAILURES_BEFORE_READY_MAX = 4
WORKERS_STOP_S = 6.0
NODE_STOP_S = 3.0
"""Together under `limits.STOP_S_MAX`, with room for what a loaded machine needs to start and reap."""
REAP_S = 1.0
MONGOD_READY_S = 20.0
"""So long after everything else a mongod may take before the node says that it is ready without it."""
OPEN_FILES = 65_536

logger = structlog.get_logger()


class NodeEnded(BcdbError):
    """The node process, or one that it can't do without, has ended or never came up."""


class Supervisor:
    """One run of a node. `lock` is the descriptor of the home's lock, which the node process holds too."""

    def __init__(self, settings: Settings, lock: int) -> None:
        _check_tls(settings)
        self.mongod = _own_mongod(settings, lock)
        http = bind(settings.host, settings.port, settings.workers)
        try:
            streams = bind(settings.host, settings.stream_port, settings.workers)
        except BaseException:
            _close(http)
            raise
        self._sockets = [*http, *streams]
        self.settings = msgspec.structs.replace(
            settings, port=port_of(http[0]), stream_port=port_of(streams[0])
        )
        self._settings_path = settings.run_path / "settings.json"
        self._lifeline, self._lifeline_end = os.pipe()
        environment = child_environment(settings.metrics_path)

        def child(name: str, module: str, *arguments: str, descriptors: tuple[int, ...] = ()) -> Child:
            common = [str(self._settings_path), "--lifeline", str(self._lifeline)]
            held = (self._lifeline, *descriptors)
            return Child(name, module, [*common, *arguments], descriptors=held, environment=environment)

        self.node = child("node", "bcdb.node.process", descriptors=(lock,))
        self.projector = child("projector", "bcdb.node.projection")
        self.workers = [
            child(
                f"worker-{index}",
                "bcdb.http.worker",
                *("--index", str(index)),
                *("--fd", str(http[index].fileno())),
                *("--stream-fd", str(streams[index].fileno())),
                descriptors=(http[index].fileno(), streams[index].fileno()),
            )
            for index in range(settings.workers)
        ]
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    @property
    def _children(self) -> list[Child]:
        """All but the node process: those that are started again."""
        return [self.projector, *self.workers, *([self.mongod.child] if self.mongod else [])]

    async def run(self, ready: Callable[[Settings], None]) -> None:
        """Run until SIGTERM or SIGINT; call `ready` once the node answers.

        Raises `NodeEnded` when the node process ends by itself.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        work = asyncio.create_task(self._work(ready))
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            work.cancel()
            stop.cancel()
            with contextlib.suppress(asyncio.CancelledError, BcdbError):
                await work
            await self._end()

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def _work(self, ready: Callable[[Settings], None]) -> None:
        self._prepare()
        await self.node.start()
        ended = asyncio.create_task(self._keep_node())
        tasks: list[asyncio.Task[None]] = []
        try:
            if self.mongod is not None:
                tasks += [self._keep(self.mongod.child), asyncio.create_task(self.mongod.look_after())]
            await self._until_listening(ended)
            told = asyncio.create_task(self._tell_ready(ready))
            tasks += [told, *map(self._keep, (self.projector, *self.workers))]
            waiting = {ended, *tasks}
            while not ended.done():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            raise NodeEnded(self._last_words(ended.result()))
        finally:
            for task in (ended, *tasks):
                task.cancel()
            await asyncio.gather(ended, *tasks, return_exceptions=True)

    async def _keep_node(self) -> int:
        """Wait for the end of the node process, and give its exit code.

        In a network the others go on, so one that was killed is started again, and its CometBFT with it; one
        that ends by itself has said why, and would do so again.
        """
        if self.settings.engine != "cometbft":
            assert self.node.process is not None, "it was started"
            return await self.node.process.wait()
        return await self.node.keep(self._on_end, lasting=lambda code: code < 0)

    def _keep(self, child: Child) -> asyncio.Task[None]:
        async def keep() -> None:
            await child.keep(self._on_end)

        return asyncio.create_task(keep())

    def _prepare(self) -> None:
        run = self.settings.run_path
        shutil.rmtree(run, ignore_errors=True)
        self.settings.socket_path.unlink(missing_ok=True)
        self.settings.mongo_socket_path.unlink(missing_ok=True)
        self.settings.make_folders()
        self.settings.dump(self._settings_path)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(most, OPEN_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))

    async def _until_listening(self, ended: asyncio.Task[int]) -> None:
        """Wait until the node process takes connections: it may have much to replay first."""
        while not ended.done():
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.setblocking(False)
                probe.connect(str(self.settings.socket_path))
                return
            await asyncio.wait({ended}, timeout=START_POLL_S)
        raise NodeEnded(self._last_words(ended.result()))

    async def _tell_ready(self, ready: Callable[[Settings], None]) -> None:
        while not await self._is_ready():
            for child in (self.projector, *self.workers):
                if child.failures > FAILURES_BEFORE_READY_MAX:
                    raise NodeEnded(
                        f"The process {child.name} ended {child.failures} times before the node was ready; "
                        "its reason is above."
                    )
            await asyncio.sleep(READY_POLL_S)
        if self.mongod is not None and (trouble := await self._trouble_with(self.mongod)):
            logger.error("the node goes on without searches", reason=trouble)
        for child in (self.node, *self._children):
            child.started = self._write_processes
        self._write_processes()
        ready(self.settings)

    async def _trouble_with(self, mongod: "Mongod") -> str:
        """Wait for a mongod that starts; why it can't be waited for, "" if it is there.

        The node is of use without it: whatever is wrong with it must not keep writes away.
        """
        deadline_s = asyncio.get_running_loop().time() + MONGOD_READY_S
        while not mongod.up.is_set():
            if mongod.child.failures > FAILURES_BEFORE_READY_MAX:
                return f"mongod ended {mongod.child.failures} times. {mongod.last_words()}"
            if asyncio.get_running_loop().time() >= deadline_s:
                return f"mongod is not ready yet; it may be recovering. {mongod.last_words()}"
            await asyncio.sleep(READY_POLL_S)
        return ""

    async def _is_ready(self) -> bool:
        host, port = self._sockets[0].getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        context = None
        if self.settings.tls:
            # It is our own port on this machine; whose name the certificate has does not matter here.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection(host, port, ssl=context)
                try:
                    writer.write(
                        b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                    )
                    return (await reader.readline()).split()[1:2] == [b"200"]
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError):
            return False

    def _on_end(self, pid: int) -> None:
        """A worker or the projector is gone: its live gauges must not be counted any more."""
        from prometheus_client.multiprocess import mark_process_dead

        with contextlib.suppress(OSError):
            mark_process_dead(pid, str(self.settings.metrics_path))  # type: ignore[no-untyped-call]

    def _write_processes(self) -> None:
        children = (self.node, *self._children)
        pids = {child.name: child.process.pid for child in children if child.process is not None}
        content = json.dumps({"supervisor": os.getpid(), **pids}).encode()
        with contextlib.suppress(OSError):
            write_private(self.settings.run_path / "processes.json", content)

    def _last_words(self, code: int) -> str:
        return (
            f"The node process ended ({fate(code)}), so this node stops; its reason, if any, is above. "
            "Nothing that was answered with 202 is lost: it is still there after the next `bcdb start`."
        )

    async def _end(self) -> None:
        """Stop everything: first who takes requests, then the node process, within `limits.STOP_S_MAX`."""
        stopping = asyncio.create_task(self._stop_all())
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({stopping, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            for child in (*self._children, self.node):
                child.signal(signal.SIGKILL)
            await stopping
        hurry.cancel()
        _close(self._sockets)
        os.close(self._lifeline)
        os.close(self._lifeline_end)
        clear_run(self.settings)

    async def _stop_all(self) -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + limits.STOP_S_MAX - REAP_S
        await asyncio.gather(*(child.stop(WORKERS_STOP_S) for child in (*self.workers, self.projector)))
        # Nobody needs the mongod any more; it has until the end to put all it holds into its files.
        last = [] if self.mongod is None else [self.mongod.child.stop(end_s - loop.time())]
        await asyncio.gather(self.node.stop(NODE_STOP_S), *last)


def _own_mongod(settings: Settings, lock: int) -> "Mongod | None":
    if not settings.mongo:
        return None
    # Only now: who has no MongoDB does not carry its driver.
    from bcdb.cli.mongod import Mongod

    return Mongod(settings, lock)


def _close(listeners: list[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


def _check_tls(settings: Settings) -> None:
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or str(error)
        raise SettingsError(
            f"tls_cert {settings.tls_cert} and tls_key {settings.tls_key} can't be used: {reason}."
        ) from None
