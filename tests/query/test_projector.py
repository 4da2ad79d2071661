"""The projector: no block left out and none taken twice, whatever happens to it, its store or its source."""

import asyncio
import contextlib
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from query import projector
from query.projector import Progress, Projector
from query.sqlite import SqliteStore, files
from query.store import Block, ProjectionGap, StoreUnavailable
from tests.query.documents import block, chain, mark_of

ROOT = Path(__file__).parents[2]


class ChainSource:
    """Blocks of a chain that a test makes longer. `asked` are the heights that were asked for."""

    def __init__(self, blocks: Sequence[Block] = (), name: str = "chain") -> None:
        self.chain = list(blocks)
        self.name = name
        self.asked: list[int] = []
        self.failure: Exception | None = None
        self._grown = asyncio.Event()

    def grow(self, count: int) -> None:
        self.chain += chain(count, start=len(self.chain) + 1)
        self._grown.set()

    async def mark(self, height: int) -> bytes | None:
        return mark_of(height, self.name) if height <= len(self.chain) else None

    async def blocks(self, after: int, documents_max: int, bytes_max: int) -> Sequence[Block]:
        self.asked.append(after)
        if self.failure is not None:
            raise self.failure
        return self.chain[after : after + max(1, documents_max // 4)]

    async def wait(self, height: int, timeout_s: float) -> None:
        self._grown.clear()
        if len(self.chain) < height:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._grown.wait(), timeout_s)


@contextlib.asynccontextmanager
async def projecting(
    source: ChainSource, store: SqliteStore, seen: list[Progress] | None = None
) -> AsyncIterator[None]:
    task = asyncio.create_task(
        Projector(source, store, on_progress=(seen if seen is not None else []).append).run()
    )
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "query.sqlite")
    yield opened
    await opened.close()


async def assert_holds(store: SqliteStore, height: int) -> None:
    """Exactly the blocks up to `height` can be found."""
    found = await store.search_assets("common", 10_000)
    assert sorted(item.id for item in found) == sorted(
        document.id.hex() for made in chain(height) for document in made.assets
    )
    assert len(await store.search_metadata("remark", 10_000)) == 2 * height


async def test_it_follows_new_blocks_at_once(store: SqliteStore) -> None:
    source, seen = ChainSource(chain(50)), list[Progress]()
    async with projecting(source, store, seen):
        assert await store.wait_height(50, 30) == 50
        for height in range(51, 60):
            source.grow(1)
            assert await store.wait_height(height, 30) == height
        while seen[-1].height < 59:  # the height is there a moment before the progress is told
            await asyncio.sleep(0.01)
    await assert_holds(store, 59)
    assert sum(progress.documents for progress in seen) == 4 * 59
    assert seen[-1].height == 59


async def test_it_goes_on_where_the_store_is(store: SqliteStore) -> None:
    await store.project(chain(7))
    source = ChainSource(chain(9))
    async with projecting(source, store):
        assert await store.wait_height(9, 30) == 9
    assert min(source.asked) == 7
    await assert_holds(store, 9)


@pytest.mark.parametrize("blocks", [3, 20])
async def test_a_store_of_another_ledger_is_rebuilt(store: SqliteStore, blocks: int) -> None:
    """Another chain at that height, or a ledger that was set back to before it."""
    await store.project([block(height, {height: "stranger"}) for height in range(1, 10)])
    source = ChainSource(chain(blocks), name="chain" if blocks < 9 else "other")
    async with projecting(source, store):
        while await store.search_assets("stranger", 10) or await store.height() < blocks:
            await asyncio.sleep(0.005)
    await assert_holds(store, blocks)


async def test_a_damaged_or_deleted_store_is_rebuilt_while_it_runs(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "RETRY_S_MAX", 0.01)
    path = tmp_path / "query.sqlite"
    source = ChainSource(chain(5))
    async with projecting(source, store):
        assert await store.wait_height(5, 30) == 5
        files.rebuild_request(path).touch()
        source.grow(1)
        while files.rebuild_request(path).exists():
            await asyncio.sleep(0.005)
        assert await store.wait_height(6, 30) == 6
        before = files.identity(path)
        path.unlink()
        source.grow(1)
        while files.identity(path) in (None, before):
            await asyncio.sleep(0.005)
        assert await store.wait_height(7, 30) == 7
    await assert_holds(store, 7)


async def test_trouble_with_the_store_passes(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "RETRY_S_MIN", 0.001)
    troubles: list[Exception] = [
        StoreUnavailable("disk full"),
        ProjectionGap("gap"),
        StoreUnavailable("still"),
    ]
    project = store.project

    async def troubled(blocks: Sequence[Block]) -> int:
        if troubles:
            raise troubles.pop()
        return await project(blocks)

    monkeypatch.setattr(store, "project", troubled)
    async with projecting(ChainSource(chain(4)), store):
        assert await store.wait_height(4, 30) == 4
    assert not troubles
    await assert_holds(store, 4)


async def test_the_end_of_the_source_is_the_end(store: SqliteStore) -> None:
    source = ChainSource(chain(2))
    source.failure = ConnectionError("the node is gone")
    with pytest.raises(ConnectionError):
        await Projector(source, store).run()


async def test_batches_fit_the_time_they_take(store: SqliteStore) -> None:
    sized = Projector(ChainSource(), store)
    sized._adapt(1_000, 2.0)
    assert sized._batch_documents == projector.BATCH_DOCUMENTS_MIN
    for _ in range(20):
        sized._adapt(sized._batch_documents, 0.01)
    assert sized._batch_documents == projector.BATCH_DOCUMENTS_MAX
    sized._adapt(10, 0.001)
    assert sized._batch_documents == projector.BATCH_DOCUMENTS_MAX
    sized._adapt(10_000, 0.4)
    assert sized._batch_documents == 5_000


CHILD = """
import asyncio, sys
from pathlib import Path
from query.sqlite import SqliteStore
from query.projector import Projector
from tests.query.documents import chain
from tests.query.test_projector import ChainSource

async def main():
    source = ChainSource(chain(int(sys.argv[2])))
    print("begun", flush=True)
    store = SqliteStore.open(Path(sys.argv[1]))
    await Projector(source, store).run()

asyncio.run(main())
"""


async def test_killed_at_any_point_it_goes_on_without_gap_or_double(tmp_path: Path) -> None:
    path = tmp_path / "query.sqlite"
    blocks = 1_500
    chance = random.Random(1)
    reader = SqliteStore.open_reader(path)
    height = kills = 0
    while height < blocks:
        command = [sys.executable, "-c", CHILD, str(path), str(blocks)]
        child = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert child.stdout is not None
        await asyncio.to_thread(child.stdout.readline)
        if kills < 8:
            await asyncio.sleep(chance.uniform(0.0, 0.12))
            kills += 1
        else:
            await reader.wait_height(blocks, 60)
        child.kill()
        child.wait()
        child.stdout.close()
        with contextlib.suppress(StoreUnavailable):
            height = await reader.height()
            await assert_holds(reader, height)
    assert kills
    await reader.close()
