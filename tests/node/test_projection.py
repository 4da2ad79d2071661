"""The projector process on a real node: it follows, goes on after a kill, and ends when it should."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from bcdb.model.errors import Unavailable
from bcdb.node import projection as process
from bcdb.node.blocks import open_still
from bcdb.node.link import NodeLink
from bcdb.node.projection import EXIT_FAILED, EXIT_STOPPED, LedgerSource
from bcdb.node.reading import LedgerReader
from bcdb.node.settings import Settings
from query.checking import check
from query.projector import Projector
from query.sqlite import SqliteStore
from query.store import QueryStore, StoreUnavailable
from tests.node.harness import running_node
from tests.node.test_process import NodeProcess
from tests.query.memory import MemoryStore
from tests.support.transactions import Signed, alice, create, transfer

ROOT = Path(__file__).parents[2]
SHARED_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


class ProjectionProcess:
    """One projector process beside a node process."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        reading, self._lifeline = os.pipe()
        command = [sys.executable, "-m", "bcdb.node.projection", str(node.settings.home / "settings.json")]
        with (node.settings.home / "projection.log").open("ab") as errors:
            self.child = subprocess.Popen(
                [*command, "--lifeline", str(reading)],
                stderr=errors,
                cwd=ROOT,
                pass_fds=(reading,),
                env={**os.environ, SHARED_FOLDER_VARIABLE: str(node.settings.metrics_path)},
            )
        os.close(reading)

    def drop_lifeline(self) -> None:
        os.close(self._lifeline)
        self._lifeline = -1

    async def ended(self) -> int:
        code = await asyncio.to_thread(self.child.wait, 30)
        if self._lifeline >= 0:
            self.drop_lifeline()
        return code

    def said(self) -> str:
        return (self._node.settings.home / "projection.log").read_text()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[NodeProcess]:
    made = NodeProcess(tmp_path)
    made.start()
    yield made
    made.kill()


def numbered(number: int) -> Signed:
    return create(asset={"text": f"thing number{number}"}, metadata={"note": "remark"})


async def commit(link: NodeLink, transactions: list[Signed]) -> int:
    """Submit all; the height at which the last one is committed."""
    settled = await asyncio.gather(*(link.submit_and_wait(signed.verified, 30) for signed in transactions))
    assert {found.status for found in settled} == {"committed"}
    return max(found.height for found in settled)


