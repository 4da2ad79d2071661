"""Homes of CometBFT nodes: the same files for the same settings, and nothing replaced that must stay."""

import base64
import hashlib
import json
import os
import stat
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.cometbft import times
from consensus.cometbft.files import (
    CONFIG,
    GENESIS,
    NODE_KEY,
    VALIDATOR_KEY,
    VALIDATOR_STATE,
    NodeSettings,
    Peer,
    config_file,
    read_home,
    write_home,
)
from consensus.cometbft.genesis import ConsensusParameters, genesis_file
from consensus.cometbft.keys import HomeError, Key, node_id, read_key
from consensus.engine import Genesis, Validator
from tests.support.cometbft import program

KEY = Key(bytes(range(32)))
PARAMETERS = ConsensusParameters(4_000_000)
GENESIS_VALUE = Genesis("chain", 1_700_000_000_123_000_000, (Validator(KEY.public, 10),), 5, b'{"a": [1, 2]}')
SETTINGS = NodeSettings(app_socket=Path("/run/a.sock"), rpc="unix:///run/r.sock", tx_bytes_max=1_000_000)


def key_file(kind: str, value: str) -> str:
    return json.dumps({"priv_key": {"type": kind, "value": value}})


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_home_is_the_same_again_and_private(tmp_path: Path) -> None:
    document = genesis_file(GENESIS_VALUE, PARAMETERS)
    made = [
        write_home(tmp_path / name, SETTINGS, document, node_key=KEY, validator_key=KEY)
        for name in ("a", "b", "a")
    ]
    assert made[0] == made[2] == read_home(tmp_path / "a", SETTINGS)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert set(content(tmp_path / "a")) == {NODE_KEY, VALIDATOR_KEY, VALIDATOR_STATE, GENESIS, CONFIG}
    for path in (tmp_path / "a").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_keys_as_cometbft_writes_them(tmp_path: Path) -> None:
    home = write_home(
        tmp_path, SETTINGS, genesis_file(GENESIS_VALUE, PARAMETERS), node_key=KEY, validator_key=KEY
    )
    node = json.loads((tmp_path / NODE_KEY).read_bytes())
    assert node["priv_key"]["type"] == "tendermint/PrivKeyEd25519"
    assert base64.b64decode(node["priv_key"]["value"]) == KEY.seed + KEY.public
    voter = json.loads((tmp_path / VALIDATOR_KEY).read_bytes())
    assert voter["address"] == hashlib.sha256(KEY.public).hexdigest()[:40].upper()
    assert base64.b64decode(voter["pub_key"]["value"]) == KEY.public == home.validator_key
    assert json.loads((tmp_path / VALIDATOR_STATE).read_bytes()) == {"height": "0", "round": 0, "step": 0}
    assert home.node_id == node_id(KEY.public) == hashlib.sha256(KEY.public).hexdigest()[:40]


def test_cometbft_reads_them(tmp_path: Path) -> None:
    """The real one, which tells id and key of the home."""
    home = write_home(tmp_path, SETTINGS, genesis_file(GENESIS_VALUE, PARAMETERS))

    def ask(command: str) -> str:
        told = subprocess.run(
            [program(), command, "--home", tmp_path], capture_output=True, text=True, check=True, timeout=20
        )
        return told.stdout.strip()

    before = content(tmp_path)
    assert ask("show-node-id") == home.node_id
    assert base64.b64decode(json.loads(ask("show-validator"))["value"]) == home.validator_key
    assert content(tmp_path) == before


def test_keys_are_made_and_kept(tmp_path: Path) -> None:
    document = genesis_file(GENESIS_VALUE, PARAMETERS)
    first = write_home(tmp_path, SETTINGS, document)
    assert first.node_id != node_id(first.validator_key)
    assert write_home(tmp_path, SETTINGS, document) == first
    assert read_key(tmp_path / VALIDATOR_KEY) != read_key(tmp_path / NODE_KEY)
    for keys in ({"node_key": KEY}, {"validator_key": KEY}):
        with pytest.raises(HomeError, match="holds another key"):
            write_home(tmp_path, SETTINGS, document, **keys)
    assert write_home(tmp_path, SETTINGS, document) == first


