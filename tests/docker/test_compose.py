"""The node of docker/compose.yml with MongoDB, as users have it: the driver, stops, crashes, the README."""

from __future__ import annotations

import contextlib
import http.client
import json
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from bcdb.model import limits
from tests.docker.composed import HEALTHY_S_MAX, ROOT, Composed, processes, stop
from tests.docs.examples import examples_of
from tests.docs.runner import Runner
from tests.support import nodejs

SCENARIO = ROOT / "tests" / "npm" / "driver_scenario.js"
SCENARIO_S_MAX = 180
USER = 10001
STOP_S_MAX = 30
FOUND_S_MAX = 60


def ask(composed: Composed, path: str, body: Any = None) -> tuple[int, Any, http.client.HTTPMessage]:
    """Ask the published port; the status, the JSON of the answer and its headers."""
    connection = http.client.HTTPConnection("127.0.0.1", composed.port, timeout=30)
    try:
        content = None if body is None else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", f"/api/v1/{path}", content)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers
    finally:
        connection.close()


def create(composed: Composed, asset: dict[str, Any]) -> str:
    """Commit a CREATE from within the container; returns its id."""
    key = f"/tmp/{time.monotonic_ns()}.json"
    composed.inside("bcdb", "keys", "new", "--out", key)
    said = composed.inside("bcdb", "tx", "create", "--key", key, "--asset", json.dumps(asset))
    return said.split()[0]


def wait_found(composed: Composed, word: str, identity: str) -> None:
    """Wait until a search for `word` finds the asset."""
    deadline = time.monotonic() + FOUND_S_MAX
    while True:
        status, found, _ = ask(composed, f"assets?search={word}")
        if status == 200 and [asset["id"] for asset in found] == [identity]:
            return
        assert time.monotonic() < deadline, f"{status} {found}\n{composed.logs()}"
        time.sleep(0.5)


def test_the_unmodified_driver_works(composed: Composed) -> None:
    streams = [
        f"ws://127.0.0.1:{port}/api/v1/streams/valid_transactions"
        for port in (composed.port, composed.stream_port)
    ]
    done = subprocess.run(
        [str(nodejs.node_path()), str(SCENARIO), f"{composed.url}/api/v1/", *streams],
        env=nodejs.environment(),
        capture_output=True,
        text=True,
        timeout=SCENARIO_S_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{composed.logs()}"
    assert "all steps as they should be" in done.stdout


def test_mongodb_answers(composed: Composed) -> None:
    identity = create(composed, {"kind": "tricycle", "wheels": [{"inches": 16}]})
    wait_found(composed, "tricycle", identity)
    _, store, _ = ask(composed, "query")
    assert store["kind"] == "mongodb"
    status, found, _ = ask(
        composed, "query/assets", {"filter": {"data.wheels": {"$elemMatch": {"inches": {"$gt": 12}}}}}
    )
    assert status == 200, found
    assert [document["id"] for document in found["documents"]] == [identity]


def test_settings_of_the_shell_go_through(composed: Composed) -> None:
    assert '"chain_id":"composed"' in composed.inside("python", "-P", "/opt/bcdb/share/bcdb/health.py")


def test_nobody_has_more_than_needed(composed: Composed) -> None:
    node, mongo, step = (composed.inspect(name) for name in ("node", "mongo", "replica-set"))
    assert {user for user, _ in processes(composed.engine, composed.container("node"))} == {USER}
    assert node["HostConfig"]["ReadonlyRootfs"]
    assert "CapEff:\t0000000000000000" in composed.inside("cat", "/proc/1/status")
    published = [at for ports in node["NetworkSettings"]["Ports"].values() for at in ports or []]
    assert {at["HostIp"] for at in published} == {"127.0.0.1"}
    assert {at["HostPort"] for at in published} == {str(composed.port), str(composed.stream_port)}
    for about in (mongo, step):
        assert not about["HostConfig"]["PortBindings"]
        (network,) = about["NetworkSettings"]["Networks"]
        assert (
            composed.engine.run("network", "inspect", "--format", "{{.Internal}}", network).strip() == "true"
        )
    assert all(about["HostConfig"]["Memory"] for about in (node, mongo, step))


def test_mongodb_may_be_away(composed: Composed) -> None:
    composed.compose("stop", "mongo")
    identity = create(composed, {"kind": "velocipede"})
    status, _, headers = ask(composed, "assets?search=velocipede")
    assert status == 503
    assert int(headers["Retry-After"]) > 0
    assert ask(composed, f"transactions/{identity}")[0] == 200
    composed.compose("start", "mongo")
    wait_found(composed, "velocipede", identity)
    composed.wait_healthy()


def test_the_step_may_run_again(composed: Composed) -> None:
    composed.compose("up", "--detach", "--no-build")
    composed.compose("run", "--rm", "replica-set")
    state = composed.inspect("replica-set")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 0)
    composed.wait_healthy()


def test_a_node_made_anew_has_its_data(composed: Composed) -> None:
    identity = create(composed, {"kind": "penny-farthing"})
    before = composed.container("node")
    took_s, code = stop(composed.engine, before, STOP_S_MAX)
    assert code == 0, composed.logs()
    assert took_s < limits.STOP_S_MAX + 2
    composed.compose("down")
    composed.up()
    assert composed.container("node") != before
    status, fate, _ = ask(composed, f"transactions/{identity}/status")
    assert (status, fate["status"]) == (200, "committed")
    wait_found(composed, "farthing", identity)


def test_a_crash_is_followed_by_a_start(composed: Composed) -> None:
    """All processes are killed from within: after a `docker kill` the engine would not start it again."""
    identity = create(composed, {"kind": "unicycle"})
    # Whoever kills may be gone, with the container, before the engine has its exit code.
    with contextlib.suppress(RuntimeError):
        composed.inside("python", "-c", "import os, signal; os.kill(-1, signal.SIGKILL)")
    deadline = time.monotonic() + HEALTHY_S_MAX
    while int(composed.inspect("node")["RestartCount"]) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    composed.wait_healthy()
    assert ask(composed, f"transactions/{identity}")[0] == 200


def test_the_examples_of_the_readme_work(
    composed: Composed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder of their own, where `docker compose` is the Compose that this machine has."""
    programs = tmp_path / "programs"
    programs.mkdir()
    stand_in = programs / "docker"
    compose, docker = (shlex.join(command) for command in (composed.engine.compose, composed.engine.docker))
    stand_in.write_text(
        f'#!/bin/sh\nif [ "$1" = compose ]; then shift; exec {compose} "$@"; fi\nexec {docker} "$@"\n'
    )
    stand_in.chmod(0o755)
    for name, value in composed.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{programs}:{composed.environment['PATH']}")
    folder = tmp_path / "folder"
    folder.mkdir()
    runner = Runner(folder, {9984: composed.port, 9985: composed.stream_port}, composed.url)
    examples = examples_of((ROOT / "docker" / "README.md").read_text())
    assert len(examples) >= 4
    for example in examples:
        wrong = runner.run(example)
        assert not wrong, f"docker/README.md:{example.line}: {wrong}\n{composed.logs()}"
    # The last one has switched TLS on, which the health check must see too.
    composed.wait_healthy()
