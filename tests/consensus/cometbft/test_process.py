"""The child's process: what it says, how it ends, that it is never left behind; played by small programs."""

import asyncio
import contextlib
import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest

from consensus.cometbft import process as module
from consensus.cometbft.process import LINE_BYTES_MAX, CometProcess, ProcessError, readable

ROOT = Path(__file__).parents[3]


def program(folder: Path, text: str) -> Path:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("line", "level", "text"),
    [
        (
            b'{"_msg":"Started node","level":"info","module":"main","n":5,"ts":"2026"}',
            20,
            "Started node module=main n=5",
        ),
        (
            b'{"_msg":"service start","msg":"Starting Node service","level":"debug"}',
            10,
            "Starting Node service",
        ),
        (b'{"level":"error","_msg":"no","err":{"a":[1]}}', 40, 'no err={"a":[1]}'),
        (b'{"level":"new"}', 20, ""),
        (b"panic: no disk\r", 40, "panic: no disk"),
        (b"\xff\xfe", 40, "\ufffd\ufffd"),
        (b"[1]", 40, "[1]"),
    ],
)
def test_lines(line: bytes, level: int, text: str) -> None:
    assert readable(line) == (level, text)


async def test_what_it_says_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    long = f"head -c {3 * LINE_BYTES_MAX} /dev/zero | tr '\\0' x; echo"
    said = f"""echo '{{"_msg":"hello","level":"debug"}}'; echo; echo oops >&2; {long}; printf end; exit 3"""
    child = CometProcess(program(tmp_path, said), tmp_path)
    await child.start()
    assert child.pid is not None
    assert await child.wait() == 3
    assert child.pid is None
    seen = [
        (record.levelno, record.getMessage()) for record in caplog.records if record.name == module.__name__
    ]
    assert seen[:2] == [(logging.DEBUG, "hello"), (logging.ERROR, "oops")]
    assert seen[2][1] == "x" * 2_000, "only the beginning of a line that is too long"
    assert seen[3:] == [(logging.ERROR, "end")]
    assert child.last_words.startswith("oops; xxx")


async def test_an_outcry_is_kept(tmp_path: Path) -> None:
    text = "echo 'panic: the reason'; for n in 1 2 3 4 5 6 7 8 9; do echo trace $n; done; exit 2"
    child = CometProcess(program(tmp_path, text), tmp_path)
    assert child.last_words == "nothing"
    await child.start()
    await child.wait()
    assert child.last_words == "panic: the reason"


async def test_it_is_asked_to_end(tmp_path: Path) -> None:
    child = CometProcess(
        program(tmp_path, "trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done"), tmp_path
    )
    await child.start()
    while child.last_words == "nothing":
        await asyncio.sleep(0.01)
    await child.stop()
    assert await child.wait() == 0
    await child.stop()


async def test_it_is_killed_when_it_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_S_MAX", 0.2)
    child = CometProcess(
        program(tmp_path, "trap '' TERM; echo ready; while :; do sleep 0.02; done"), tmp_path
    )
    await child.start()
    while child.last_words == "nothing":
        await asyncio.sleep(0.01)
    await child.stop()
    assert await child.wait() == -9
    never = CometProcess(tmp_path / "program", tmp_path)
    await never.stop()
    never.kill()


async def test_a_home_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"can't be started in .*away: No such file"):
        await CometProcess(tmp_path / "program", tmp_path / "away").start()


async def test_what_cannot_run(tmp_path: Path) -> None:
    path = program(tmp_path, "")
    path.chmod(0o644)
    child = CometProcess(path, tmp_path)
    await child.start()
    assert await child.wait() == 126
    assert "program can't be run: Permission denied" in child.last_words


async def test_it_reads_no_variables_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMT_RPC_LADDR", "elsewhere")
    monkeypatch.setenv("BCDB_SECRET", "secret")
    child = CometProcess(program(tmp_path, "env > seen; umask >> seen"), tmp_path)
    await child.start()
    assert await child.wait() == 0
    seen = (tmp_path / "seen").read_text()
    assert "CMT" not in seen
    assert "SECRET" not in seen
    assert seen.endswith("0077\n")


STARTER = """
import asyncio, sys
from pathlib import Path
from consensus.cometbft.process import CometProcess

async def main():
    child = CometProcess(Path(sys.argv[1]), Path(sys.argv[1]).parent)
    await child.start()
    print(child.pid, flush=True)
    await child.wait()

asyncio.run(main())
"""


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    path = program(tmp_path, "trap '' TERM INT HUP; while :; do sleep 0.02; done")
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = Path("/proc", parent.stdout.readline().strip())
    deadline = time.monotonic() + 10
    # In the moment of the exec the command line is empty.
    while not any(b"/program" in part for part in (child / "cmdline").read_bytes().split(b"\0")[1:2]):
        assert time.monotonic() < deadline, "it does not begin"
        time.sleep(0.01)
    # Not in the parent's process group: a Ctrl-C is not for it.
    assert (child / "stat").read_text().rpartition(")")[2].split()[2] == child.name
    parent.kill()
    parent.wait()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it is gone
        while (child / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline, "it is left behind"
            time.sleep(0.01)


def test_a_parent_that_has_gone_already(tmp_path: Path) -> None:
    path = program(tmp_path, "echo it runs")
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(module.TIED), "1", str(path)], capture_output=True, timeout=20
    )
    assert (done.returncode, done.stdout) == (1, b"")
