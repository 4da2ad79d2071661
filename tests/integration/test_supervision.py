"""What becomes of the processes of a node when one of them is gone."""

from __future__ import annotations

from pathlib import Path

from tests.support import transactions as make
from tests.support.server import Server

GONE_S_MAX = 15.0


def test_nothing_outlives_the_command(tmp_path: Path) -> None:
    with Server(tmp_path / "node", flags=["--mongo"]) as server:
        children = server.kill_command_only()
        assert len(children) >= 5, "a node process, a mongod, a projector and two workers"
        assert server.wait_gone(GONE_S_MAX) == []


def test_sigterm_stops_everything_cleanly(tmp_path: Path) -> None:
    with Server(tmp_path / "node") as server:
        first = make.create(asset={"kept": "over a clean stop"})
        assert server.post(first.raw)[0] == 202
        assert server.stop() == 0, server.tail()
        assert server.fsck().returncode == 0
        server.start()
        assert server.get(f"/api/v1/transactions/{first.tx['id']}") == first.tx
