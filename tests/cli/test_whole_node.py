"""`bcdb start` for real: what it prints works, its commands work against it, and endings are clean."""

import os
import re
import shlex
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bcdb.client import AsyncClient, Client, KeyPair, prepare_create, sign
from bcdb.model import errors, limits
from bcdb.node.keyfile import write_key_file
from tests.cli.running import fail, json_of, run, succeed
from tests.support import curl
from tests.support.server import Server
from tests.support.transactions import alice, bob, create

POLL_S = 0.05
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("whole") / "node") as running:
        yield running


@pytest.fixture(scope="module")
def key(server: Server) -> Path:
    path = server.home.parent / "alice.json"
    write_key_file(path, alice)
    return path


def printed(server: Server, part: str) -> str:
    """The line of the node's log that holds `part`; it prints them a moment after it is ready."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = [line.strip() for line in server.log.read_text().split("\n")[:-1] if part in line]
        if found:
            (line,) = found
            return line
        assert time.monotonic() < deadline, f"the node did not print {part!r}: {server.log.read_text()}"
        time.sleep(POLL_S)


def test_the_lines_it_prints_work(server: Server, tmp_path: Path) -> None:
    path = f"{curl.install(tmp_path / '.bin')}{os.pathsep}{os.environ['PATH']}"
    printed(server, "tx create")  # the last of them: now all are there
    tried = []
    for start in ("curl ", "keys new", "tx create"):
        line = printed(server, start)
        if start == "curl ":
            line = line.replace("curl ", "curl --silent --fail ")
        done = subprocess.run(
            shlex.split(line),
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, (line, done.stderr)
        tried.append(done.stdout)
    assert '"assets"' in tried[0]
    transaction_id = tried[2].strip()
    assert re.fullmatch("[0-9a-f]{64}", transaction_id)
    assert server.get(f"/api/v1/transactions/{transaction_id}")["asset"] == {"data": {"bicycle": "red"}}


def test_the_commands_against_a_node(server: Server, key: Path, tmp_path: Path) -> None:
    node = ("--node", server.url)
    (tmp_path / "asset.json").write_text('{"flour": {"kilos": 0.5}}')
    made = json_of(
        *("tx", "create", "--key", key, "--asset", f"@{tmp_path / 'asset.json'}"),
        *("--metadata", '{"n": 1}', "--to", f"{alice.public_key}:10", *node),
    )
    assert made["asset"]["data"] == {"flour": {"kilos": 0.5}}
    assert json_of("tx", "get", made["id"], *node) == made
    found = json_of("tx", "get", made["id"], "--status", *node)
    assert (found["id"], found["status"]) == (made["id"], "committed")
    assert list(found) == ["id", "status", "height", "position", "time"]

    again = run("tx", "create", "--key", key, "--asset", f"@{tmp_path / 'asset.json'}",
                "--metadata", '{"n": 1}', "--to", f"{alice.public_key}:10", *node)  # fmt: skip
    assert again.exit_code == 0
    assert again.stdout.strip() == made["id"]
    assert "there already" in again.stderr

    moved = json_of("tx", "transfer", made["id"], "--key", key, "--to", f"{bob.public_key}:4", *node)
    assert [(output["public_keys"], output["amount"]) for output in moved["outputs"]] == [
        ([bob.public_key], "4"),
        ([alice.public_key], "6"),
    ]
    assert moved["asset"] == {"id": made["id"]}
    text = fail("tx", "transfer", made["id"], "--key", key, "--to", f"{bob.public_key}:5", *node)
    assert "DoubleSpend" in text
    text = fail("tx", "transfer", moved["id"], "--key", key, "--to", f"{bob.public_key}:7", *node)
    assert "holds 6" in text
    whole = json_of("tx", "transfer", moved["id"], "--key", key, "--to", bob.public_key, *node)
    assert whole["outputs"][0]["amount"] == "6"
    text = fail("tx", "transfer", whole["id"], "--key", key, "--to", bob.public_key, *node)
    assert "no output that this key can spend" in text
    assert "--output" not in text
    assert "none at 3" in fail(
        "tx", "transfer", whole["id"], "--key", key, "--to", bob.public_key, "--output", "3", *node
    )
    assert "--status" in fail("tx", "get", "0" * 64, *node)
    assert "Not found" in fail("tx", "get", "0" * 64, "--status", *node)
    assert "no block" in fail("tx", "transfer", "0" * 64, "--key", key, "--to", bob.public_key, *node)


def test_status(server: Server) -> None:
    found = json_of("status", "--node", server.url)
    assert found["ready"]
    assert found["url"] == server.url
    assert json_of("status", "--home", server.home)["chain_id"] == found["chain_id"]
    assert "ready" in succeed("status", environment={"BCDB_NODE": server.url})


def test_the_home_of_a_running_node_is_left_alone(server: Server) -> None:
    pid = server.processes()["supervisor"]
    for code, *command in ((1, "start", "--port", "0", "--stream-port", "0"), (2, "fsck")):
        assert f"process {pid}" in fail(*map(str, command), "--home", server.home, code=code)
    assert server.get("/health/ready")["status"] == "ready"


def test_the_client_against_a_node(server: Server) -> None:
    carla = KeyPair.generate()
    with Client(server.url) as client:
        made = client.create(carla, asset={"harvest": "lavender"}, metadata={"field": "northern"})
        assert client.transaction(made["id"]) == made
        assert client.status(made["id"]).status == "committed"
        assert [found.id for found in client.search_assets("lavender").items] == [made["id"]]
        assert [found.id for found in client.search_metadata("northern").items] == [made["id"]]
        with pytest.raises(errors.DuplicateTransaction):
            client.send(made)
        moved = client.transfer(carla, [(made, 0)], [([bob.public_key], 1)])
        assert client.wait(moved["id"]).height == client.blocks_of(moved["id"])[0]
        page = client.transactions(made["id"], limit=1)
        assert page.items == [made]
        assert client.transactions(made["id"], after=page.after).items == [moved]
        assert client.transactions(made["id"], newest=True).items == [moved]
        assert [each.transaction_id for each in client.outputs(carla.public_key, spent=True).items] == [
            made["id"]
        ]
        assert client.outputs(carla.public_key, spent=False).items == []
        latest = client.latest_block()
        assert client.block(latest.height) == latest
        assert (len(latest.hash or ""), len(latest.app_hash or ""), bool(latest.proposer)) == (64, 64, True)
        assert len(client.validators()) == 1
        assert client.node().ready


async def test_the_async_client_against_a_node(server: Server) -> None:
    carla = KeyPair.generate()
    batch = [sign(prepare_create(issuers=[carla.public_key], asset={"n": n}), carla) for n in range(50)]
    forged = {**batch[0], "asset": {"data": {"n": 100}}}
    async with AsyncClient(server.url) as client:
        results = await client.batch([*batch, forged])
        assert [result.accepted for result in results] == [True] * 50 + [False]
        assert isinstance(results[-1].error, errors.InvalidHash)
        for transaction in batch:
            await client.wait(transaction["id"])
        again = await client.batch(batch)
        assert {result.status for result in again} == {"committed"}
        assert len((await client.outputs(carla.public_key)).items) == 50


def test_a_killed_worker_is_started_again(server: Server) -> None:
    before = server.processes()
    for name in ("worker-0", "worker-1", "projector"):
        os.kill(before[name], signal.SIGKILL)
    with Client(server.url, timeout_s=PATIENCE_S) as client:
        made = client.create(alice, asset={"made": "while the workers were away"})
        assert [found.id for found in client.search_assets('"workers were away"').items] == [made["id"]]
    assert server.log.read_text().count("it is started again") >= 3


def test_the_end_of_the_node_process_ends_the_command(tmp_path: Path) -> None:
    with Server(tmp_path / "node", workers=1) as server:
        first = create(asset={"kept": "over the end of the node process"})
        assert server.post(first.raw)[0] == 202
        os.kill(server.processes()["node"], signal.SIGKILL)
        code = server.wait_end()
        assert code == 1
        assert "The node process ended (SIGKILL)" in server.tail()
        assert "Traceback" not in server.tail()
        assert server.wait_gone(limits.STOP_S_MAX) == []
        server.kill()
        server.start()
        assert server.get(f"/api/v1/transactions/{first.tx['id']}") == first.tx
        for file in server.home.glob("query.sqlite*"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert server.stop() == 0
        assert "clean" in succeed("fsck", "--home", server.home)
        assert json_of("fsck", "--home", server.home)["clean"]


def test_a_keep_alive_connection_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    with Server(tmp_path / "node", workers=1) as server, httpx.Client() as idle:
        assert idle.get(f"{server.url}/health/live").status_code == 200
        assert server.stop() == 0
        assert "killed" not in server.tail()