def test_changed_settings_change_the_config_alone(tmp_path: Path) -> None:
    document = genesis_file(GENESIS_VALUE, PARAMETERS)
    write_home(tmp_path, SETTINGS, document)
    state = tmp_path / VALIDATOR_STATE
    state.write_text('{"height": "9", "round": 0, "step": 3}')
    before = content(tmp_path)
    write_home(tmp_path, replace(SETTINGS, moniker="other"), document)
    after = content(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {CONFIG}


def test_another_genesis_is_refused(tmp_path: Path) -> None:
    write_home(tmp_path, SETTINGS, genesis_file(GENESIS_VALUE, PARAMETERS))
    with pytest.raises(HomeError, match="the genesis of another chain"):
        write_home(tmp_path, SETTINGS, genesis_file(replace(GENESIS_VALUE, chain_id="b"), PARAMETERS))


def test_a_lost_record_of_signatures_is_not_replaced(tmp_path: Path) -> None:
    document = genesis_file(GENESIS_VALUE, PARAMETERS)
    write_home(tmp_path, SETTINGS, document)
    (tmp_path / VALIDATOR_STATE).unlink()
    write_home(tmp_path, SETTINGS, document)
    (tmp_path / "data" / "cs.wal").mkdir()
    (tmp_path / VALIDATOR_STATE).unlink()
    with pytest.raises(HomeError, match="could sign twice"):
        write_home(tmp_path, SETTINGS, document)
    assert not (tmp_path / VALIDATOR_STATE).exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "no key file"),
        ("nothing", "no key file"),
        (key_file("tendermint/PrivKeyEd25519", "AAAA"), "a key of type"),
        (key_file("tendermint/PrivKeySecp256k1", "A" * 43 + "="), "Secp256k1"),
        (key_file("tendermint/PrivKeyEd25519", "A" * 86 + "=="), "two halves"),
        (key_file("tendermint/PrivKeyEd25519", "?"), "no key file"),
    ],
)
def test_key_files_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "key.json"
    path.write_text(text)
    with pytest.raises(HomeError, match=said):
        read_key(path)


def test_homes_that_are_not_whole(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="has no keys"):
        read_home(tmp_path, SETTINGS)
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="can't be written"):
        write_home(tmp_path / "file", SETTINGS, genesis_file(GENESIS_VALUE, PARAMETERS))
    with pytest.raises(HomeError, match="32 bytes"):
        Key(b"short")
    assert "seed" not in repr(KEY)


def test_the_genesis() -> None:
    document = genesis_file(GENESIS_VALUE, PARAMETERS)
    assert document == genesis_file(GENESIS_VALUE, PARAMETERS)
    read = json.loads(document)
    assert (read["chain_id"], read["initial_height"]) == ("chain", "5")
    assert read["genesis_time"] == "2023-11-14T22:13:20.123Z"
    assert read["consensus_params"]["block"] == {"max_bytes": "4000000", "max_gas": "-1"}
    assert read["consensus_params"]["version"] == {"app": "1"}
    assert read["app_state"] == {"a": [1, 2]}
    assert [each["power"] for each in read["validators"]] == ["10"]
    others = tuple(Validator(Key(bytes([n]) * 32).public, n + 1) for n in range(4))
    orders = [replace(GENESIS_VALUE, validators=order, app_state=b"") for order in (others, others[::-1])]
    assert genesis_file(orders[0], PARAMETERS) == genesis_file(orders[1], PARAMETERS)
    assert "app_state" not in json.loads(genesis_file(orders[0], PARAMETERS))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"chain_id": ""}, "1 to 50 characters"),
        ({"chain_id": "x" * 51}, "1 to 50 characters"),
        ({"initial_height": 0}, "height 0"),
        ({"validators": ()}, "at least one validator"),
        ({"validators": (Validator(KEY.public, 0),)}, "above 0"),
        ({"validators": (Validator(KEY.public, 2**62),)}, "at most"),
        ({"validators": (Validator(KEY.public, 1), Validator(KEY.public, 2))}, "a key of its own"),
        ({"validators": (Validator(b"short", 1),)}, "32 bytes"),
        ({"app_state": b"{"}, "is JSON"),
    ],
)
def test_geneses_that_are_none(changed: dict[str, object], said: str) -> None:
    with pytest.raises(HomeError, match=said):
        genesis_file(replace(GENESIS_VALUE, **changed), PARAMETERS)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 100 * 1024 * 1024 + 1])
def test_blocks_have_bounds(size: int) -> None:
    with pytest.raises(HomeError, match=f"not {size}"):
        ConsensusParameters(size)


