"""Settings: where they come from, which ones are refused, and that no misspelling passes in silence."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from bcdb.model.errors import SettingsError
from bcdb.node.settings import (
    MEANING,
    NAMES,
    SOCKET_PATH_BYTES_MAX,
    Settings,
    explain_settings,
    hide_secrets,
    is_loopback,
    new_config,
    read_settings,
)
from tests.support.transactions import alice, bob


def test_defaults(tmp_path: Path) -> None:
    settings = read_settings(tmp_path, environ={})
    assert (settings.host, settings.port, settings.stream_port) == ("127.0.0.1", 9984, 9985)
    assert settings.workers == len(os.sched_getaffinity(0))
    assert settings.loopback
    assert not settings.tls
    assert settings.url == "http://localhost:9984"
    assert settings.stream_url == "ws://localhost:9985/api/v1/streams/valid_transactions"


def test_file_then_environment_then_flags(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('port = 1001\nworkers = 3\nlog_level = "debug"\n')
    environment = {
        "BCDB_PORT": "1002",
        "BCDB_WORKERS": "4",
        "UNRELATED": "x",
        "BCDB_TRACE_FILE": "/tmp/trace",
    }
    settings = read_settings(tmp_path, {"port": "1003", "host": None}, environment)
    assert (settings.port, settings.workers, settings.log_level) == (1003, 4, "debug")
    assert settings.stream_port == 1004


def test_where_each_comes_from(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("port = 1001\nworkers = 3\n")
    found = explain_settings(tmp_path, {"BCDB_WORKERS": "4"})
    assert found["port"] == str(tmp_path / "config.toml")
    assert found["workers"] == "BCDB_WORKERS"
    assert found["host"] == "default"
    assert set(found) == set(NAMES)


def test_home_comes_from_flag_then_environment_then_default(tmp_path: Path) -> None:
    assert read_settings(environ={"BCDB_HOME": str(tmp_path)}).home == tmp_path
    assert read_settings(tmp_path / "b", environ={"BCDB_HOME": str(tmp_path)}).home == tmp_path / "b"
    assert read_settings(environ={}).home == Path.home() / ".bcdb"


@pytest.mark.parametrize(
    ("text", "environment", "parts"),
    [
        ("prot = 1", {}, ["prot", "config.toml", "'port'"]),
        ("[server]\nport = 1", {}, ["server", "config.toml"]),
        ('home = "/elsewhere"', {}, ["home", "config.toml"]),
        ("", {"BCDB_WRITE_KEY": "x"}, ["BCDB_WRITE_KEY", "'BCDB_WRITE_KEYS'"]),
    ],
)
def test_unknown_names_are_errors_with_the_nearest_known_one(
    tmp_path: Path, text: str, environment: dict[str, str], parts: list[str]
) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_settings(tmp_path, environ=environment)
    assert all(part in caught.value.text for part in parts), caught.value.text


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ({"port": "many"}, "port in the flag --port can't be 'many'"),
        ({"port": 65536}, "<= 65535"),
        ({"port": -1}, ">= 0"),
        ({"port": 65535}, "stream_port"),
        ({"port": 7, "stream_port": 7}, "both be 7"),
        ({"workers": 1000}, "<= 256"),
        ({"rate_limit": -1}, ">= 0"),
        ({"log_level": "loud"}, "debug, info, warning, error"),
        ({"log_format": "xml"}, "console, json"),
        ({"tls_cert": "cert.pem"}, "belong together"),
        ({"tls_key": "key.pem"}, "belong together"),
        ({"write_keys": f"{alice.public_key},nonsense"}, "nonsense"),
        ({"chain_id": "two words"}, "two words"),
        ({"chain_id": "x" * 51}, "at most 50"),
        ({"mongo": True, "mongo_uri": "mongodb://localhost"}, "exclude each other"),
        ({"mongo": "perhaps"}, "mongo in the flag --mongo can't be 'perhaps'"),
        ({"mongo_uri": "http://localhost"}, "begins with mongodb:// or mongodb+srv://"),
        ({"mongo_database": ""}, "1 to 63 letters"),
        ({"mongo_database": "a.b"}, "'a.b' can't be used"),
        ({"mongo_database": "x" * 64}, "1 to 63 letters"),
        ({"mongo_database": "admin"}, "MongoDB's own (admin, config, local)"),
        ({"colour": "red"}, "Unknown setting 'colour'"),
    ],
)
def test_values_that_cannot_be_used(tmp_path: Path, flags: dict[str, Any], part: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(tmp_path, flags, {})
    assert part in caught.value.text


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("port: 1")
    with pytest.raises(SettingsError, match="is not TOML"):
        read_settings(tmp_path, environ={})
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not TOML"):
        read_settings(tmp_path, environ={})


def test_lists_and_files(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        f'write_keys = ["{alice.public_key}"]\ntls_cert = "cert.pem"\ntls_key = "/keys/key.pem"\n'
    )
    settings = read_settings(tmp_path, environ={})
    assert settings.write_keys == (alice.public_key,)
    assert settings.tls_cert == tmp_path / "cert.pem"
    assert settings.tls_key == Path("/keys/key.pem")
    assert settings.url.startswith("https://")
    text = f" {alice.public_key} , {bob.public_key} "
    from_environment = read_settings(tmp_path, environ={"BCDB_WRITE_KEYS": text})
    assert from_environment.write_keys == (alice.public_key, bob.public_key)


def test_an_empty_path_in_the_environment_means_none(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('tls_cert = "cert.pem"\ntls_key = "key.pem"\n')
    settings = read_settings(tmp_path, environ={"BCDB_TLS_CERT": "", "BCDB_TLS_KEY": ""})
    assert not settings.tls


def test_dump_and_load(tmp_path: Path) -> None:
    flags = {"tls_cert": "/a.pem", "tls_key": "/b.pem", "write_keys": alice.public_key, "chain_id": "test"}
    settings = read_settings(tmp_path, flags, {})
    settings.dump(tmp_path / "settings.json")
    assert Settings.load(tmp_path / "settings.json") == settings
    assert stat.S_IMODE((tmp_path / "settings.json").stat().st_mode) == 0o600
    (tmp_path / "settings.json").write_text('{"home": 1}')
    with pytest.raises(SettingsError):
        Settings.load(tmp_path / "settings.json")
    with pytest.raises(SettingsError):
        Settings.load(tmp_path / "missing.json")


def test_a_first_config_explains_everything_and_reads_back(tmp_path: Path) -> None:
    assert set(MEANING) == set(NAMES) - {"home"}
    given = {"chain_id": "test-1", "port": 1234, "host": None, "write_keys": (alice.public_key,)}
    text = new_config(given)
    assert all(f"{name} = " in text for name in MEANING)
    (tmp_path / "config.toml").write_text(text)
    settings = read_settings(tmp_path, environ={})
    assert (settings.chain_id, settings.port, settings.write_keys) == ("test-1", 1234, (alice.public_key,))
    uncommented = "\n".join(line.removeprefix("# ") for line in new_config({}).splitlines() if " = " in line)
    (tmp_path / "config.toml").write_text(uncommented.replace('"..."', '"test-2"'))
    defaults, found = Settings(home=tmp_path), read_settings(tmp_path, environ={})
    for name in set(NAMES) - {"chain_id", "tls_cert", "tls_key"}:
        assert getattr(found, name) == getattr(defaults, name), name


def test_folders_are_private(tmp_path: Path) -> None:
    settings = read_settings(tmp_path / "home", environ={})
    settings.make_folders()
    settings.make_folders()
    for folder in (settings.home, settings.run_path, settings.metrics_path):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_home_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o750)
    Settings(home=home).make_folders()
    assert stat.S_IMODE(home.stat().st_mode) == 0o750


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="can't be made"):
        Settings(home=tmp_path / "file" / "home").make_folders()
    with pytest.raises(SettingsError, match="can't be read"):
        read_settings(tmp_path / "file" / "home", environ={})


def test_a_deep_home_has_its_socket_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    deep = read_settings(tmp_path / ("x" * SOCKET_PATH_BYTES_MAX), environ={})
    assert deep.home not in deep.socket_path.parents
    assert deep.socket_path == read_settings(deep.home, environ={}).socket_path
    assert deep.socket_path != read_settings(tmp_path / ("y" * SOCKET_PATH_BYTES_MAX), environ={}).socket_path
    deep.make_folders()
    assert stat.S_IMODE(deep.socket_path.parent.stat().st_mode) == 0o700
    deep.socket_path.parent.chmod(0o755)
    with pytest.raises(SettingsError, match="this user alone"):
        deep.make_folders()


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("node.example", False),
    ],
)
def test_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) is own


def test_the_store_for_searches(tmp_path: Path) -> None:
    default = read_settings(tmp_path, environ={})
    assert (default.store_kind, default.mongo_connection, default.text_search) == ("sqlite", "", True)
    own = read_settings(tmp_path, environ={"BCDB_MONGO": "true", "BCDB_TEXT_SEARCH": "false"})
    assert (own.store_kind, own.mongo_database, own.text_search) == ("mongodb", "bcdb", False)
    assert own.mongo_path == tmp_path / "mongo"
    assert own.mongo_connection.startswith("mongodb://%2F")
    assert own.mongo_connection.endswith("run%2Fmongo.sock/?directConnection=true")
    own.make_folders()
    assert stat.S_IMODE(own.mongo_path.stat().st_mode) == 0o700
    (tmp_path / "config.toml").write_text('mongo_uri = "mongodb://one,two/?replicaSet=x"\n')
    yours = read_settings(tmp_path, environ={})
    assert (yours.store_kind, yours.mongo_connection) == ("mongodb", "mongodb://one,two/?replicaSet=x")
    # What is in the file gives way to a flag only if both are said.
    assert read_settings(tmp_path, {"mongo": True, "mongo_uri": ""}, {}).mongo
    with pytest.raises(SettingsError, match="exclude"):
        read_settings(tmp_path, {"mongo": True}, {})


def test_a_deep_home_has_the_socket_of_its_mongod_elsewhere(tmp_path: Path) -> None:
    deep = Settings(home=tmp_path / ("x" * SOCKET_PATH_BYTES_MAX), mongo=True)
    assert deep.mongo_socket_path.parent == deep.socket_path.parent
    assert len(os.fsencode(deep.mongo_socket_path)) < 108


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("mongodb://localhost:27017/?replicaSet=x", "mongodb://localhost:27017/?replicaSet=x"),
        ("mongodb://a:1,b:2,c:3/", "mongodb://a:1,b:2,c:3/"),
        ("mongodb://me@host/", "mongodb://me@host/"),
        ("mongodb://me:hush@host:1,other/db", "mongodb://me:***@host:1,other/db"),
        ("mongodb://me:hu/sh@hush@host", "mongodb://me:***@host"),
        ("mongodb://:hush@host", "mongodb://:***@host"),
        ("mongodb+srv://me:h%40ush@host/?tls=true", "mongodb+srv://me:***@host/?tls=true"),
        (
            "mongodb://h/?tls=true&tlsCertificateKeyFilePassword=hush&w=1",
            "mongodb://h/?tls=true&tlsCertificateKeyFilePassword=***&w=1",
        ),
        (
            "mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:hush",
            "mongodb://h/?authMechanismProperties=***",
        ),
    ],
)
def test_secrets_are_not_shown(tmp_path: Path, uri: str, shown: str) -> None:
    assert hide_secrets(uri) == shown
    settings = Settings(home=tmp_path, mongo_uri=uri)
    assert settings.as_dict()["mongo_uri"] == shown
    assert f"mongo_uri={shown!r}" in repr(settings)
    settings.dump(tmp_path / "settings.json")
    assert Settings.load(tmp_path / "settings.json").mongo_connection == uri


def test_no_error_says_a_secret(tmp_path: Path) -> None:
    for given in ("postgres://me:hush@host", {"hush": 1}):
        with pytest.raises(SettingsError) as caught:
            read_settings(tmp_path, {"mongo_uri": given}, {})
        assert "mongo_uri" in caught.value.text
        assert "hush" not in caught.value.text
