"""Finding and building CometBFT, with small programs that play `go` and `cometbft`."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from consensus.cometbft import binary
from consensus.cometbft.binary import VERSION, BinaryError, cached, examine, find, find_go, install
from tests.support.cometbft import program

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty cache, and with nothing on the PATH but what the tests put into its `bin`."""
    program()  # found, or built, while this is still the machine that it is
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(binary, "_packaged_go", lambda: None)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def comet(version: str, abci: str = "2.0.0") -> str:
    return f"echo '{json.dumps({'cometbft': version, 'abci': abci})}'\n"


def go(machine: Path, build: str, version: str = "go1.22.1") -> Path:
    """A Go whose `install` does what `build` says, and which counts how often."""
    text = f'if [ "$1" = version ]; then echo "go version {version} linux/amd64"; exit; fi\n'
    return write(machine / "bin" / "go", f"{text}echo build >> {machine}/builds\n{build}")


def builds(version: str) -> str:
    return (
        f"PATH=/usr/bin:/bin\necho compiling things\nsleep 0.2\ncat > $GOBIN/cometbft <<'END'\n"
        f"#!/bin/sh\n{comet(version)}END\nchmod 755 $GOBIN/cometbft\n"
    )


def test_the_real_one_is_known() -> None:
    found = examine(program())
    assert found.is_qualified
    assert find(program()) == found


def test_the_order_of_looking(machine: Path) -> None:
    with pytest.raises(BinaryError, match=r"no CometBFT on this machine: run `bcdb engine install`"):
        find()
    kept = write(cached(VERSION), comet(VERSION))
    assert kept == machine / "cache" / "bcdb" / "cometbft" / VERSION / "cometbft"
    assert find() == binary.Binary(kept, VERSION)
    on_path = write(machine / "bin" / "cometbft", comet("v0.39.4+abcdef"))
    assert find() == binary.Binary(on_path, "0.39.4")
    write(on_path, comet("1.0.1", "2.1.0"))
    assert find().path == kept
    write(on_path, comet("0.38.7"))
    assert not find().is_qualified
    named = write(machine / "named", comet("0.38.25"))
    assert find(named).path == named
    with pytest.raises(BinaryError, match=r"missing can't be run: No such file"):
        find(machine / "missing")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (comet("1.0.1", "2.1.0"), r"CometBFT '1.0.1' with ABCI '2.1.0'; CometBFT 0.38.x or 0.39.x"),
        (comet("0.40.0"), "'0.40.0'"),
        ("echo 0.38.25", "is no CometBFT"),
        ("exit 3", "is no CometBFT"),
    ],
)
def test_what_cannot_be_used(machine: Path, text: str, said: str) -> None:
    path = write(machine / "bin" / "cometbft", text)
    with pytest.raises(BinaryError, match=said):
        examine(path)
    with pytest.raises(BinaryError, match=f"passed over: .*{said}"):
        find()


def test_a_program_that_hangs(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary, "ASK_S_MAX", 0.2)
    with pytest.raises(BinaryError, match="did not tell its version"):
        examine(write(machine / "slow", "exec /bin/sleep 30"))


@pytest.mark.parametrize("version", ["", "latest", "../0.38.25", "0.38.25; rm", "v0.38.25"])
def test_a_version_is_one(version: str) -> None:
    with pytest.raises(BinaryError, match=f"looks like {VERSION}"):
        install(version)


def test_building_once(machine: Path) -> None:
    go(machine, builds("0.39.4"))
    lines: list[str] = []
    built = install("0.39.4", lines.append)
    assert built == binary.Binary(cached("0.39.4"), "0.39.4")
    assert lines[0].startswith("Building CometBFT 0.39.4 with")
    assert "compiling things" in lines
    assert install("0.39.4") == built
    assert (machine / "builds").read_text() == "build\n"
    assert sorted(path.name for path in built.path.parent.iterdir()) == [".lock", "cometbft"]


def test_two_at_once_build_once(machine: Path) -> None:
    go(machine, builds(VERSION))
    script = "from consensus.cometbft.binary import install\nprint(install(progress=print).path)"
    running = [
        subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=30)[0] for process in running]
    assert [text.splitlines()[-1] for text in said] == [str(cached(VERSION))] * 3
    assert (machine / "builds").read_text() == "build\n"
    assert any("waiting for it" in text for text in said)


def test_builds_that_fail(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BinaryError, match=r"needs Go 1.22 or newer, and there is none: .*make engine"):
        install()
    old = go(machine, "", version="go1.19.8")
    with pytest.raises(BinaryError, match=rf"that on the PATH \({old}\) is older"):
        install()
    go(machine, "echo 'dial tcp: no route to host' >&2\nexit 1")
    with pytest.raises(BinaryError, match="the last it said was:\ndial tcp: no route to host"):
        install()
    go(machine, builds("0.38.17"))
    with pytest.raises(BinaryError, match=r"it is CometBFT 0.38.17, not 0.38.25"):
        install()
    go(machine, "exec /bin/sleep 30")
    monkeypatch.setattr(binary, "INSTALL_S_MAX", 0.3)
    began = time.monotonic()
    with pytest.raises(BinaryError, match="was given up"):
        install()
    assert time.monotonic() - began < 10
    assert [path.name for path in cached(VERSION).parent.iterdir()] == [".lock"]


def test_a_lock_that_is_never_given_back(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(machine, builds(VERSION))
    monkeypatch.setattr(binary, "INSTALL_S_MAX", 0.3)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        cached(VERSION).parent.mkdir(parents=True)
        with binary._alone(cached(VERSION).parent / ".lock", print):
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    try:
        with pytest.raises(BinaryError, match="Another process holds"):
            install()
    finally:
        done.set()
        holder.join()


def test_what_a_killed_build_has_left_is_removed(machine: Path) -> None:
    go(machine, builds(VERSION))
    left = cached(VERSION).parent / ".build-abc"
    left.mkdir(parents=True)
    install()
    assert not left.exists()


def test_a_cache_that_cannot_be_written(machine: Path) -> None:
    (machine / "cache").write_text("a file")
    with pytest.raises(BinaryError, match="can't hold CometBFT: Not a directory"):
        install()


def test_the_go_of_the_extra(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = write(machine / "site" / "go" / "bin" / "go", "echo go version go1.26.1 linux/amd64")
    tool = write(machine / "site" / "go" / "pkg" / "tool" / "linux_amd64" / "compile", "exit 0")
    tool.chmod(0o644)
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(machine / "bin"))

    class File:
        parts = ("go", "bin", "go")

        def locate(self) -> Path:
            return packaged

    monkeypatch.setattr(binary.metadata, "files", lambda name: [File()])
    assert find_go() == packaged
    assert os.access(tool, os.X_OK), "an installer may lose the bit"
    newer = go(machine, "")
    assert find_go() == newer
