"""`bcdb engine`: what a person sees of finding and building CometBFT, with programs that play `go` and it."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from bcdb.cli import engine
from consensus.cometbft import binary
from consensus.cometbft.binary import VERSION, cached, examine
from tests.cli.running import fail, json_of, run, succeed
from tests.support.cometbft import program


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty cache, and with nothing on the PATH but what the tests put into its `bin`."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("BCDB_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BCDB_COMETBFT", raising=False)
    monkeypatch.setattr(binary, "_packaged_go", lambda: None)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def comet(version: str) -> str:
    return f"echo '{json.dumps({'cometbft': version, 'abci': '2.0.0'})}'\n"


def go(machine: Path, version: str) -> Path:
    """A Go that loads two modules and compiles 250 packages, and makes a CometBFT that tells this version."""
    return write(
        machine / "bin" / "go",
        'PATH=/usr/bin:/bin\nif [ "$1" = version ]; then echo go version go1.26.1 linux/amd64; exit; fi\n'
        "echo go: downloading example.org/one v1.0.0 >&2\necho go: downloading example.org/two v2.0.0 >&2\n"
        "for i in $(seq 250); do echo example.org/one/package$i >&2; done\n"
        f'printf \'%s\\n\' \'#!/bin/sh\' "echo \'{{\\"cometbft\\":\\"{version}\\",\\"abci\\":\\"2.0.0\\"}}\'"'
        " > $GOBIN/cometbft\nchmod 755 $GOBIN/cometbft\n",
    )


def test_a_build_is_told_in_few_lines(machine: Path) -> None:
    program_of_go = go(machine, VERSION)
    done = run("engine", "install")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"CometBFT {VERSION} is built: {cached(VERSION)}\n"
    *lines, last = done.stderr.splitlines()
    assert lines == [
        f"Building CometBFT {VERSION} with {program_of_go}; this takes a minute or two",
        "downloading example.org/one v1.0.0",
        "downloading example.org/two v2.0.0",
        "compiled 100 packages",
        "compiled 200 packages",
    ]
    assert last.startswith("Compiled 250 packages in ")
    again = run("engine", "install")
    assert again.stdout == f"CometBFT {VERSION} is there already: {cached(VERSION)}\n"
    assert again.stderr == ""


def test_a_build_as_json(machine: Path) -> None:
    go(machine, VERSION)
    told = {"path": str(cached(VERSION)), "version": VERSION, "qualified": True}
    assert json_of("engine", "install") == {**told, "built": True}
    assert json_of("engine", "install") == {**told, "built": False}
    assert json_of("engine", "show") == {**told, "from": "cache"}


def test_on_a_terminal_one_line_changes(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=40, soft_wrap=True, highlight=False)
    monkeypatch.setattr(engine, "notes", terminal)
    go(machine, VERSION)
    assert run("engine", "install").exit_code == 0
    shown = screen.getvalue()
    assert "compiled 100 packages" not in shown
    assert shown.count("\n") <= 2, "nothing of it stays"


def test_versions_that_were_not_tested(machine: Path) -> None:
    go(machine, "0.38.7")
    done = run("engine", "install", "--version", "0.38.7")
    assert done.exit_code == 0, done.output
    first, *_, last = done.stderr.splitlines()
    assert first == (
        f"Warning: CometBFT 0.38.7 is not qualified: bcdb's tests have passed with {VERSION} and 0.39.4."
    )
    assert last == "Nodes use it if their setting `cometbft` (or BCDB_COMETBFT) names it."
    write(machine / "bin" / "cometbft", comet(VERSION))
    again = run("engine", "install", "--version", "0.38.7")
    assert f"Nodes use CometBFT {VERSION} at {machine / 'bin' / 'cometbft'}, unless" in again.stderr


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (
            VERSION,
            r"needs Go 1.22 or newer, and there is none: install Go, or bcdb with its extra `engine`",
        ),
        ("1.0.1", "CometBFT 1.0.1 can't be used; 0.38.x or 0.39.x with ABCI 2.0.0 is needed."),
        ("latest", f"A version of CometBFT looks like {VERSION}, not 'latest'."),
    ],
)
def test_what_cannot_be_built(version: str, said: str) -> None:
    done = run("engine", "install", "--version", version)
    assert done.exit_code == 1
    assert done.stdout == ""
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(done.stderr.splitlines()[-1])


def test_a_build_that_fails_ends_with_what_go_said(machine: Path) -> None:
    write(
        machine / "bin" / "go",
        'if [ "$1" = version ]; then echo go version go1.26.1 linux/amd64; exit; fi\n'
        "echo 'dial tcp: no route to host' >&2\nexit 1\n",
    )
    done = run("engine", "install")
    assert done.exit_code == 1
    assert done.stderr.endswith("the last it said was:\ndial tcp: no route to host\n")


def test_one_in_the_cache_that_cannot_be_used_is_not_built_over(machine: Path) -> None:
    write(cached(VERSION), "exit 3")
    text = fail("engine", "install")
    assert f"{cached(VERSION)} is no CometBFT" in text
    assert f"remove {cached(VERSION)}, and it is built again." in text


def test_which_one_is_used(machine: Path) -> None:
    assert fail("engine", "show").startswith(
        "Error: There is no CometBFT on this machine: run `bcdb engine install`"
    )
    kept = write(cached(VERSION), comet(VERSION))
    assert succeed("engine", "show").splitlines() == [
        f"CometBFT {VERSION}",
        f"  path       {kept}",
        "  from       the cache that `bcdb engine install` fills",
        f"  qualified  yes: bcdb's tests have passed with {VERSION} and 0.39.4",
    ]
    on_path = write(machine / "bin" / "cometbft", comet("0.38.7"))
    told = {"path": str(on_path), "version": "0.38.7", "qualified": False, "from": "PATH"}
    assert json_of("engine", "show") == told
    assert "  qualified  no: bcdb's tests" in succeed("engine", "show")


def test_which_one_the_settings_name(machine: Path) -> None:
    write(cached(VERSION), comet(VERSION))
    named = write(machine / "home" / "own", comet("0.39.4"))
    config = machine / "home" / "config.toml"
    config.write_text('cometbft = "own"\n')
    told = {"path": str(named), "version": "0.39.4", "qualified": True}
    assert json_of("engine", "show", "--home", machine / "home") == {**told, "from": str(config)}
    shown = succeed("engine", "show", "--home", machine, environment={"BCDB_COMETBFT": str(named)})
    assert "  from       the setting `cometbft` in BCDB_COMETBFT" in shown
    config.write_text('cometbft = "missing"\n')
    assert "missing can't be run: No such file" in fail("engine", "show")


def test_the_real_one(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    real = program()
    shown = json_of("engine", "show", "--home", machine)
    assert examine(Path(shown["path"])).version == shown["version"]
    environment = {"BCDB_COMETBFT": str(real)}
    shown = succeed("engine", "show", "--home", machine, environment=environment)
    assert f"  path       {real}\n" in shown
    assert "  qualified  yes" in shown
