"""What `bcdb start` says: where it listens, what to try, and how open it is."""

import sys
from pathlib import Path

import pytest

from bcdb.cli.start import exposure, store_of, tell_ready, this_command
from bcdb.node.settings import Settings
from tests.support.transactions import alice


@pytest.mark.parametrize(
    ("host", "tls", "keys", "parts"),
    [
        ("127.0.0.1", False, (), []),
        ("localhost", False, (), []),
        ("0.0.0.0", False, (), ["0.0.0.0", "no tls_cert", "no write_keys"]),
        ("10.1.2.3", True, (), ["no write_keys"]),
        ("10.1.2.3", False, (alice.public_key,), ["no tls_cert"]),
        ("10.1.2.3", True, (alice.public_key,), []),
    ],
)
def test_exposure(tmp_path: Path, host: str, tls: bool, keys: tuple[str, ...], parts: list[str]) -> None:
    file = tmp_path / "pem" if tls else None
    text = exposure(Settings(home=tmp_path, host=host, tls_cert=file, tls_key=file, write_keys=keys))
    assert bool(text) is bool(parts)
    assert all(part in text for part in parts)
    assert "no tls_cert" not in text or not tls


def test_the_node_is_named_where_it_is_not_the_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_ready(Settings(home=tmp_path))
    assert "--node" not in capsys.readouterr().out
    tell_ready(Settings(home=tmp_path, port=1234))
    out = capsys.readouterr().out
    assert "curl http://localhost:1234/api/v1/\n" in out
    assert "--node http://localhost:1234\n" in out
    file = tmp_path / "cert.pem"
    tell_ready(Settings(home=tmp_path, tls_cert=file, tls_key=file))
    out = capsys.readouterr().out
    assert "curl --insecure https://localhost:9984/api/v1/\n" in out
    assert f"  SSL_CERT_FILE={file} " in out
    assert "--node https://localhost:9984\n" in out


def test_this_command_can_be_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bcdb/__main__.py", "start"])
    assert this_command() == f"{sys.executable} -m bcdb"
    monkeypatch.setattr(sys, "argv", ["my folder/bcdb", "start"])
    assert this_command() == "'my folder/bcdb'"


def test_the_store_is_named_without_its_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert store_of(Settings(home=tmp_path)) == f"SQLite, in {tmp_path / 'query.sqlite'}"
    assert store_of(Settings(home=tmp_path, mongo=True)) == f"a MongoDB of its own, in {tmp_path / 'mongo'}"
    tell_ready(Settings(home=tmp_path, mongo_uri="mongodb://me:hush@host", mongo_database="mine"))
    assert "  searches mongodb://me:***@host, database mine\n" in capsys.readouterr().out
