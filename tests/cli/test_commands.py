"""Commands that need no node: what they make, what they print, and their one-sentence errors."""

import asyncio
import os
import stat
from pathlib import Path

import pytest

import bcdb
from bcdb.cli.home import locked
from bcdb.ledger import Ledger, fsck
from bcdb.node.keyfile import read_key_file, write_key_file
from bcdb.node.settings import read_config, read_settings
from query.errors import StoreUnavailable
from query.sqlite import SqliteStore
from tests.cli.running import fail, json_of, run, succeed
from tests.support.server import free_ports
from tests.support.transactions import alice, bob


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "alice.json"
    write_key_file(path, alice)
    return path


@pytest.fixture
def nowhere() -> str:
    return f"http://127.0.0.1:{free_ports(1)[0]}"


def test_version_and_help() -> None:
    assert succeed("--version").strip() == bcdb.__version__
    for command in (
        ["start"],
        ["init"],
        ["status"],
        ["fsck"],
        ["keys", "new"],
        ["tx", "create"],
        ["config", "show"],
        ["query", "status"],
        ["query", "rebuild"],
    ):
        assert "Usage: " in succeed(*command, "--help")


def test_init_makes_what_is_missing_and_keeps_what_is_there(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    first = json_of("init", "--home", home, "--port", "1234")
    assert first["made"] == [str(home / "config.toml"), str(home / "node_key.json")]
    settings = read_settings(home, environ={})
    assert (settings.chain_id, settings.port) == (first["chain_id"], 1234)
    assert stat.S_IMODE((home / "node_key.json").stat().st_mode) == 0o600
    node_key = read_key_file(settings.node_key_path)
    (home / "node_key.json").rename(tmp_path / "old_key.json")
    second = json_of("init", "--home", home)
    assert second["made"] == [str(home / "node_key.json")]
    assert second["chain_id"] == first["chain_id"]
    assert read_key_file(settings.node_key_path) != node_key
    assert json_of("init", "--home", home)["made"] == []


def test_init_adds_a_chain_id_to_a_config_that_has_none(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("# mine\nport = 1234")
    chain_id = json_of("init", "--home", tmp_path)["chain_id"]
    assert (tmp_path / "config.toml").read_text() == f'# mine\nport = 1234\nchain_id = "{chain_id}"\n'


def test_a_chain_id_stays(tmp_path: Path) -> None:
    assert json_of("init", "--home", tmp_path, "--chain-id", "mine")["chain_id"] == "mine"
    assert "'mine'" in fail("init", "--home", tmp_path, "--chain-id", "yours")
    assert "'mine'" in fail("init", "--home", tmp_path, environment={"BCDB_CHAIN_ID": "yours"})


def test_only_init_keeps_its_flags(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    no_certificate = ("--tls-cert", tmp_path, "--tls-key", tmp_path)
    assert run("start", "--home", first, "--port", "1234", *no_certificate).exit_code == 1
    assert list(read_config(first / "config.toml")) == ["chain_id"]
    succeed("init", "--home", second, "--port", "1234")
    assert read_config(second / "config.toml")["port"] == 1234


def test_keys_new(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    done = run("keys", "new", "--out", path)
    pair = read_key_file(path)
    assert done.stdout.strip() == pair.public_key
    assert pair.private_key not in done.output
    assert "not overwritten" in fail("keys", "new", "--out", path)
    found = json_of("keys", "new", "--out", tmp_path / "other.json")
    assert found == {"public_key": read_key_file(tmp_path / "other.json").public_key, "file": found["file"]}


def test_config_show(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("port = 1234\n")
    lines = succeed("config", "show", "--home", tmp_path, environment={"BCDB_WORKERS": "5"}).splitlines()
    assert f"port            1234  [{tmp_path / 'config.toml'}]" in lines
    assert "workers         5  [BCDB_WORKERS]" in lines
    assert "host            127.0.0.1  [default]" in lines
    assert "text_search     true  [default]" in lines
    assert json_of("config", "show", "--home", tmp_path)["port"] == 1234


def test_config_show_has_no_password(tmp_path: Path) -> None:
    environment = {"BCDB_MONGO_URI": "mongodb://me:hush@host"}
    for arguments in ((), ("--json",)):
        said = succeed("config", "show", "--home", tmp_path, *arguments, environment=environment)
        assert "mongodb://me:***@host" in said
        assert "hush" not in said
    assert "hush" not in fail("start", "--home", tmp_path, "--mongo-uri", "me:hush@host")


def test_init_keeps_the_choice_of_a_store(tmp_path: Path) -> None:
    said = succeed("init", "--home", tmp_path, "--mongo", "--no-text-search")
    assert f"Searches will be answered by a MongoDB of its own, in {tmp_path / 'mongo'}" in said
    kept = read_config(tmp_path / "config.toml")
    assert (kept["mongo"], kept["text_search"]) == (True, False)
    assert "exclude each other" in fail("start", "--home", tmp_path, "--mongo-uri", "mongodb://host")


def test_start_without_a_mongod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise StoreUnavailable("There is no `mongod` on this machine: get one")

    succeed("init", "--home", tmp_path)
    monkeypatch.setattr("bcdb.cli.mongod.find_mongod", nowhere)
    assert "get one." in fail("start", "--home", tmp_path, "--mongo", "--port", "0")


@pytest.mark.parametrize(
    "uri", ["mongodb://", "mongodb://me:hush/@host", "mongodb://me:hush@host:99999", "mongodb://h/?tls=hush"]
)
def test_start_with_an_address_of_mongodb_that_is_none(tmp_path: Path, uri: str) -> None:
    succeed("init", "--home", tmp_path)
    text = fail("start", "--home", tmp_path, "--port", "0", "--mongo-uri", uri)
    assert "mongo_uri can't be used" in text
    assert "hush" not in text


def test_a_rebuild_is_asked_for_where_a_ledger_is(tmp_path: Path, nowhere: str) -> None:
    assert "no ledger" in fail("query", "rebuild", "--home", tmp_path)
    succeed("init", "--home", tmp_path, "--port", nowhere.rpartition(":")[2])
    (tmp_path / "ledger").mkdir()
    done = run("query", "rebuild", "--home", tmp_path)
    assert done.exit_code == 0
    assert "when it starts" in done.stderr
    assert read_settings(tmp_path, environ={}).rebuild_request_path.is_file()
    assert nowhere in fail("query", "status", "--node", nowhere)


def test_fsck_of_a_store_that_cannot_be_checked(tmp_path: Path) -> None:
    assert "no ledger" in fail("fsck", "--store", "--home", tmp_path, code=2)
    Ledger.open(tmp_path / "ledger", chain_id="test").close()
    assert "no query store" in fail("fsck", "--store", "--home", tmp_path, code=2)
    (tmp_path / "mongo").mkdir()
    assert "--mongo" in fail("fsck", "--store", "--home", tmp_path, "--json", code=2)
    away = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100"
    fail("fsck", "--store", "--home", tmp_path, "--mongo-uri", away, code=2)


def test_fsck_says_when_another_store_was_checked_than_may_be_meant(tmp_path: Path) -> None:
    Ledger.open(tmp_path / "ledger", chain_id="test").close()
    asyncio.run(SqliteStore.open(tmp_path / "query.sqlite").close())
    assert "--mongo" not in run("fsck", "--store", "--home", tmp_path).stderr
    (tmp_path / "mongo").mkdir()
    done = run("fsck", "--store", "--home", tmp_path)
    assert done.exit_code == 0
    assert "say --mongo" in done.stderr


def test_unknown_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("prot = 1234\n")
    assert "'port'" in fail("config", "show", "--home", tmp_path)
    assert "'port'" in fail("start", "--home", tmp_path)
    assert "BCDB_PORTS" in fail("config", "show", environment={"BCDB_PORTS": "1"})


def test_start_with_values_that_cannot_be_used(tmp_path: Path) -> None:
    assert "70000" in fail("start", "--home", tmp_path, "--port", "70000")
    assert "belong together" in fail("start", "--home", tmp_path, "--tls-cert", "cert.pem")
    (tmp_path / "file").write_text("")
    assert "Not a directory" in fail("start", "--home", tmp_path / "file" / "home")


def test_start_with_tls_files_that_are_none(tmp_path: Path) -> None:
    json_of("init", "--home", tmp_path)
    (tmp_path / "cert.pem").write_text("no certificate")
    files = ("--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "cert.pem")
    assert "can't be used" in fail("start", "--home", tmp_path, "--port", "0", *files)


def test_start_on_a_port_in_use(tmp_path: Path) -> None:
    import socket

    json_of("init", "--home", tmp_path)
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        assert f"Port {port}" in fail("start", "--home", tmp_path, "--port", str(port), "--stream-port", "0")
        assert f"Port {port}" in fail("start", "--home", tmp_path, "--port", "0", "--stream-port", str(port))


def test_a_home_in_use(tmp_path: Path) -> None:
    json_of("init", "--home", tmp_path)
    (tmp_path / "ledger").mkdir()
    with locked(read_settings(tmp_path, environ={})):
        for command, code in (("start", 1), ("fsck", 2)):
            assert f"process {os.getpid()}" in fail(command, "--home", tmp_path, code=code)


def test_fsck_of_what_cannot_be_checked(tmp_path: Path) -> None:
    assert "no ledger" in fail("fsck", "--home", tmp_path, code=2)
    assert "no ledger" in fail("fsck", "--home", tmp_path, "--json", code=2)
    (tmp_path / "ledger").mkdir()
    assert str(tmp_path / "ledger") in fail("fsck", "--home", tmp_path, code=2)
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").mkdir()
    assert "can't be opened: Is a directory" in fail("fsck", "--home", tmp_path, code=2)
    (tmp_path / "config.toml").write_text("prot = 1234\n")
    assert "'port'" in fail("fsck", "--home", tmp_path, code=2)


def test_fsck_of_a_ledger_with_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = [fsck.Fault("blocks/1", "The block is missing."), fsck.Fault("meta", "odd")]
    monkeypatch.setattr(fsck, "check", lambda *_: iter(faults))
    (tmp_path / "ledger").mkdir()
    done = run("fsck", "--home", tmp_path)
    assert done.exit_code == 1
    assert done.stdout.splitlines()[:2] == ["blocks/1: The block is missing.", "meta: odd"]
    assert run("fsck", "--home", tmp_path, "--json").exit_code == 1


def test_no_node(key: Path, nowhere: str) -> None:
    node = ("--node", nowhere)
    assert nowhere in fail("status", *node)
    assert nowhere in fail("tx", "create", "--key", key, "--asset", "{}", *node)
    assert nowhere in fail("tx", "get", "0" * 64, environment={"BCDB_NODE": nowhere})
    assert "http://" in fail("status", "--node", "localhost:9984")


def test_what_is_named_wins_over_the_environment(tmp_path: Path, nowhere: str) -> None:
    port = nowhere.rpartition(":")[2]
    succeed("init", "--home", tmp_path, "--port", port)
    variable = {"BCDB_NODE": "http://127.0.0.1:1"}
    assert f"localhost:{port}" in fail("status", "--home", tmp_path, environment=variable)
    assert nowhere in fail("status", "--node", nowhere, "--home", tmp_path, environment=variable)
    assert "127.0.0.1:1" in fail("status", environment=variable)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--asset", "{"], "--asset is a JSON object or @FILE"),
        (["--asset", "[1]"], "--asset is a JSON object or @FILE"),
        (["--asset", "@missing.json"], "missing.json can't be read"),
        (["--asset", "{}", "--metadata", "7"], "--metadata is a JSON object or @FILE"),
        (["--asset", "{}", "--to", "nobody"], "Error: --to: Invalid base58 ed25519 key: 'nobody'"),
        (["--asset", "{}", "--to", f"{bob.public_key}:0"], "whole number"),
        (["--asset", "{}", "--to", f"{bob.public_key}:-1"], "whole number"),
        (["--asset", "{}", "--to", f"{bob.public_key}:{10**19}"], "whole number"),
        (["--asset", "{}", "--mode", "later"], "commit, sync, async"),
    ],
)
def test_tx_create_with_what_cannot_be_used(key: Path, nowhere: str, arguments: list[str], part: str) -> None:
    assert part in fail("tx", "create", "--key", key, "--node", nowhere, *arguments, code=2)


def test_a_key_file_that_others_can_read(key: Path, nowhere: str) -> None:
    key.chmod(0o644)
    text = fail("tx", "create", "--key", key, "--asset", "{}", "--node", nowhere)
    assert f"chmod 600 {key}" in text
    assert "No such file" in fail(
        "tx", "create", "--key", key.parent / "none", "--asset", "{}", "--node", nowhere
    )


def test_a_transfer_to_nobody(key: Path, nowhere: str) -> None:
    done = run("tx", "transfer", "0" * 64, "--key", key, "--node", nowhere)
    assert done.exit_code == 2
    assert "Missing option '--to'" in done.stderr
