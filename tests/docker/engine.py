"""A container engine for tests: the one that answers, else Debian's, installed and started for their time.

An engine of our own has its data, socket and process id in a temporary folder that goes with it, and leaves
the firewall and the routes of the machine alone. Only what was started here is ever stopped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("docker.io", "docker-compose", "debootstrap")
INSTALL_S_MAX = 600
START_S_MAX = 60
STOP_S_MAX = 60
COMMAND_S_MAX = 300
SAID_CHARS_MAX = 6000


@dataclass(frozen=True)
class Engine:
    """How to reach an engine. `compose` is the command of Docker Compose.

    `own`: it was started here, so it has no images, and can't be expected to get any.
    """

    docker: tuple[str, ...]
    compose: tuple[str, ...]
    environment: Mapping[str, str]
    own: bool

    def run(self, *arguments: str, content: bytes | None = None, timeout_s: float = COMMAND_S_MAX) -> str:
        """`docker ARGUMENTS`; returns what it printed. Raises RuntimeError with all it said."""
        return run([*self.docker, *arguments], self.environment, content=content, timeout_s=timeout_s)


def run(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    content: bytes | None = None,
    timeout_s: float = COMMAND_S_MAX,
    cwd: Path | None = None,
) -> str:
    """Run a command to its end; returns its standard output. Raises RuntimeError with all it said."""
    try:
        done = subprocess.run(
            command,
            input=b"" if content is None else content,
            env=None if environment is None else dict(environment),
            cwd=cwd,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise RuntimeError(f"The program {command[0]} is needed and was not found.") from None
    said = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        noted = done.stderr.decode(errors="replace")
        everything = f"{said}{noted}"[-SAID_CHARS_MAX:]
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{everything}")
    return said


@contextlib.contextmanager
def engine_at_hand() -> Iterator[Engine]:
    """The engine that answers (DOCKER_HOST, or the usual socket), else one of our own until the end."""
    docker = shutil.which("docker")
    if docker is not None and _answers((docker,), os.environ):
        environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
        yield Engine((docker,), _compose((docker,), environment), environment, own=False)
        return
    _install()
    # Not below pytest's folders: the path of a Unix socket is short, and nothing of this may stay behind.
    folder = Path(tempfile.mkdtemp(prefix="bcdb-docker-"))
    try:
        with _started(folder) as engine:
            yield engine
    finally:
        shutil.rmtree(folder)


def _answers(docker: Sequence[str], environment: Mapping[str, str]) -> bool:
    command = [*docker, "info", "--format", "{{.ServerVersion}}"]
    done = subprocess.run(command, env=dict(environment), capture_output=True, check=False, timeout=60)
    # The command may end with 0 when only the client is there.
    return done.returncode == 0 and bool(done.stdout.strip())


def _compose(docker: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Compose as a plugin of the client, or as a program of its own, as Debian 12 has it."""
    for command in ((*docker, "compose"), ("docker-compose",)):
        with contextlib.suppress(RuntimeError):
            run([*command, "version"], environment)
            return command
    raise RuntimeError("Docker Compose is needed: neither `docker compose` nor `docker-compose` is there.")


def _install() -> None:
    """Install what is missing of `PACKAGES`. Raises RuntimeError that says what can't be had."""
    needed = ("/usr/sbin/dockerd", "/usr/bin/docker", "/usr/bin/docker-compose", "/usr/sbin/debootstrap")
    if all(Path(program).exists() for program in needed):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError(
            "No container engine answers, and it can be installed by root on Debian 12 only: "
            f"start one, or install {', '.join(PACKAGES)} and run these tests as root."
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "--quiet"], environment, timeout_s=INSTALL_S_MAX)
    command = ["apt-get", "install", "--quiet", "--yes", "--no-install-recommends", *PACKAGES]
    run(command, environment, timeout_s=INSTALL_S_MAX)


@contextlib.contextmanager
def _started(folder: Path) -> Iterator[Engine]:
    """dockerd in `folder` until the end."""
    address = f"unix://{folder}/docker.sock"
    log = folder / "dockerd.log"
    command = [
        *("/usr/sbin/dockerd", "--host", address, "--pidfile", f"{folder}/docker.pid"),
        *("--data-root", f"{folder}/data", "--exec-root", f"{folder}/run"),
        # Published ports lead through a process of the engine's: nothing of the machine is changed.
        *("--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"),
        *("--exec-opt", "native.cgroupdriver=cgroupfs"),
    ]
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
        environment = {
            **inherited,
            # Debian's client first: another one on the PATH may be too new for Debian's engine.
            "PATH": f"/usr/bin:{os.environ['PATH']}",
            "DOCKER_HOST": address,
            "DOCKER_CONFIG": str(folder),
            "DOCKER_BUILDKIT": "1",
        }
        docker = ("/usr/bin/docker",)
        deadline = time.monotonic() + START_S_MAX
        while not _answers(docker, environment):
            if process.poll() is not None or time.monotonic() > deadline:
                end = log.read_text(errors="replace")[-SAID_CHARS_MAX:]
                raise RuntimeError(f"dockerd does not answer on this machine:\n{end}")
            time.sleep(0.2)
        yield Engine(docker, _compose(docker, environment), environment, own=True)
    finally:
        # On SIGTERM it stops the containers that are left and its own containerd.
        process.terminate()
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
