"""A node's own mongod, for real: it comes up, is tied to its parent, stops cleanly, says what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo import MongoClient

from bcdb.cli import mongod as own
from bcdb.cli import tied
from bcdb.cli.mongod import Mongod, MongodFailed, cache_gb, running
from bcdb.node.settings import SOCKET_PATH_BYTES_MAX, Settings, read_settings

PATIENCE_S = 30.0


def settings_of(home: Path) -> Settings:
    settings = read_settings(home, {"mongo": True}, {})
    settings.make_folders()
    return settings


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[int]:
    handle = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield handle
    os.close(handle)


def client_of(settings: Settings) -> MongoClient[dict[str, object]]:
    return MongoClient(settings.mongo_connection, serverSelectionTimeoutMS=2000)


async def kept_by(settings: Settings) -> int:
    """How many documents a test has put in."""
    with client_of(settings) as client:
        return await asyncio.to_thread(client.t.c.count_documents, {})


async def put_one(settings: Settings) -> None:
    with client_of(settings) as client:
        await asyncio.to_thread(client.t.c.insert_one, {"n": 1})


async def until(condition: object) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_it_takes_writes_on_a_private_socket_and_nothing_else(tmp_path: Path, lock: int) -> None:
    settings = settings_of(tmp_path / "home, with a comma")
    async with running(settings, lock):
        about = settings.mongo_socket_path.stat()
        assert stat.S_ISSOCK(about.st_mode)
        assert stat.S_IMODE(about.st_mode) & 0o077 == 0
        with client_of(settings) as client:
            hello = client.admin.command("hello")
            assert (hello["setName"], hello["isWritablePrimary"]) == ("bcdb", True)
            pid = client.admin.command("serverStatus")["pid"]
            asked = dict.fromkeys(own.MEMORY_PARAMETERS, 1)
            bounds = client.admin.command("getParameter", 1, **asked)
            assert {bounds[name] for name in asked} == {own.QUESTION_BYTES_MAX}
        sockets = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
        listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        assert not [row for row in listening if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]
        await put_one(settings)
    assert not Path(f"/proc/{pid}").exists()
    assert not settings.run_path.exists()
    for path in settings.mongo_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    log = (settings.mongo_path / "mongod.log").read_text()
    assert '"exitCode":0' in log, "it was stopped cleanly"


async def test_a_home_that_was_moved_and_one_that_is_too_deep(tmp_path: Path, lock: int) -> None:
    settings = settings_of(tmp_path / "home")
    async with running(settings, lock):
        await put_one(settings)
    moved = tmp_path / ("x" * SOCKET_PATH_BYTES_MAX)
    settings.home.rename(moved)
    settings = settings_of(moved)
    assert moved not in settings.mongo_socket_path.parents
    async with running(settings, lock):
        assert await kept_by(settings) == 1
    assert not settings.mongo_socket_path.parent.exists()


async def test_a_replica_set_with_another_name_of_its_member(
    tmp_path: Path, lock: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path / "home")
    with monkeypatch.context() as patched:
        elsewhere = str(settings.mongo_socket_path)
        patched.setattr(Mongod, "member", property(lambda self: elsewhere))
        async with running(settings, lock):
            await put_one(settings)
    settings.home.rename(tmp_path / "moved")
    settings = settings_of(tmp_path / "moved")
    async with running(settings, lock):
        assert await kept_by(settings) == 1


async def test_it_comes_back_after_a_kill(tmp_path: Path, lock: int) -> None:
    settings = settings_of(tmp_path / "home")
    mongod = Mongod(settings, lock)
    tasks = [
        asyncio.create_task(mongod.look_after()),
        asyncio.create_task(mongod.child.keep(lambda pid: None)),
    ]
    try:
        await asyncio.wait_for(mongod.up.wait(), PATIENCE_S)
        await put_one(settings)
        first = mongod.child.process
        assert first is not None
        mongod.child.signal(signal.SIGKILL)
        await until(lambda: mongod.child.process not in (first, None))
        with client_of(settings) as client:
            await until(lambda: client.admin.command("hello")["isWritablePrimary"])
        assert await kept_by(settings) == 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await mongod.child.stop(PATIENCE_S)


async def test_its_log_is_bounded(tmp_path: Path, lock: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "LOG_BYTES_MAX", 1000)
    monkeypatch.setattr(own, "LOOK_S", 0.05)
    settings = settings_of(tmp_path / "home")
    log = settings.mongo_path / "mongod.log"
    async with running(settings, lock):
        await until(log.with_name("mongod.log.1").exists)
        monkeypatch.setattr(own, "LOG_BYTES_MAX", 10**9)

        def begins_anew() -> bool:
            with contextlib.suppress(FileNotFoundError):  # it may be put aside once more
                return log.stat().st_size > 0
            return False

        await until(begins_anew)
        with client_of(settings) as client:
            client.admin.command("setParameter", 1, logLevel=0)
            # A restart of the log is the first line of the new one.
            await until(begins_anew)


async def test_what_can_not_start_says_why(tmp_path: Path, lock: int) -> None:
    settings = settings_of(tmp_path / "home")
    (settings.mongo_path / "WiredTiger").write_text("nonsense")
    (settings.mongo_path / "WiredTiger.wt").write_text("nonsense")
    (settings.mongo_path / "storage.bson").write_text("nonsense")
    with pytest.raises(MongodFailed) as caught:
        async with running(settings, lock):
            raise AssertionError("it can't be up")
    assert str(settings.home) in caught.value.text
    assert "It says: " in caught.value.text
    assert caught.value.text.endswith(f"See {settings.mongo_path / 'mongod.log'}.")


async def test_each_end_with_an_error_is_logged_with_its_reason(
    tmp_path: Path, lock: int, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(tmp_path / "home")
    (settings.mongo_path / "WiredTiger").write_text("nonsense")
    (settings.mongo_path / "WiredTiger.wt").write_text("nonsense")
    (settings.mongo_path / "storage.bson").write_text("nonsense")
    settings.make_folders()
    mongod = Mongod(settings, lock)
    keeping = asyncio.create_task(mongod.child.keep(lambda pid: None))
    try:
        await until(lambda: mongod.child.failures > 0)
        await asyncio.sleep(0)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await mongod.child.stop(PATIENCE_S)
    (line, *_) = [each for each in capsys.readouterr().out.splitlines() if "it is started again" in each]
    assert "It says: " in line
    assert str(settings.mongo_path / "mongod.log") in line


def test_no_mongod_is_a_sentence(tmp_path: Path, lock: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from query.errors import StoreUnavailable

    def nowhere() -> Path:
        raise StoreUnavailable("There is no `mongod` on this machine: get one")

    monkeypatch.setattr(own, "find_mongod", nowhere)
    with pytest.raises(MongodFailed, match="get one"):
        Mongod(settings_of(tmp_path / "home"), lock)


def test_the_last_error_of_a_log() -> None:
    lines = [
        {"s": "E", "msg": "first"},
        {"s": "F", "msg": "Stopping", "attr": {"error": "DBPathInUse: in use."}},
        {"s": "I", "msg": "later"},
    ]
    log = b"cut off\n" + "\n".join(map(json.dumps, lines)).encode() + b"\n[1]\n{"
    assert own._last_error(log) == "It says: Stopping: DBPathInUse: in use. "
    assert own._last_error(b"") == ""


def test_the_error_before_an_abort() -> None:
    lines = [
        {
            "s": "E",
            "id": 22435,
            "msg": "Engine",
            "attr": {"error": 2, "message": {"msg": "x.wt: no such file"}},
        },
        {"s": "E", "id": 22435, "msg": "Engine", "attr": {"error": 0, "message": {"msg": "8 pages left"}}},
        {"s": "F", "id": 23089, "msg": "Fatal assertion", "attr": {"msgid": 28559}},
        {"s": "F", "id": 23090, "msg": "\n\n***aborting after fassert() failure\n\n"},
        {"s": "F", "id": 6384300, "msg": "Writing fatal message", "attr": {"message": "Got signal: 6."}},
    ]
    log = "\n".join(map(json.dumps, lines)).encode()
    assert own._last_error(log) == "It says: Engine: x.wt: no such file. "


def test_memory_for_its_cache() -> None:
    assert own.CACHE_GB_MIN <= cache_gb() <= own.CACHE_GB_MAX


# --- the tie ----------------------------------------------------------------------------------------------

PARENT = """
import os, subprocess, sys, time
command = [sys.executable, "-m", "bcdb.cli.tied", str(os.getpid()), sys.argv[1], sys.argv[2], "60"]
child = subprocess.Popen(command)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_who_is_tied_dies_with_its_parent(tmp_path: Path) -> None:
    sleep = shutil.which("sleep")
    assert sleep is not None
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), sleep], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        command = Path(f"/proc/{pid}/cmdline")
        deadline = time.monotonic() + PATIENCE_S
        while not command.read_bytes().startswith(sleep.encode()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert Path(f"/proc/{pid}/cwd").resolve() == tmp_path.resolve()
        assert os.getpgid(pid) == pid, "a Ctrl-C in the terminal must not reach it"
        parent.kill()
    while _lives(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def test_a_tie_that_comes_too_late_or_has_nothing_to_run(tmp_path: Path) -> None:
    def run(parent: int, program: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bcdb.cli.tied", str(parent), str(tmp_path), program]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run(1, "/bin/true").returncode == tied.EXIT_NO_PARENT
    missing = run(os.getpid(), str(tmp_path / "none"))
    assert missing.returncode == tied.EXIT_NOT_EXECUTED
    assert "can't be run: No such file or directory." in missing.stderr
