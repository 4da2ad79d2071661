"""Child processes of a node: started, watched, started again with a growing pause, ended by their process id.

A child holds the read end of a pipe whose write end only the supervisor has: when the supervisor is gone,
however it went, the child reads the end of the pipe and ends itself. Nothing here kills by name. (A mongod
knows nothing of pipes: see `tied`.)
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

import bcdb

PAUSE_S_FIRST = 0.1
PAUSE_S_MAX = 10.0
HEALTHY_S = 30.0
"""A child that lived this long is started again at once when it ends; its past does not count."""

logger = structlog.get_logger()


class Child:
    """One process and the way to start it again. `module` is run with `python -m`."""

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        *,
        descriptors: Sequence[int],
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self.failures = 0
        self.process: asyncio.subprocess.Process | None = None
        self._command = [sys.executable, "-P", "-m", module, *arguments]
        self._descriptors = tuple(descriptors)
        self._environment = dict(environment)
        self._started_s = 0.0
        self.started: Callable[[], None] = lambda: None
        """Called after each start."""
        self.last_words: Callable[[], str] = lambda: ""
        """Why it ended by itself with an error, if it does not log that as all others do."""

    async def start(self) -> asyncio.subprocess.Process:
        # A Ctrl-C goes to all processes of the terminal; it is this one that decides when the others end. A
        # blocked signal stays blocked in the child, and one that comes meanwhile waits here.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=self._descriptors,
                env=self._environment,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self._started_s = time.monotonic()
        logger.debug("started", child=self.name, pid=self.process.pid)
        self.started()
        return self.process

    async def keep(
        self, ended: Callable[[int], None], *, lasting: Callable[[int], bool] = lambda code: True
    ) -> int:
        """Run the process for ever: each time it ends, tell `ended` its id, pause, start it again.

        Returns its exit code when `lasting` says of it that it is not worth that.
        """
        while True:
            process = self.process or await self.start()
            code = await process.wait()
            self.process = None
            ended(process.pid)
            if time.monotonic() - self._started_s >= HEALTHY_S:
                self.failures = 0
            pause = min(PAUSE_S_FIRST * 2.0 ** min(self.failures, 10), PAUSE_S_MAX)
            self.failures += 1
            if not lasting(code):
                return code
            words = self.last_words() if code > 0 or code == -signal.SIGABRT else ""
            reason = {"reason": words} if words else {}
            logger.warning(
                "ended; it is started again", child=self.name, how=fate(code), pause_s=pause, **reason
            )
            await asyncio.sleep(pause)

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.returncode is None:
            # Not `Process.send_signal`: it polls first, and so may take the exit status from under asyncio,
            # which then reports 255 for it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    async def stop(self, timeout_s: float) -> None:
        """SIGTERM, and SIGKILL when the time is over. Returns once the process is gone."""
        process = self.process
        if process is None:
            return
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), timeout_s)
        except TimeoutError:
            logger.warning("did not stop in time and is killed", child=self.name, timeout_s=timeout_s)
            self.signal(signal.SIGKILL)
            await process.wait()


def fate(code: int | None) -> str:
    """How a process ended, e.g. `exit code 1` or `SIGKILL`."""
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def child_environment(metrics: Path) -> dict[str, str]:
    """The environment of all children: they import this very `bcdb`, and not what lies in the current
    folder.
    """
    source = str(Path(bcdb.__file__).resolve().parent.parent)
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": f"{source}{os.pathsep}{path}" if path else source,
        "PYTHONUNBUFFERED": "1",
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
    }
