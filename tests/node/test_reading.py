"""A worker's reads: never behind what is published, never ahead of it."""

import asyncio
import threading
from pathlib import Path

import pytest

from bcdb.ledger import Head
from bcdb.model.errors import Unavailable
from bcdb.node.link import NodeLink
from bcdb.node.published import PublishedHeight
from bcdb.node.reading import LedgerReader
from tests.node.harness import Node, running_node
from tests.support.transactions import create


def open_reader(node: Node, link: NodeLink) -> LedgerReader:
    return LedgerReader.open(node.folder / "ledger", node.folder / "reader", link)


async def test_a_read_sees_what_was_committed_before_it(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link()
        reader = open_reader(node, link)
        for number in range(20):
            asset = create(asset={"n": number})
            settled = await link.submit_and_wait(asset.verified, 20)
            view = await reader.ready()
            stored = view.transaction(asset.verified.id)
            assert stored is not None
            assert (stored.height, stored.body) == (settled.height, asset.raw)
        reader.close()


async def test_an_unpublished_height_is_never_shown(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link()
        reader = open_reader(node, link)
        first = create(asset={"n": 0})
        await link.submit_and_wait(first.verified, 20)
        await reader.ready()
        written = asyncio.Event()
        commit_block = node.ledger.commit

        def commit(outcome: object) -> int:
            node.ledger.shut()
            mark = commit_block(outcome)  # type: ignore[arg-type]
            written.set()
            return mark

        node.ledger.commit = commit  # type: ignore[method-assign]
        second = create(asset={"n": 1})
        await link.submit(second.verified)
        await asyncio.wait_for(written.wait(), 20)
        # Nothing moves a view that is at the published height, though the files have more.
        view = await reader.ready()
        assert view.head.height == 1
        assert view.transaction(second.verified.id) is None
        # And a view that has moved beyond it is given to nobody until that height is published.
        view.catch_up()
        assert view.head.height == 2
        reading = asyncio.ensure_future(reader.ready())
        done, _ = await asyncio.wait([reading], timeout=0.2)
        assert not done
        node.ledger.gate.set()
        assert (await reading).head.height == 2
        assert link.head.height == 2
        reader.close()


async def test_reads_under_load_are_at_published_heights(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link()
        reader = open_reader(node, link)
        assets = [create(asset={"n": number}) for number in range(50)]
        stop = threading.Event()
        slow = node.ledger.flush

        def flush() -> int:
            stop.wait(0.002)
            return slow()

        node.ledger.flush = flush  # type: ignore[method-assign]

        async def read() -> int:
            reads = 0
            while link.head.log_size < len(assets):
                published = link.head.height
                view = await reader.ready()
                assert published <= view.head.height <= link.head.height
                reads += 1
                await asyncio.sleep(0)
            return reads

        async def write() -> None:
            for asset in assets:
                await link.submit(asset.verified)

        async with asyncio.timeout(30):
            _, *reads = await asyncio.gather(write(), read(), read())
        assert min(reads) > 1
        reader.close()


class Gone:
    """Publications of a node that goes away."""

    head = Head(3, 0, b"", b"", 0)

    async def newest(self) -> Head:
        return self.head

    async def wait_height(self, height: int, timeout_s: float | None = None) -> Head:
        raise Unavailable("gone")


async def test_a_view_ahead_of_a_node_that_went_away_is_unavailable() -> None:
    class Ahead:
        head = Head(4, 0, b"", b"", 0)

    reader = LedgerReader(Ahead(), Gone())  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        await reader.ready()


def test_the_published_height_is_shared(tmp_path: Path) -> None:
    written = PublishedHeight(tmp_path / "node.height", writes=True)
    read = PublishedHeight(tmp_path / "node.height", writes=False)
    for height in (0, 1, 2**40):
        written.value = height
        assert read.value == height
    assert (tmp_path / "node.height").stat().st_mode & 0o777 == 0o600
