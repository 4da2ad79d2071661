"""The node of docker/compose.yml on an engine: its project, ports and volumes are gone at the end."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.docker.engine import Engine, run
from tests.support.server import free_ports

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker" / "compose.yml"
UP_S_MAX = 240
HEALTHY_S_MAX = 120


class Composed:
    """`docker compose` on the file as it is; images, ports and project are given by its variables."""

    def __init__(self, engine: Engine, *, node_image: str, mongo_image: str) -> None:
        self.engine = engine
        self.port, self.stream_port = free_ports()
        inherited = {
            name: value for name, value in engine.environment.items() if not name.startswith("BCDB_")
        }
        self.environment = {
            **inherited,
            "COMPOSE_FILE": str(FILE),
            "COMPOSE_PROJECT_NAME": f"bcdb-check-{os.getpid()}",
            "NODE_IMAGE": node_image,
            "MONGO_IMAGE": mongo_image,
            "API_PORT": str(self.port),
            "STREAM_PORT": str(self.stream_port),
            "BCDB_CHAIN_ID": "composed",
        }

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def compose(self, *arguments: str, timeout_s: float = UP_S_MAX) -> str:
        """`docker compose ARGUMENTS`; returns what it printed. Raises RuntimeError with all it said."""
        return run([*self.engine.compose, *arguments], self.environment, timeout_s=timeout_s)

    def up(self) -> None:
        """Start what is not running and wait until the node is healthy."""
        try:
            self.compose("up", "--detach", "--no-build")
            self.wait_healthy()
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{self.logs()}") from None

    def down(self) -> None:
        """End and remove all of it, with the data."""
        self.compose("down", "--volumes", "--remove-orphans")

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--tail", "40", "node", "replica-set")

    def container(self, service: str) -> str:
        """The id of the container of a service, running or not."""
        name = self.environment["COMPOSE_PROJECT_NAME"]
        mine = (f"label=com.docker.compose.project={name}", f"label=com.docker.compose.service={service}")
        filters = [part for label in mine for part in ("--filter", label)]
        found = self.engine.run("ps", "--all", "--quiet", *filters).split()
        assert len(found) == 1, f"one container of {service} was expected: {found}"
        return found[0]

    def inspect(self, service: str) -> Any:
        """What the engine knows of the container of a service."""
        return json.loads(self.engine.run("inspect", self.container(service)))[0]

    def inside(self, *command: str, service: str = "node") -> str:
        """Run a command in a container that runs; returns what it printed."""
        return self.engine.run("exec", self.container(service), *command)

    def wait_healthy(self) -> None:
        wait_healthy(self.engine, self.container("node"))


def wait_healthy(engine: Engine, container: str) -> None:
    """Wait for the engine's own verdict. Raises RuntimeError with the end of the log if it does not come."""
    deadline = time.monotonic() + HEALTHY_S_MAX
    while time.monotonic() < deadline:
        state = json.loads(engine.run("inspect", "--format", "{{json .State}}", container))
        if state["Health"]["Status"] == "healthy":
            return
        if state["Status"] != "running" or state["Health"]["Status"] == "unhealthy":
            break
        time.sleep(0.5)
    log = engine.run("logs", "--tail", "60", container)
    raise RuntimeError(f"The container is not healthy: {json.dumps(state)}\n{log}")


def stop(engine: Engine, container: str, timeout_s: int) -> tuple[float, int]:
    """Stop a container with SIGTERM; the seconds it took and its exit code."""
    started = time.monotonic()
    engine.run("stop", "--time", str(timeout_s), container)
    took_s = time.monotonic() - started
    return took_s, int(engine.run("inspect", "--format", "{{.State.ExitCode}}", container))


def processes(engine: Engine, container: str) -> list[tuple[int, str]]:
    """User id and command line of each process in a container, as the machine sees them."""
    lines = engine.run("top", container, "-eo", "uid,pid,args").splitlines()[1:]
    found = [re.split(r"\s+", line.strip(), maxsplit=2) for line in lines]
    return [(int(user), command) for user, _, command in found]
