"""The supervisor with processes that only pretend: endings, restarts, stops."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bcdb.cli import children, supervisor
from bcdb.cli.children import Child, fate
from bcdb.cli.supervisor import NodeEnded, Supervisor
from bcdb.node.settings import Settings, read_settings

FAKE = "tests.cli.fake_process"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "PAUSE_S_FIRST", 0.01)
    monkeypatch.setattr(children, "PAUSE_S_MAX", 0.05)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = read_settings(tmp_path, {"port": 0, "stream_port": 0, "workers": 2}, {})
    settings.make_folders()
    return settings


@pytest.fixture
def pretending(settings: Settings) -> Iterator[Supervisor]:
    """A supervisor whose children are all `fake_process`."""
    lock = os.open(settings.lock_path, os.O_RDWR | os.O_CREAT)
    made = Supervisor(settings, lock)
    for child in (made.node, made.projector, *made.workers):
        _pretend(child)
    _pretend(made.node, "--node")
    yield made
    os.close(lock)


@pytest.fixture
def with_mongod(tmp_path: Path) -> Iterator[Supervisor]:
    """A supervisor with a mongod of its own, for real; all others only pretend."""
    flags = {"port": 0, "stream_port": 0, "workers": 1, "mongo": True}
    settings = read_settings(tmp_path, flags, {})
    settings.make_folders()
    lock = os.open(settings.lock_path, os.O_RDWR | os.O_CREAT)
    made = Supervisor(settings, lock)
    for child in (made.node, made.projector, *made.workers):
        _pretend(child)
    _pretend(made.node, "--node")
    yield made
    os.close(lock)


def _pretend(child: Child, *more: str) -> None:
    command = child._command
    command[command.index("-m") + 1] = FAKE
    command.extend(more)


def _pid(child: Child) -> int:
    assert child.process is not None
    return child.process.pid


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_ready_then_stopped_by_a_signal(pretending: Supervisor) -> None:
    pids = []

    def ready(settings: Settings) -> None:
        assert settings.port
        assert settings.stream_port
        everyone = (pretending.node, pretending.projector, *pretending.workers)
        pids.extend(_pid(child) for child in everyone)
        os.kill(os.getpid(), signal.SIGTERM)

    await pretending.run(ready)
    assert len(pids) == 4
    assert not any(map(_lives, pids))
    assert not pretending.settings.socket_path.exists()


async def test_a_worker_and_the_projector_are_started_again(pretending: Supervisor) -> None:
    before: dict[str, int] = {}
    again = (pretending.workers[0], pretending.projector)

    def ready(_settings: Settings) -> None:
        for child in again:
            before[child.name] = _pid(child)
            child.signal(signal.SIGKILL)

    running = asyncio.create_task(pretending.run(ready))
    while not before or any(
        child.process is None or child.process.pid == before[child.name] for child in again
    ):
        await asyncio.sleep(0.01)
        assert not running.done()
    os.kill(os.getpid(), signal.SIGINT)
    await running


async def test_the_end_of_the_node_process_ends_everything(pretending: Supervisor) -> None:
    with pytest.raises(NodeEnded, match="SIGKILL") as caught:
        await pretending.run(lambda _settings: pretending.node.signal(signal.SIGKILL))
    assert "202" in caught.value.text
    for child in (pretending.projector, *pretending.workers):
        assert child.process is None or child.process.returncode is not None


async def test_the_killed_node_process_of_a_network_is_started_again(pretending: Supervisor) -> None:
    msgspec.structs.force_setattr(pretending.settings, "engine", "cometbft")
    first: list[int] = []

    def ready(_settings: Settings) -> None:
        first.append(_pid(pretending.node))
        pretending.node.signal(signal.SIGKILL)

    running = asyncio.create_task(pretending.run(ready))
    while not first or _told(pretending).get("node", first[0]) == first[0]:
        await asyncio.sleep(0.01)
        assert not running.done()
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert pretending.node.process is None or pretending.node.process.returncode is not None


async def test_one_that_ends_by_itself_is_not(pretending: Supervisor) -> None:
    msgspec.structs.force_setattr(pretending.settings, "engine", "cometbft")
    _pretend(pretending.node, "--fail")
    with pytest.raises(NodeEnded, match="exit code 3"):
        await pretending.run(lambda _settings: pytest.fail("it can't be ready"))


async def test_a_node_process_that_does_not_come_up(pretending: Supervisor) -> None:
    _pretend(pretending.node, "--fail")
    with pytest.raises(NodeEnded, match="exit code 3"):
        await pretending.run(lambda _settings: pytest.fail("it can't be ready"))


async def test_a_worker_that_never_comes_up(pretending: Supervisor) -> None:
    for worker in pretending.workers:
        _pretend(worker, "--fail")
    with pytest.raises(NodeEnded, match=r"worker-[01] ended \d+ times"):
        await pretending.run(lambda _settings: pytest.fail("it can't be ready"))


async def test_who_does_not_stop_is_killed(pretending: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "WORKERS_STOP_S", 0.1)
    monkeypatch.setattr(supervisor, "NODE_STOP_S", 0.1)
    _pretend(pretending.workers[0], "--deaf")
    _pretend(pretending.node, "--deaf")
    await pretending.run(lambda _settings: os.kill(os.getpid(), signal.SIGTERM))
    assert pretending.node.process is not None
    assert pretending.node.process.returncode == -signal.SIGKILL


async def test_a_second_signal_kills_at_once(pretending: Supervisor) -> None:
    _pretend(pretending.node, "--deaf")

    def ready(_settings: Settings) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)

    await pretending.run(ready)
    assert pretending.node.process is not None
    assert pretending.node.process.returncode == -signal.SIGKILL


def _told(supervisor: Supervisor) -> dict[str, int]:
    found: dict[str, int] = json.loads((supervisor.settings.run_path / "processes.json").read_bytes())
    return found


async def test_a_mongod_comes_first_and_goes_last_and_is_started_again(
    with_mongod: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bcdb.cli.mongod.LOOK_S", 0.1)
    mongod = with_mongod.mongod
    assert mongod is not None
    ready = asyncio.Event()
    running = asyncio.create_task(with_mongod.run(lambda _settings: ready.set()))
    await asyncio.wait({running, asyncio.create_task(ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
    assert mongod.up.is_set()
    first = _told(with_mongod)
    assert set(first) == {"supervisor", "node", "projector", "worker-0", "mongod"}
    mongod.child.signal(signal.SIGKILL)
    while _told(with_mongod).get("mongod", first["mongod"]) == first["mongod"]:
        await asyncio.sleep(0.01)
        assert not running.done()
    second = _told(with_mongod)["mongod"]
    assert {**_told(with_mongod), "mongod": 0} == {**first, "mongod": 0}
    while mongod._settled != second:
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert not _lives(second)
    log = (with_mongod.settings.mongo_path / "mongod.log").read_text().splitlines()
    assert '"exitCode":0' in log[-1], "it was stopped cleanly"


async def test_a_mongod_that_never_comes_up_keeps_nobody_away(
    with_mongod: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    mongod = with_mongod.mongod
    assert mongod is not None
    _pretend(mongod.child, "--fail")
    said = []
    with monkeypatch.context() as patched:
        patched.setattr(supervisor.logger, "error", lambda event, **more: said.append((event, more)))
        await with_mongod.run(lambda _settings: os.kill(os.getpid(), signal.SIGTERM))
    (event, more), *_ = said
    assert event == "the node goes on without searches"
    assert more["reason"].startswith("mongod ended 5 times. ")
    assert more["reason"].endswith(f"See {with_mongod.settings.mongo_path / 'mongod.log'}.")


def test_fate() -> None:
    assert fate(1) == "exit code 1"
    assert fate(-9) == "SIGKILL"
    assert fate(-99) == "signal 99"
