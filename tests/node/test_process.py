"""The node process as the supervisor runs it: killed, stopped, left alone, and with a disk that fails."""

import asyncio
import contextlib
import itertools
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bcdb.ledger import Ledger, trace
from bcdb.ledger.crashpoints import NAMES
from bcdb.model.errors import DuplicateTransaction, Unavailable
from bcdb.node.keyfile import read_key_file
from bcdb.node.link import NodeLink
from bcdb.node.process import EXIT_NOT_STARTED, EXIT_STOPPED, EXIT_STORAGE_FAILED
from bcdb.node.settings import Settings
from tests.support import tracefile
from tests.support.transactions import Signed, create

ROOT = Path(__file__).parents[2]
IN_FLIGHT = 64


class NodeProcess:
    """One node process on a home folder; its standard error goes to a file."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home, chain_id="process-test")
        self.settings.make_folders()
        self.settings.dump(home / "settings.json")
        self.errors = home / "errors.log"
        self.trace = home / "trace.jsonl"
        self._child: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None

    @property
    def child(self) -> subprocess.Popen[bytes]:
        assert self._child is not None
        return self._child

    def start(self, *, lifeline: bool = False, **environment: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BCDB_")}
        command = [sys.executable, "-m", "bcdb.node.process", str(self.settings.home / "settings.json")]
        passed: tuple[int, ...] = ()
        if lifeline:
            reading, self._lifeline = os.pipe()
            passed = (reading,)
            command += ["--lifeline", str(reading)]
        with self.errors.open("ab") as errors:
            self._child = subprocess.Popen(
                command, stderr=errors, cwd=ROOT, env={**inherited, **environment}, pass_fds=passed
            )
        for descriptor in passed:
            os.close(descriptor)

    def drop_lifeline(self) -> None:
        assert self._lifeline is not None
        os.close(self._lifeline)
        self._lifeline = None

    async def link(self) -> NodeLink:
        return await NodeLink.connect(self.settings.socket_path, name="test", timeout_s=30)

    async def ended(self) -> int:
        return await asyncio.to_thread(self.child.wait, 30)

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        if self._lifeline is not None:
            self.drop_lifeline()

    def said(self) -> str:
        return self.errors.read_text()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    made = NodeProcess(tmp_path)
    yield made
    made.kill()


_numbers = itertools.count()


async def load(link: NodeLink, accepted: list[Signed]) -> None:
    """Submit CREATEs until the node is gone; `accepted` gets those that were answered for."""

    async def one_after_the_other() -> None:
        with contextlib.suppress(Unavailable):
            while True:
                signed = create(asset={"number": next(_numbers)})
                await link.submit(signed.verified)
                accepted.append(signed)

    await asyncio.gather(*(one_after_the_other() for _ in range(IN_FLIGHT)))


async def enough(accepted: list[Signed], count: int) -> None:
    async with asyncio.timeout(30):
        while len(accepted) < count:
            await asyncio.sleep(0.001)


async def assert_all_commit(link: NodeLink, accepted: list[Signed]) -> None:
    settled = await asyncio.gather(*(link.settled(signed.verified.id, 30) for signed in accepted))
    assert {found.status for found in settled} <= {"committed"}
    assert len({(found.height, found.position) for found in settled}) == len(accepted)


async def test_killed_under_load_every_accepted_id_commits(node: NodeProcess) -> None:
    accepted: list[Signed] = []
    for round_number in range(3):
        node.start()
        link = await node.link()
        await assert_all_commit(link, accepted)
        loading = asyncio.create_task(load(link, accepted))
        await enough(accepted, len(accepted) + 150 + 70 * round_number)
        node.child.send_signal(signal.SIGKILL)
        assert await node.ended() == -signal.SIGKILL
        await loading
        assert not link.is_open
    node.start()
    link = await node.link()
    await assert_all_commit(link, accepted)
    with pytest.raises(DuplicateTransaction):
        await link.submit(accepted[0].verified)


@pytest.mark.parametrize("point", [name for name in NAMES if not name.startswith(("store-", "replay-"))])
async def test_killed_at_every_point_every_accepted_id_commits(node: NodeProcess, point: str) -> None:
    node.start(BCDB_CRASH_AT=f"{point}:5", BCDB_TRACE_FILE=str(node.trace))
    accepted: list[Signed] = []
    with contextlib.suppress(Unavailable):
        await load(await node.link(), accepted)
    assert await node.ended() == -signal.SIGKILL
    durable = tracefile.durable_at(tracefile.read(node.trace))
    answered = {signed.verified.id.hex() for signed in accepted}
    assert answered <= durable.keys()
    node.start()
    link = await node.link()
    await assert_all_commit(link, accepted)


async def test_no_answer_and_no_height_before_its_flush(node: NodeProcess) -> None:
    node.start(BCDB_TRACE_FILE=str(node.trace))
    link = await node.link()
    accepted: list[Signed] = []
    loading = asyncio.create_task(load(link, accepted))
    await enough(accepted, 300)
    node.child.terminate()
    await loading
    assert await node.ended() == EXIT_STOPPED
    events = tracefile.read(node.trace)
    durable = tracefile.durable_at(events)
    answers = {event.fields["id"]: event.end for event in events if event.kind == "answered"}
    assert answers.keys() >= {signed.verified.id.hex() for signed in accepted}
    assert all(durable[identity] < end for identity, end in answers.items())
    heights = [event.fields["height"] for event in events if event.kind == "published"]
    assert heights == list(range(1, len(heights) + 1))
    assert not trace.enabled, "only the node's process wrote this"


async def test_sigterm_finishes_what_was_begun(node: NodeProcess) -> None:
    node.start()
    link = await node.link()
    accepted: list[Signed] = []
    loading = asyncio.create_task(load(link, accepted))
    await enough(accepted, 200)
    node.child.terminate()
    await loading
    assert await node.ended() == EXIT_STOPPED
    assert not node.settings.socket_path.exists()
    ledger = Ledger.open(node.settings.ledger_path, chain_id="process-test")
    for signed in accepted:
        known = signed.verified.id in ledger.pending or ledger.reader.has_transaction(signed.verified.id)
        assert known
    ledger.close()


async def test_it_ends_with_its_lifeline_and_not_with_ctrl_c(node: NodeProcess) -> None:
    node.start(lifeline=True)
    link = await node.link()
    node.child.send_signal(signal.SIGINT)
    assert (await link.submit_and_wait(create(asset={"a": 1}).verified, 20)).status == "committed"
    node.drop_lifeline()
    assert await node.ended() == EXIT_STOPPED
    await link.wait_closed()


async def test_the_node_key_is_made_once(node: NodeProcess) -> None:
    node.start()
    first = (await (await node.link()).info()).node_key
    node.child.terminate()
    assert await node.ended() == EXIT_STOPPED
    assert node.settings.node_key_path.stat().st_mode & 0o777 == 0o600
    assert read_key_file(node.settings.node_key_path).public_key
    node.start()
    assert (await (await node.link()).info()).node_key == first


async def test_two_nodes_on_one_ledger(node: NodeProcess) -> None:
    node.start()
    link = await node.link()
    second = NodeProcess(node.settings.home)
    second.start()
    assert await second.ended() == EXIT_NOT_STARTED
    assert "in use" in second.said()
    assert (await link.submit_and_wait(create(asset={"a": 1}).verified, 20)).status == "committed"


async def test_another_chain_is_refused_with_a_sentence(node: NodeProcess) -> None:
    Ledger.open(node.settings.ledger_path, chain_id="somebody-elses").close()
    node.start()
    assert await node.ended() == EXIT_NOT_STARTED
    assert "somebody-elses" in node.said()


async def test_a_disk_that_fails_ends_the_node_with_a_sentence_and_loses_nothing(node: NodeProcess) -> None:
    node.start()
    link = await node.link()
    accepted: list[Signed] = []
    loading = asyncio.create_task(load(link, accepted))
    await enough(accepted, 100)
    # No file of that process may grow any more: what a full disk does, without a disk to fill.
    resource.prlimit(node.child.pid, resource.RLIMIT_FSIZE, (4096, 4096))
    assert await node.ended() == EXIT_STORAGE_FAILED
    await loading
    sentences = [line for line in node.said().splitlines() if line.startswith("bcdb node:")]
    assert len(sentences) == 1
    assert "failed" in sentences[0]
    with pytest.raises(Unavailable):
        await link.submit(create(asset={"after": 1}).verified)
    node.start()
    await assert_all_commit(await node.link(), accepted)