async def test_the_ledger_is_a_source_of_blocks(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link("projector")
        ledger = LedgerReader.open(tmp_path / "ledger", tmp_path / "scratch", link)
        source = LedgerSource(ledger, link)
        assert await source.blocks(0, 100, 1_000_000) == []
        assert await source.mark(1) is None
        made = [numbered(number) for number in range(3)]
        for signed in made:
            await commit(link, [signed])
        moved = transfer([(made[0], 0)], [([alice.public_key], 1)], metadata={"moved": "onwards"})
        assert await commit(link, [moved]) == 4
        blocks = await source.blocks(0, 100, 1_000_000)
        assert [block.height for block in blocks] == [1, 2, 3, 4]
        assert [block.mark for block in blocks] == [await source.mark(height) for height in range(1, 5)]
        assert [block.documents for block in blocks] == [5, 5, 5, 4]
        assert [block.transactions[0].id for block in blocks] == [each.verified.id for each in [*made, moved]]
        assert await source.blocks(2, 100, 1_000_000) == blocks[2:]
        assert await source.blocks(0, 6, 1_000_000) == blocks[:2]
        assert await source.blocks(0, 100, 1) == blocks[:1]
        assert await source.head() == 4
        await source.wait(4, 30)
        await source.wait(5, 0.001)
        link.close()
        await link.wait_closed()
        with pytest.raises(Unavailable):
            await source.head()
        ledger.close()


async def test_a_commit_can_be_searched_for(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link("projector")
        ledger = LedgerReader.open(tmp_path / "ledger", tmp_path / "scratch", link)
        store = SqliteStore.open(tmp_path / "query.sqlite")
        projecting = asyncio.create_task(Projector(LedgerSource(ledger, link), store).run())
        for number in range(20):
            height = await commit(link, [signed := numbered(number)])
            assert await store.wait_height(height, 30) >= height
            (found,) = await store.search_assets(f"number{number}", 10)
            assert json.loads(found.document) == {"data": signed.tx["asset"]["data"], "id": signed.tx["id"]}
        projecting.cancel()
        await asyncio.wait([projecting])
        await store.close()
        ledger.close()


async def test_killed_and_started_again_it_goes_on(node: NodeProcess) -> None:
    link = await node.link()
    reader = SqliteStore.open_reader(node.settings.store_path)
    for round_number in range(4):
        projection = ProjectionProcess(node)
        first = round_number * 60
        height = await commit(link, [numbered(number) for number in range(first, first + 30)])
        assert await reader.wait_height(height, 30) >= height
        await commit(link, [numbered(number) for number in range(first + 30, first + 60)])
        projection.child.kill()
        assert await projection.ended() == -signal.SIGKILL
    projection = ProjectionProcess(node)
    # One more, so that there is something to wait for: then the process is past its start.
    height = await commit(link, [numbered(240)])
    assert await reader.wait_height(height, 30) == height
    assert len(await reader.search_assets("thing", 1000)) == 241
    assert len(await reader.search_metadata("remark", 1000)) == 241
    projection.child.terminate()
    assert await projection.ended() == EXIT_STOPPED
    await reader.close()
    link.close()


def counted(node: NodeProcess) -> dict[str, float]:
    """What all projectors of this node have counted, as the API workers tell it."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(node.settings.metrics_path))
    return {sample.name: sample.value for metric in registry.collect() for sample in metric.samples}


async def test_it_counts_and_rebuilds_when_asked(node: NodeProcess) -> None:
    link = await node.link()
    reader = SqliteStore.open_reader(node.settings.store_path)
    height = await commit(link, [numbered(number) for number in range(30)])
    projection = ProjectionProcess(node)
    assert await reader.wait_height(height, 30) == height
    node.settings.rebuild_request_path.touch()
    async with asyncio.timeout(30):
        while node.settings.rebuild_request_path.exists():
            await asyncio.sleep(0.01)
    assert await reader.wait_height(height, 30) == height
    assert len(await reader.search_assets("thing", 1000)) == 30
    async with asyncio.timeout(30):
        while (figures := counted(node)).get("bcdb_projected_transactions_total", 0) < 60:
            await asyncio.sleep(0.01)  # a batch is in the store a moment before it is counted
    projection.child.terminate()
    assert await projection.ended() == EXIT_STOPPED
    assert "it was asked for" in projection.said()
    assert figures["bcdb_projected_transactions_total"] == 60
    assert figures["bcdb_projected_documents_total"] == 2 * (4 * 30 + height)
    # The first was for the empty store of a ledger with blocks.
    assert figures["bcdb_projection_rebuilds_total"] == 2
    assert 2 <= figures["bcdb_projection_batches_total"] <= 2 * height
    assert figures["bcdb_projection_store_seconds_total"] > 0
    await reader.close()
    link.close()


async def test_what_the_process_wrote_is_what_the_ledger_says(node: NodeProcess) -> None:
    link = await node.link()
    made = [numbered(number) for number in range(40)]
    await commit(link, made)
    projection = ProjectionProcess(node)
    moved = [transfer([(each, 0)], [([alice.public_key], 1)]) for each in made[:20]]
    height = await commit(link, moved)
    reader = SqliteStore.open_reader(node.settings.store_path)
    assert await reader.wait_height(height, 30) == height
    await commit(link, [transfer([(each, 0)], [([alice.public_key], 1)]) for each in moved])
    projection.child.kill()
    await projection.ended()
    node.kill()
    with open_still(node.settings.ledger_path) as ledger:
        assert [found async for found in check(ledger, reader, lambda what, done, total: None)] == []
    await reader.close()


async def test_it_waits_for_a_store_that_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "RETRY_S_MAX", 0.01)
    settings = Settings(home=tmp_path)
    asked = 0

    async def late(settings: Settings) -> QueryStore:
        nonlocal asked
        asked += 1
        if asked < 4:
            raise StoreUnavailable("no database answers")
        return MemoryStore()

    monkeypatch.setattr(process, "open_store", late)
    async with running_node(tmp_path) as node:
        link = await node.link("projector")
        assert isinstance(await process._opened(settings, link), MemoryStore)
        assert asked == 4
        asked = -1_000_000
        opening = asyncio.create_task(process._opened(settings, link))
        await asyncio.sleep(0.05)
        link.close()
        with pytest.raises(Unavailable):
            await opening


async def test_it_ends_with_its_supervisor(node: NodeProcess) -> None:
    link = await node.link()
    reader = SqliteStore.open_reader(node.settings.store_path)
    projection = ProjectionProcess(node)
    assert await reader.wait_height(await commit(link, [numbered(1)]), 30) == 1
    projection.drop_lifeline()
    assert await projection.ended() == EXIT_STOPPED
    await reader.close()
    link.close()


async def test_it_ends_with_a_sentence_when_the_node_is_gone(node: NodeProcess) -> None:
    link = await node.link()
    reader = SqliteStore.open_reader(node.settings.store_path)
    projection = ProjectionProcess(node)
    assert await reader.wait_height(await commit(link, [numbered(1)]), 30) == 1
    node.child.kill()
    assert await projection.ended() == EXIT_FAILED
    assert "projector ends" in projection.said()
    assert "Traceback" not in projection.said()
    await reader.close()


async def test_a_broken_store_is_rebuilt_with_a_log_line(node: NodeProcess) -> None:
    link = await node.link()
    reader = SqliteStore.open_reader(node.settings.store_path)
    height = await commit(link, [numbered(number) for number in range(10)])
    node.settings.store_path.write_bytes(b"no database " * 1000)
    projection = ProjectionProcess(node)
    assert await reader.wait_height(height, 30) == height
    assert len(await reader.search_assets("thing", 100)) == 10
    assert "rebuilt from height 0" in projection.said()
    projection.child.terminate()
    assert await projection.ended() == EXIT_STOPPED
    await reader.close()
    link.close()


async def test_settings_that_cannot_be_read_are_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bcdb.node.projection", str(tmp_path / "none.json")]
    ended = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, timeout=30)
    assert ended.returncode == EXIT_FAILED
    assert ended.stderr.count(b"\n") == 1
    assert b"none.json" in ended.stderr
