"""`bcdb testnet`: what lies in its folder, how its nodes are told, and a run of real ones from end to end."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import pty
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from bcdb.cli.testnet import figures, logfile
from bcdb.cli.testnet.figures import Figures, Picture, Watcher, state_of
from bcdb.cli.testnet.layout import (
    FILE,
    Layout,
    bring_up_to_date,
    make_testnet,
    plan,
    read_layout,
)
from bcdb.cli.testnet.running import Process, running_pid
from bcdb.cli.testnet.table import line, render
from bcdb.model.errors import SettingsError
from bcdb.node.members import read_members
from bcdb.node.settings import Settings, read_settings
from consensus.cometbft.genesis import read_genesis
from tests.cli.running import fail, json_of, run, succeed
from tests.support.cometbft import program
from tests.support.server import BCDB, START_S_MAX, STOP_S_MAX, Server, free_ports, members_of_session
from tests.support.transactions import create

HASHES = ("aa" * 32, "bb" * 32)


def free_port(nodes: int) -> str:
    """The first of the ports of so many nodes."""
    return str(free_ports(10 * nodes)[0])


def bcdb(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as it is in a terminal."""
    named = {name: value for name, value in os.environ.items() if not name.startswith("BCDB_")}
    return subprocess.run(
        [BCDB, *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**named, "BCDB_COMETBFT": str(program())},
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a test may run a testnet; what it leaves running is killed."""
    path = tmp_path / "net"
    yield path
    if (pid := running_pid(path)) is not None:
        for one in members_of_session(os.getsid(pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)


# --- the folder ---------------------------------------------------------------------------------------------


def test_a_folder_has_all_that_the_nodes_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCDB_PORT", "1")
    monkeypatch.setenv("BCDB_MONGO", "true")
    net = tmp_path / "net"
    said = succeed(
        "testnet", "init", "--home", net, "--validators", "3", "--observers", "1", "--port", "20000"
    )
    layout = read_layout(net)
    assert said.splitlines() == [
        f"Made {net}: chain {layout.chain_id}, 3 validators, 1 observers",
        *(f"  node{at}   http://127.0.0.1:{20000 + 10 * at}" for at in range(4)),
        f"Start it: bcdb testnet up --home {net}",
    ]
    assert stat.S_IMODE(net.stat().st_mode) == 0o700
    genesis = read_genesis((net / "network" / "genesis.json").read_bytes())
    assert (genesis.chain_id, len(genesis.validators)) == (layout.chain_id, 3)
    members = read_members(net / "network" / "members.toml").all
    assert [member.name for member in members] == ["node0", "node1", "node2", "node3"]
    for at, node in enumerate(layout.nodes):
        settings = read_settings(layout.home(node), environ={})
        assert (settings.port, settings.stream_port) == (20000 + 10 * at, 20001 + 10 * at)
        assert settings.p2p_listen == members[at].address == f"127.0.0.1:{20002 + 10 * at}"
        assert (settings.engine, settings.workers, settings.loopback) == ("cometbft", 1, True)
        assert settings.store_kind == "sqlite"
        assert settings.chain_id == layout.chain_id
        assert settings.genesis_path.read_bytes() == (net / "network" / "genesis.json").read_bytes()
        assert node.validator == (at < 3)


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    net = tmp_path / "net"
    succeed("testnet", "init", "--home", net, "--validators", "1", "--chain-id", "first")
    text = fail("testnet", "init", "--home", net, "--validators", "1")
    assert text == f"Error: There is {net / FILE} already, and it is not overwritten: choose another --home."
    assert read_layout(net).chain_id == "first"
    (tmp_path / "other" / "node1").mkdir(parents=True)
    assert "node1 already" in fail("testnet", "init", "--home", tmp_path / "other", "--validators", "2")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["node1"]


def test_what_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    net = tmp_path / "net"
    assert "ledger" in fail("testnet", "init", "--home", net, "--from", tmp_path / "nowhere")
    assert list(net.iterdir()) == []
    assert "no testnet in" in fail("testnet", "up", "--home", net)
    (net / FILE).write_text("{}")
    assert "is not as `bcdb testnet init` makes it" in fail("testnet", "status", "--home", net)


@pytest.mark.parametrize(
    ("validators", "observers", "port"),
    [(0, 1, 9984), (16, 1, 9984), (1, -1, 9984), (4, 0, 65504), (1, 0, 0)],
)
def test_bounds_of_a_plan(validators: int, observers: int, port: int) -> None:
    with pytest.raises(SettingsError):
        plan(validators, observers, port=port)


def test_nodes_are_chosen_by_number(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "c", plan(3))
    assert layout.chosen([]) == layout.nodes
    assert [node.name for node in layout.chosen([2, 0])] == ["node0", "node2"]
    with pytest.raises(SettingsError, match="are numbered 0 to 2; 3 is none"):
        layout.chosen([3])


def test_with_one_mongodb_each_has_a_database_wherever_the_folder_is(tmp_path: Path) -> None:
    layout = make_testnet(tmp_path / "net", plan(2), mongo=True)
    (tmp_path / "net").rename(tmp_path / "moved")
    moved = read_layout(tmp_path / "moved")
    bring_up_to_date(moved)
    for node in moved.nodes:
        settings = read_settings(moved.home(node), environ={})
        assert (settings.mongo, settings.mongo_database) == (False, node.name)
        assert settings.mongo_uri == moved.settings.mongo_connection != layout.settings.mongo_connection


# --- the nodes ----------------------------------------------------------------------------------------------


def test_four_nodes_from_end_to_end(folder: Path) -> None:
    succeed("testnet", "init", "--home", folder, "--port", free_port(4))
    layout = read_layout(folder)
    assert "is not running" in run("testnet", "down", "--home", folder).stderr
    done = run("testnet", "status", "--home", folder)
    assert (done.exit_code, done.stdout) == (1, "")

    started = bcdb("testnet", "up", "--home", folder, "--detach")
    assert started.returncode == 0, started.stderr
    assert f"The testnet is ready: chain {layout.chain_id}, 4 nodes" in started.stderr
    pid = running_pid(folder)
    assert pid is not None
    assert f"process {pid}" in started.stderr
    assert f"runs already (process {pid})" in fail("testnet", "up", "--home", folder, "--detach")
    assert f"bcdb (process {pid}) is using" in bcdb("testnet", "up", "--home", folder).stderr

    made = create(asset={"testnet": 1})
    with httpx.Client(timeout=30) as client:
        first, last = layout.nodes[0].url, layout.nodes[3].url
        posted = client.post(f"{first}/api/v1/transactions?mode=commit", content=made.raw)
        assert posted.status_code == 202, posted.text
        assert until(lambda: client.get(f"{last}/api/v1/transactions/{made.tx['id']}").json() == made.tx)

    until(lambda: all(node["peers"] == 3 for node in json_of("testnet", "status", "--home", folder)["nodes"]))
    told = json_of("testnet", "status", "--home", folder)
    assert [node["state"] for node in told["nodes"]] == ["up"] * 4
    assert len({node["app_hash"] for node in told["nodes"]}) == 1
    assert told["height"] >= 1
    shown = succeed("testnet", "status", "--home", folder)
    assert f"app hash {told['nodes'][0]['app_hash'][:8]} at height" in shown

    victim = told["nodes"][2]["pid"]
    os.kill(victim, signal.SIGKILL)
    again = until(lambda: node_of(folder, 2, "up", not_pid=victim))
    assert again["failures"] == 1

    session = os.getsid(pid)
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: not members_of_session(session))
    assert running_pid(folder) is None

    assert bcdb("testnet", "up", "--home", folder, "--detach").returncode == 0
    pid = running_pid(folder)
    assert pid is not None
    session = os.getsid(pid)
    assert json_of("testnet", "status", "--home", folder)["height"] >= told["height"]
    assert f"(process {pid}) is stopped." in succeed("testnet", "down", "--home", folder)
    assert until(lambda: not members_of_session(session)), "it let go of the lock, and has ended"
    assert not (folder / "run").exists()


def node_of(folder: Path, number: int, state: str, *, not_pid: int) -> dict[str, Any] | None:
    done = run("testnet", "status", "--home", folder, "--json")
    found: dict[str, Any] = json.loads(done.stdout)["nodes"][number]
    return found if found["state"] == state and found["pid"] != not_pid else None


def until(look: Any, s_max: float = START_S_MAX) -> Any:
    deadline = time.monotonic() + s_max
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_one_node_with_mongodb_that_cannot_start_and_then_can(folder: Path) -> None:
    port = free_port(1)
    succeed("testnet", "init", "--home", folder, "--validators", "1", "--port", port, "--mongo")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(port)))
        taken.listen()
        failed = bcdb("testnet", "up", "--home", folder, "--detach")
    assert failed.returncode == 1
    assert "The testnet did not become ready and is stopped. node0: " in failed.stderr
    assert f"Port {port} on 127.0.0.1 is in use" in failed.stderr
    assert running_pid(folder) is None

    assert bcdb("testnet", "up", "--home", folder, "--detach").returncode == 0
    store = until(lambda: json.loads(bcdb("query", "status", "--home", folder / "node0", "--json").stdout))
    assert store["kind"] == "mongodb"
    succeed("testnet", "down", "--home", folder)


def test_on_a_terminal_it_goes_on_from_a_solo_ledger_until_ctrl_c(tmp_path: Path, folder: Path) -> None:
    made = create(asset={"solo": 1})
    with Server(tmp_path / "solo", workers=1) as solo:
        assert solo.post(made.raw)[0] == 202
        solo.stop()
    port = free_port(1)
    options = ["--validators", "1", "--port", port, "--from", tmp_path / "solo"]
    succeed("testnet", "init", "--home", folder, *map(str, options))
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm", COLUMNS="120", LINES="30", BCDB_COMETBFT=str(program()))
        os.execv(BCDB, [str(BCDB), "testnet", "up", "--home", str(folder)])
    shown = b""
    deadline = time.monotonic() + START_S_MAX
    while b"app hash " not in shown.replace(b"app hash  ", b""):
        shown += os.read(terminal, 65536)
        assert time.monotonic() < deadline, shown
    url = read_layout(folder).nodes[0].url
    assert httpx.get(f"{url}/api/v1/transactions/{made.tx['id']}", timeout=30).json() == made.tx
    os.write(terminal, b"\x03")
    began = time.monotonic()
    with contextlib.suppress(OSError):
        while data := os.read(terminal, 65536):
            shown += data
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(terminal)
    assert time.monotonic() - began < STOP_S_MAX
    assert b"Stopped." in shown
    assert not members_of_session(child)


# --- figures and the table ----------------------------------------------------------------------------------


def ready(chain_id: str, height: int, app_hash: str) -> dict[str, Any]:
    return {
        "chain_id": chain_id,
        "height": height,
        "pending": 5,
        "projected_height": height - 1,
        "app_hash": app_hash,
        "peers": 3,
        "catching_up": False,
        "validator": True,
    }


async def looked_at(layout: Layout, nodes: dict[int, Any], blocks: dict[int, dict[int, str]]) -> Picture:
    """What is seen of nodes, by number, that answer this when asked whether they are ready."""

    async def answer(request: httpx.Request) -> httpx.Response:
        number = (request.url.port or 0) // 10 - 2000
        found = nodes.get(number)
        if isinstance(found, dict) and request.url.path == "/health/ready":
            return httpx.Response(200, json=found)
        if isinstance(found, dict) and request.url.path == "/metrics":
            return httpx.Response(200, text="bcdb_height 1.0\nbcdb_transactions_committed_total 7.0\n")
        if isinstance(found, dict):
            height = int(request.url.path.rpartition("/")[2])
            return httpx.Response(200, json={"height": height, "app_hash": blocks[number][height]})
        if isinstance(found, str):
            return httpx.Response(503, json={"message": found, "status": 503})
        if found is None:
            raise httpx.ConnectError("refused")
        await asyncio.sleep(60)
        raise AssertionError("nobody waits so long")

    processes = {node.name: Process(100, time.time()) for node in layout.nodes[:3]}
    async with Watcher(layout, httpx.MockTransport(answer)) as watcher:
        return await watcher.look(processes)


async def test_app_hashes_are_compared_at_the_newest_common_height(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "c", plan(4, port=20000))
    same, other = HASHES
    nodes = {0: ready("c", 9, "99" * 32), 1: ready("c", 8, same), 2: ready("c", 8, other), 3: None}
    nodes[3] = ready("c", 8, same)
    picture = await looked_at(layout, nodes, {0: {8: same}})
    assert picture.height == 8
    assert [node.app_hash for node in picture.nodes] == [same, same, other, same]
    assert [node.differs for node in picture.nodes] == [False, False, True, False]
    assert [node.lag for node in picture.nodes] == [1] * 4
    assert "APP HASHES DIFFER at height 8" in line(picture)
    del nodes[0], nodes[3]
    halves = await looked_at(layout, nodes, {})
    assert [node.differs for node in halves.nodes] == [False, True, True, False], "nobody knows who is right"


async def test_nodes_that_hang_or_are_others_hold_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "LOOK_S_MAX", 0.2)
    layout = Layout(tmp_path, "c", plan(5, port=20000))
    nodes = {0: ready("c", 8, HASHES[0]), 1: ..., 2: "The engine does not order: why", 3: ready("d", 1, "ab")}
    began = time.monotonic()
    picture = await looked_at(layout, nodes, {})
    assert time.monotonic() - began < 5
    assert [node.state for node in picture.nodes] == ["up", "starting", "starting", "down", "down"]
    assert picture.nodes[2].reason == "The engine does not order: why"
    assert line(picture) == (
        "1 of 5 up, at 8, app hash aaaaaaaa at height 8, 0.0 tx/s, 5 pending, node1 is starting, "
        "node2 is starting, node3 is down, node4 is down"
    )


async def test_the_rate_is_that_of_the_last_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path, "c", plan(1, port=20000))
    clock_s, committed = 0.0, 0

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/metrics":
            return httpx.Response(200, text=f"bcdb_transactions_committed_total {committed}.0\n")
        return httpx.Response(200, json=ready("c", 1, HASHES[0]))

    monkeypatch.setattr("bcdb.cli.testnet.figures.time.monotonic", lambda: clock_s)
    rates = []
    async with Watcher(layout, httpx.MockTransport(answer)) as watcher:
        for count in (0, 100, 300, 300, 300, 300, 5, 15):
            committed = count
            rates.append((await watcher.look({})).nodes[0].transactions_per_s)
            clock_s += 5
    assert rates == [None, 20.0, 30.0, 20.0, 0.0, 0.0, None, 2.0]


@pytest.mark.parametrize(
    ("is_ready", "process", "state"),
    [
        (True, None, "up"),
        (False, None, "down"),
        (False, Process(None, 0.0, 1), "down"),
        (False, Process(1, 990.0, 1), "starting"),
        (False, Process(1, 900.0), "trouble"),
        (False, Process(1, 999.0, 3), "trouble"),
        (False, Process(None, 999.0, 3), "trouble"),
    ],
)
def test_states(is_ready: bool, process: Process | None, state: str) -> None:
    assert state_of(is_ready, process, 1000.0) == state


def test_the_table_marks_what_differs() -> None:
    common: dict[str, Any] = {"url": "http://127.0.0.1:1", "validator": True}
    up = {**common, "state": "up", "height": 12_345, "peers": 1, "pending": 0, "catching_up": True}
    picture = Picture(
        "c",
        12_345,
        [
            Figures(
                name="node0", app_hash=HASHES[0], transactions_per_s=1234.5, projected_height=12_345, **up
            ),
            Figures(name="node1", app_hash=HASHES[1], differs=True, projected_height=12_000, **up),
            Figures(name="node2", state="trouble", reason="it [hangs]", **common),
        ],
    )
    console = Console(width=120, record=True, force_terminal=True, file=io.StringIO())
    console.print(render(picture))
    styled = console.export_text(styles=True, clear=False)
    plain = console.export_text().splitlines()
    assert [text.split() for text in plain[1:4]] == [
        ["node0", "up", "12,345", "aaaaaaaa", "1", "0", "1,234.5", "in", "step", "yes"],
        ["node1", "up", "12,345", "bbbbbbbb", "1", "0", "-", "345", "behind", "yes"],
        ["node2", "trouble", *"-------"],
    ]
    assert plain[4:] == ["chain c: APP HASHES DIFFER at height 12345", "node2: it [hangs]"]
    assert "\x1b[1;31mbbbbbbbb" in styled
    assert "\x1b[1;31maaaaaaaa" not in styled


def test_a_log_is_bounded_and_tells_its_last_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "BYTES_MAX", 100)
    log = tmp_path / "node0.log"
    assert logfile.last_words(log) == ""
    with log.open("ab", buffering=0) as file:
        file.write(b"x" * 101)
        logfile.bound(log)
        assert (log.stat().st_size, (tmp_path / "node0.log.1").stat().st_size) == (0, 101)
        file.write(b"Error: no port.\nmore\n\n")
        logfile.bound(log)
    assert log.read_bytes() == b"Error: no port.\nmore\n\n"
    assert logfile.last_words(log) == "Error: no port."
    log.write_text("first\nlast\n\n")
    assert logfile.last_words(log) == "last"


def test_a_lock_without_a_holder_is_no_testnet(tmp_path: Path) -> None:
    assert running_pid(tmp_path) is None
    Settings(home=tmp_path).lock_path.write_text(str(os.getpid()))
    assert running_pid(tmp_path) is None
