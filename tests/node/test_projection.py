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

from bcdb.node.link import NodeLink
from bcdb.node.projection import EXIT_FAILED, EXIT_STOPPED, LedgerSource, documents_of
from bcdb.node.reading import LedgerReader
from query.projector import Projector
from query.sqlite import SqliteStore
from tests.node.harness import running_node
from tests.node.test_process import NodeProcess
from tests.support.transactions import Signed, alice, bob, create, transfer

ROOT = Path(__file__).parents[2]


class ProjectionProcess:
    """One projector process beside a node process."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        reading, self._lifeline = os.pipe()
        command = [sys.executable, "-m", "bcdb.node.projection", str(node.settings.home / "settings.json")]
        with (node.settings.home / "projection.log").open("ab") as errors:
            self.child = subprocess.Popen(
                [*command, "--lifeline", str(reading)], stderr=errors, cwd=ROOT, pass_fds=(reading,)
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


def test_a_transaction_becomes_documents() -> None:
    made = create(asset={"text": "café", "n": 1e16}, metadata={"a": [1, None]})
    asset, metadata = documents_of(made.verified.id, made.raw)
    assert asset is not None
    assert asset.id == metadata.id == made.verified.id
    assert json.loads(asset.body) == made.tx["asset"]["data"]
    assert asset.body in made.raw
    assert json.loads(metadata.body) == made.tx["metadata"]
    moved = transfer([(made, 0)], [([bob.public_key], 1)])
    asset, metadata = documents_of(moved.verified.id, moved.raw)
    assert asset is None
    assert metadata.body == b"null"
    asset, _ = documents_of(made.verified.id, create().raw)
    assert asset is not None
    assert asset.body == b"null"


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
        assert [len(block.assets) for block in blocks] == [1, 1, 1, 0]
        assert [block.metadata[0].id for block in blocks] == [each.verified.id for each in [*made, moved]]
        assert await source.blocks(2, 100, 1_000_000) == blocks[2:]
        assert await source.blocks(0, 3, 1_000_000) == blocks[:2]
        assert await source.blocks(0, 100, 1) == blocks[:1]
        await source.wait(4, 30)
        await source.wait(5, 0.001)
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