def test_the_config() -> None:
    peers = (Peer("ab" * 20, "10.0.0.1:26656"), Peer("cd" * 20, "[::1]:1"))
    read = tomllib.loads(config_file(replace(SETTINGS, peers=peers, timeout_commit_s=0.25)).decode())
    assert read["proxy_app"] == "unix:///run/a.sock"
    assert read["filter_peers"] is True
    assert read["rpc"]["laddr"] == "unix:///run/r.sock"
    assert read["rpc"]["max_body_bytes"] > 1.34 * SETTINGS.tx_bytes_max
    assert read["p2p"]["persistent_peers"] == f"{'ab' * 20}@10.0.0.1:26656,{'cd' * 20}@[::1]:1"
    assert read["p2p"]["pex"] is False
    assert read["mempool"]["recheck"] is True
    assert read["mempool"]["cache_size"] >= 3 * read["mempool"]["size"]
    assert read["consensus"]["timeout_commit"] == "250ms"
    assert read["consensus"]["create_empty_blocks"] is False
    assert read["consensus"]["create_empty_blocks_interval"] == "10000ms"
    assert read["tx_index"]["indexer"] == "null"
    odd = replace(SETTINGS, app_socket=Path('/run/ö "quoted"\\/a.sock'))
    assert tomllib.loads(config_file(odd).decode())["proxy_app"] == f"unix://{odd.app_socket}"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"app_socket": Path("a.sock")}, "absolute"),
        ({"app_socket": Path("/" + "x" * 120)}, "at most 107 bytes"),
        ({"rpc": "unix://relative"}, "absolute"),
        ({"rpc": "tcp://0.0.0.0:26657"}, "for this machine alone"),
        ({"rpc": "tcp://example.org:26657"}, "for this machine alone"),
        ({"rpc": "127.0.0.1:26657"}, "for this machine alone"),
        ({"p2p_listen": "nowhere"}, "an address like"),
        ({"p2p_listen": 'a"b:1'}, "an address like"),
        ({"p2p_listen": "a:70000"}, "an address like"),
        ({"p2p_external": "a,b:1"}, "an address like"),
        ({"moniker": "two words"}, "name has letters"),
        ({"tx_bytes_max": 0}, "room for at least one"),
        ({"mempool_txs_max": 0}, "room for at least one"),
        ({"timeout_commit_s": 0.0}, "above 0"),
        ({"peers": (Peer("ab" * 20, "a:1"),) * 129}, "at most 128 peers"),
    ],
)
def test_settings_that_are_none(changed: dict[str, object], said: str) -> None:
    with pytest.raises(HomeError, match=said):
        replace(SETTINGS, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("rpc", ["tcp://127.0.0.1:26657", "tcp://[::1]:26657", "unix:///run/r.sock"])
def test_the_rpc_is_local(rpc: str) -> None:
    socket = replace(SETTINGS, rpc=rpc).rpc_socket
    assert (socket is not None) == rpc.startswith("unix")


@pytest.mark.parametrize("node", ["", "AB" * 20, "ab" * 19, "zz" * 20])
def test_ids_of_peers(node: str) -> None:
    with pytest.raises(HomeError, match="40 hex digits"):
        Peer(node, "a:1")


@given(st.integers(min_value=-62_000_000_000 * 10**9, max_value=250_000_000_000 * 10**9))
def test_times_go_both_ways(time_ns: int) -> None:
    assert times.from_text(times.to_text(time_ns)) == time_ns


def test_times_of_cometbft() -> None:
    assert times.from_text("1970-01-01T01:00:00.5+01:00") == 500_000_000
    assert times.from_text("0001-01-01T00:00:00Z") < 0
    assert times.to_text(1_000_000_000) == "1970-01-01T00:00:01Z"
    for text in ("", "yesterday", "2026-01-01 00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00"):
        with pytest.raises(ValueError, match=r"."):
            times.from_text(text)


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = genesis_file(GENESIS_VALUE, PARAMETERS)
    write_home(tmp_path, SETTINGS, document)
    before = content(tmp_path)

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HomeError, match="No space left"):
        write_home(tmp_path, replace(SETTINGS, moniker="other"), document)
    monkeypatch.undo()
    assert {name: data for name, data in content(tmp_path).items() if ".new" not in name} == before
    write_home(tmp_path, replace(SETTINGS, moniker="other"), document)
    assert not [name for name in content(tmp_path) if ".new" in name]
