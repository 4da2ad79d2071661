"""What can be told of docker/ without an engine: its files agree with each other and with the settings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bcdb.model import limits
from bcdb.node.settings import ENVIRONMENT_PREFIX, NAMES
from tests.support.server import Server

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
COMPOSE = (DOCKER / "compose.yml").read_text()
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
README = (DOCKER / "README.md").read_text()
OF_A_NETWORK = {"engine", "p2p_listen", "p2p_external", "cometbft"}
"""The image is of a node that orders alone: it has no CometBFT."""
OF_THE_CONTAINER = {"home", "host", "port", "stream_port", "mongo", *OF_A_NETWORK}
"""Settings that the image or the compose file decides."""


def service(name: str) -> str:
    """The part of compose.yml about one service."""
    found = re.search(rf"^  {name}:\n((?:    .*\n|\n)+)", COMPOSE, re.MULTILINE)
    assert found is not None
    return found[1]


def test_every_setting_goes_through() -> None:
    passed = set(re.findall(rf"^      {ENVIRONMENT_PREFIX}(\w+):", service("node"), re.MULTILINE))
    assert passed == {name.upper() for name in NAMES if name not in OF_THE_CONTAINER}


def test_only_the_node_is_published_and_only_on_this_machine() -> None:
    ports = re.findall(r"^      - (\S+:\d+:\d+|\S+\}:\d+)$", service("node"), re.MULTILINE)
    assert len(ports) == 2
    assert all(port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:") for port in ports)
    assert "ports:" not in service("mongo")
    assert "ports:" not in service("replica-set")


def test_a_stop_has_the_time_it_needs() -> None:
    found = re.search(r"stop_grace_period: (\d+)s", service("node"))
    assert found is not None
    assert int(found[1]) >= limits.STOP_S_MAX + 10
    told = re.search(r"--stop-timeout (\d+)", README)
    assert told is not None
    assert int(told[1]) == int(found[1])


def test_what_the_image_copies_is_sent_to_the_engine() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        copied.update(line.split()[:-1])
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)


def test_every_variable_and_file_is_told() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE))
    assert not {name for name in used if f"`{name}`" not in README}
    files = {path.name for path in DOCKER.iterdir() if not path.name.startswith((".", "__", "README"))}
    assert not {name for name in files if f"[{name}]({name})" not in README}


def test_defaults_are_told_as_they_are() -> None:
    for name, default in re.findall(r"\$\{(\w+):-([^}]+)\}", COMPOSE):
        row = next(line for line in README.splitlines() if line.startswith("| `") and f"`{name}`" in line)
        assert name == "BCDB_MONGO_URI" or default in row, row
    found = re.search(r"ARG BASE_IMAGE=(\S+)", DOCKERFILE)
    assert found is not None
    assert f"${{BASE_IMAGE:-{found[1]}}}" in COMPOSE


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Server:
    return Server(tmp_path_factory.mktemp("health") / "node", workers=1)


def health(node: Server) -> tuple[int, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
    settings = {"BCDB_HOME": str(node.home), "BCDB_PORT": str(node.port), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-P", str(DOCKER / "health.py")],
        env={**inherited, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def test_the_health_check_tells_a_ready_node_from_none(node: Server) -> None:
    with node:
        code, said = health(node)
        assert code == 0
        assert '"status":"ready"' in said
    code, said = health(node)
    assert code == 1
    assert said.startswith("The node can't be asked for its health: ")
