"""The npm package `bigchaindb-driver`, unmodified, against a real node: its users' code keeps working."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.nodejs import ROOT, environment, node_path
from tests.support.server import Server

SCENARIO = ROOT / "tests" / "npm" / "driver_scenario.js"
SCENARIO_S_MAX = 120


def run(server: Server, *streams: str) -> str:
    done = subprocess.run(
        [str(node_path()), str(SCENARIO), f"{server.url}/api/v1/", *streams],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SCENARIO_S_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{server.tail()}"
    return done.stdout


def test_the_unmodified_driver_works(server: Server) -> None:
    said = run(server)
    assert "all steps as they should be" in said


def test_the_unmodified_driver_works_with_mongodb(tmp_path: Path) -> None:
    with Server(tmp_path / "node", flags=["--mongo"]) as server:
        assert server.get("/api/v1/query")["kind"] == "mongodb"
        said = run(server)
    assert "all steps as they should be" in said


def test_both_streams_tell_the_same(server: Server) -> None:
    path = "api/v1/streams/valid_transactions"
    main, own = (f"ws://{server.host}:{port}/{path}" for port in (server.port, server.stream_port))
    said = run(server, main, own)
    assert said.count("in the order of commitment") == 2
