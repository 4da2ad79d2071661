"""A real `bcdb start` for tests: the console script, on a folder and a port of its own, as one process group.

It is started like a user starts it and killed as a user's machine would kill it. It never kills by name, only
what it started.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

START_S_MAX = 90.0
STOP_S_MAX = 30.0
BCDB = Path(sys.executable).with_name("bcdb")


def free_ports(count: int = 2) -> list[int]:
    """Neighbouring ports free at the moment, below the range the kernel gives to clients."""
    for _ in range(1000):
        first = random.randrange(20_000, 32_000)
        ports = list(range(first, first + count))
        with contextlib.ExitStack() as stack:
            try:
                for port in ports:
                    taken = stack.enter_context(socket.socket())
                    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    taken.bind(("127.0.0.1", port))
            except OSError:
                continue
        return ports
    raise RuntimeError("no free ports found")


def members_of_session(leader: int) -> list[int]:
    """Live processes (no zombies) of the session that `leader` opened."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            state, _parent, _group, session = stat.rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in "ZX":
                found.append(int(entry))
    return found


class Server:
    """A node on `home`. `environment` is added to this process's own, without its `BCDB_*` variables.

    `as_configured`: on the ports, and with the workers, that `config.toml` of the home has; else on free
    ports.
    """

    def __init__(
        self,
        home: Path,
        *,
        workers: int = 2,
        flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        as_configured: bool = False,
    ) -> None:
        self.home = home
        self.host = "127.0.0.1"
        self.log = home.parent / f"{home.name}.log"
        self._command = [str(BCDB), "start", "--home", str(home)]
        if as_configured:
            config = tomllib.loads((home / "config.toml").read_text())
            self.port, self.stream_port = config["port"], config["stream_port"]
        else:
            self.port, self.stream_port = free_ports()
            chosen = ["--host", self.host, "--port", str(self.port), "--workers", str(workers)]
            self._command += chosen
        self._command += flags
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BCDB_")}
        self._environment = {**inherited, "PYTHONUNBUFFERED": "1", **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the command itself, which is also the id of its process group and session."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self, *, wait: bool = True) -> None:
        assert self._process is None, "it runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until `/health/ready` says so; raises with the end of the log when it does not."""
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                raise RuntimeError(f"bcdb start ended with {self._process.returncode}:\n{self.tail()}")
            try:
                if self.request("GET", "/health/ready", timeout_s=5)[0] == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.05)
        raise RuntimeError(f"not ready within {START_S_MAX} s:\n{self.tail()}")

    def request(
        self, method: str, path: str, body: bytes | None = None, *, timeout_s: float = 30
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The JSON of a 200."""
        status, body = self.request("GET", path)
        assert status == 200, (path, status, body)
        return json.loads(body)

    def post(self, transaction: bytes, mode: str = "commit") -> tuple[int, Any]:
        status, body = self.request("POST", f"/api/v1/transactions?mode={mode}", transaction)
        return status, json.loads(body)

    def stop(self) -> int:
        """SIGTERM, as an operator stops it. Returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"still running {STOP_S_MAX} s after SIGTERM:\n{self.tail()}") from None
        finally:
            self.kill()
        return code

    def wait_end(self) -> int:
        """Wait until the command ends by itself. Returns its exit code."""
        assert self._process is not None
        return self._process.wait(STOP_S_MAX)

    def kill(self) -> None:
        """`kill -9` of the whole process group at once; harmless when nothing runs."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        left = self.wait_gone(STOP_S_MAX)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process = None
        assert not left, f"processes outside the group lived on: {left}"

    def processes(self) -> dict[str, int]:
        """Process ids by name, as the supervisor has them once the node is ready."""
        file = self.home / "run" / "processes.json"
        deadline = time.monotonic() + START_S_MAX
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        found: dict[str, int] = json.loads(file.read_bytes())
        return found

    def kill_command_only(self) -> list[int]:
        """`kill -9` of the command alone. Returns the processes it had started."""
        assert self._process is not None
        children = [pid for pid in members_of_session(self.pid) if pid != self.pid]
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait()
        return children

    def wait_gone(self, timeout_s: float) -> list[int]:
        """Wait until no process of this server is left. Returns those that are when the time is over."""
        deadline = time.monotonic() + timeout_s
        while (left := members_of_session(self.pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def fsck(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """`bcdb fsck` of a server that does not run."""
        return subprocess.run(
            [str(BCDB), "fsck", "--home", str(self.home), *flags],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=self._environment,
            check=False,
        )

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
