"""The image of docker/Dockerfile by itself: who runs in it, how it stops, what it keeps, how big it is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from bcdb.model import limits
from tests.docker.composed import processes, stop, wait_healthy
from tests.docker.engine import Engine

USER = 10001
ADDED_BYTES_MAX = 150_000_000
"""What the image may have beyond its base."""
STOP_S_MAX = 30


@pytest.fixture(scope="module")
def volume(engine: Engine) -> Iterator[str]:
    name = f"bcdb-check-{os.getpid()}"
    engine.run("volume", "create", name)
    yield name
    engine.run("volume", "rm", name)


@pytest.fixture(params=["with an init", "as process 1"])
def container(engine: Engine, node_image: str, volume: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A node with nothing but its volume: no network, no privilege, nothing else that can be written."""
    identity = engine.run(
        *("run", "--detach", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
        *(["--init"] if request.param == "with an init" else []),
        *("--volume", f"{volume}:/var/lib/bcdb", node_image),
    ).strip()
    yield identity
    engine.run("rm", "--force", identity)


def test_a_node_keeps_what_it_took_and_stops_cleanly(engine: Engine, container: str, volume: str) -> None:
    """Run twice on one volume, so the second time finds what the first has left."""
    wait_healthy(engine, container)
    running = processes(engine, container)
    assert {user for user, _ in running} == {USER}
    assert any("bcdb.http.worker" in command for _, command in running)

    kept = engine.run("exec", container, "sh", "-c", "cat kept 2> /dev/null || true").split()
    for identity in kept:
        assert "committed" in engine.run("exec", container, "bcdb", "tx", "get", identity, "--status")
    engine.run("exec", container, "bcdb", "keys", "new", "--out", "/tmp/key.json")
    asset = json.dumps({"run": len(kept)})
    engine.run(
        *("exec", container, "sh", "-c"),
        f"bcdb tx create --key /tmp/key.json --asset '{asset}' >> kept",
    )

    took_s, code = stop(engine, container, STOP_S_MAX)
    log = engine.run("logs", "--tail", "40", container)
    assert code == 0, log
    assert took_s < limits.STOP_S_MAX + 2, "the time of the engine's own is in it"
    image = engine.run("inspect", "--format", "{{.Config.Image}}", container).strip()
    mounted = ("--network", "none", "--volume", f"{volume}:/var/lib/bcdb")
    assert "clean" in engine.run("run", "--rm", *mounted, image, "fsck")


def test_an_end_in_the_first_moments_is_clean_too(engine: Engine, node_image: str) -> None:
    """A `docker stop` right after the start must not wait until the engine kills."""
    identity = engine.run("run", "--detach", "--init", "--network", "none", node_image).strip()
    try:
        took_s, _ = stop(engine, identity, STOP_S_MAX)
        assert took_s < limits.STOP_S_MAX + 2
    finally:
        engine.run("rm", "--force", "--volumes", identity)


def test_a_node_that_is_not_there_is_unhealthy(engine: Engine, node_image: str) -> None:
    with pytest.raises(RuntimeError, match="can't be asked"):
        engine.run(
            *("run", "--rm", "--network", "none", "--entrypoint", "python", node_image),
            *("-P", "/opt/bcdb/share/bcdb/health.py"),
        )


def test_the_image_is_small_and_holds_no_secret(engine: Engine, base_image: str, node_image: str) -> None:
    form = ("image", "inspect", "--format", "{{.Size}}")
    sizes = [int(engine.run(*form, name)) for name in (node_image, base_image)]
    added = sizes[0] - sizes[1]
    print(f"image {sizes[0] / 1e6:.0f} MB, base {sizes[1] / 1e6:.0f} MB")
    assert added < ADDED_BYTES_MAX
    found = engine.run(
        *("run", "--rm", "--network", "none", "--entrypoint", "sh", node_image, "-c"),
        "ls -d /source /etc/pip.conf /run/secrets/* /opt/bcdb/bin/pip* 2> /dev/null || true",
    )
    assert not found.strip()


def test_nothing_but_what_is_needed_goes_to_the_engine(engine: Engine, node_image: str) -> None:
    packages = engine.run(
        *("run", "--rm", "--network", "none", "--entrypoint", "sh", node_image, "-c"),
        "cd /opt/bcdb/lib/python3*/site-packages"
        " && ls -d bcdb consensus query tests docs benchmarks 2> /dev/null || true",
    )
    assert packages.split() == ["bcdb", "consensus", "query"]
