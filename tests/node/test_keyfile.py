"""Key files: private, whole, never overwritten."""

import stat
from pathlib import Path

import pytest

from bcdb.node.keyfile import KeyFileError, read_key_file, write_key_file
from tests.support.transactions import alice, bob


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    write_key_file(path, alice)
    assert read_key_file(path) == alice
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    write_key_file(path, alice)
    with pytest.raises(KeyFileError, match="not overwritten"):
        write_key_file(path, bob)
    assert read_key_file(path) == alice
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    write_key_file(path, alice)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_key_file(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 4096,
        b'{"public_key": "x"}',
        b'{"public_key": "x", "private_key": "y"}',
        f'{{"public_key": "{bob.public_key}", "private_key": "{alice.private_key}"}}'.encode(),
    ],
)
def test_what_is_no_key_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError) as caught:
        read_key_file(path)
    assert alice.private_key not in caught.value.text


def test_no_file_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        read_key_file(tmp_path / "key.json")
    with pytest.raises(KeyFileError, match="can't be written"):
        write_key_file(tmp_path / "missing" / "key.json", alice)
