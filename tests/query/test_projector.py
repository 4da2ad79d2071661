"""The projector: no block left out and none taken twice, whatever happens to it, its store or its source."""

import asyncio
import contextlib
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from query import projector
from query.checking import check
from query.documents import Block
from query.projector import Progress, Projector
from query.sqlite import SqliteStore, files
from query.store import Checkpoint, ProjectionGap, QueryStore, StoreDamaged, StoreUnavailable
from tests.query.documents import block, chain, mark_of
from tests.query.memory import MemoryLedger, MemoryStore

ROOT = Path(__file__).parents[2]
DOCUMENTS_EACH = chain(1)[0].documents


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

    async def head(self) -> int:
        return len(self.chain)

    async def mark(self, height: int) -> bytes | None:
        return mark_of(height, self.name) if height <= len(self.chain) else None

    async def blocks(self, after: int, documents_max: int, bytes_max: int) -> Sequence[Block]:
        self.asked.append(after)
        if self.failure is not None:
            raise self.failure
        return self.chain[after : after + max(1, documents_max // DOCUMENTS_EACH)]

    async def wait(self, height: int, timeout_s: float) -> None:
        self._grown.clear()
        if len(self.chain) < height:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._grown.wait(), timeout_s)


@contextlib.asynccontextmanager
async def projecting(
    source: ChainSource, store: QueryStore, seen: list[Progress] | None = None, **options: Any
) -> AsyncIterator[None]:
    task = asyncio.create_task(
        Projector(source, store, on_progress=(seen if seen is not None else []).append, **options).run()
    )
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(happens: Callable[[], bool]) -> None:
    """Return once it is so; a test that waits in vain fails after half a minute."""
    async with asyncio.timeout(30):
        while not happens():
            await asyncio.sleep(0.002)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "query.sqlite")
    yield opened
    await opened.close()


async def assert_holds(store: SqliteStore, height: int) -> None:
    """Exactly the blocks up to `height` can be found."""
    found = await store.search_assets("common", 10_000)
    assert sorted(item.id for item in found) == sorted(
        transaction.id.hex() for made in chain(height) for transaction in made.transactions
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
    assert sum(progress.documents for progress in seen) == DOCUMENTS_EACH * 59
    assert sum(progress.transactions for progress in seen) == 2 * 59
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
    rebuilds: list[str] = []
    async with projecting(source, store, on_rebuild=rebuilds.append):
        await until(lambda: bool(rebuilds))
        assert await store.wait_height(blocks, 30) == blocks
    await assert_holds(store, blocks)
    assert await store.search_assets("stranger", 10) == []
    assert rebuilds == [
        "The query store is at block 9, which the ledger does not have"
        if blocks < 9
        else "The query store is at block 9 of another ledger; if another node writes to it too, give each"
        " node a database of its own"
    ]


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


async def test_trouble_with_the_store_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "RETRY_S_MIN", 0.001)
    store = MemoryStore()
    store.troubles = [StoreUnavailable("disk full"), ProjectionGap("gap"), StoreUnavailable("still")]
    told: list[str] = []
    async with projecting(ChainSource(chain(4)), store, on_trouble=told.append):
        await until(lambda: store.at.height == 4)
    assert told == ["still", "gap", "disk full"]
    assert [stored.document["height"] for stored in store.kept["blocks"]] == [1, 2, 3, 4]


async def test_the_end_of_the_source_is_the_end(store: SqliteStore) -> None:
    source = ChainSource(chain(2))
    source.failure = ConnectionError("the node is gone")
    with pytest.raises(ConnectionError):
        await Projector(source, store).run()


async def test_the_end_of_the_source_is_the_end_also_while_the_store_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(projector, "RETRY_S_MAX", 0.01)
    source, store = ChainSource(chain(2)), HeldStore()
    running = asyncio.create_task(Projector(source, store).run())
    await until(lambda: bool(store.batches))
    source.failure = ConnectionError("the node is gone")
    store.troubles = [StoreUnavailable("away")]
    store.gate.set()
    with pytest.raises(ConnectionError):
        await running


def test_batches_fit_the_time_they_take() -> None:
    sized = Projector(ChainSource(), MemoryStore())
    sized._adapt(1_000, 100.0)
    assert sized._batch_documents == projector.BATCH_DOCUMENTS_MIN
    for _ in range(20):
        sized._adapt(sized._batch_documents, 0.01)
    assert sized._batch_documents == projector.BATCH_DOCUMENTS_MAX
    sized._adapt(10, 0.001)
    assert sized._batch_documents == projector.BATCH_DOCUMENTS_MAX
    sized._adapt(10_000, 0.4)
    assert sized._batch_documents == 5_000


# --- reading ahead ----------------------------------------------------------------------------------------


class HeldStore(MemoryStore):
    """A store that takes its time: `project` returns when `gate` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def project(self, blocks: Sequence[Block]) -> int:
        self.batches.append([block.height for block in blocks])
        await self.gate.wait()
        self.batches.pop()
        return await super().project(blocks)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten blocks of the chain a batch."""
    for name in ("FIRST", "MIN", "MAX"):
        monkeypatch.setattr(projector, f"BATCH_DOCUMENTS_{name}", 10 * DOCUMENTS_EACH)


@pytest.mark.usefixtures("small_batches")
async def test_the_next_blocks_are_read_while_the_store_works() -> None:
    source, store = ChainSource(chain(35)), HeldStore()
    async with projecting(source, store):
        await until(lambda: len(source.asked) == 2)
        assert source.asked == [0, 10]
        assert store.at.height == 0
        store.gate.set()
        await until(lambda: store.at.height == 35)
    assert [len(batch) for batch in store.batches] == [10, 10, 10, 5]
    assert source.asked[:4] == [0, 10, 20, 30]


@pytest.mark.usefixtures("small_batches")
async def test_few_blocks_read_ahead_are_joined_by_those_that_came_since() -> None:
    source, store = ChainSource(chain(1)), HeldStore()
    async with projecting(source, store):
        await until(lambda: len(source.asked) == 2)  # nothing was there to be read ahead
        source.grow(3)
        store.gate.set()
        await until(lambda: store.at.height == 4)
        store.gate.clear()
        source.grow(1)
        await until(lambda: bool(store.batches) and store.batches[-1] == [5])
        source.grow(2)
        store.gate.set()
        await until(lambda: store.at.height == 7)
    assert [height for batch in store.batches for height in batch] == [1, 2, 3, 4, 5, 6, 7]
    assert len(store.batches) == 4


@pytest.mark.usefixtures("small_batches")
async def test_what_was_read_ahead_is_not_used_after_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "RETRY_S_MIN", 0.001)
    source, store = ChainSource(chain(25)), MemoryStore()
    store.troubles = [StoreUnavailable("away")]
    async with projecting(source, store):
        await until(lambda: store.at.height == 25)
    assert [batch[0] for batch in store.batches] == [1, 1, 11, 21]


# --- building and rebuilding ------------------------------------------------------------------------------


async def test_an_empty_store_answers_nothing_until_it_has_the_ledger_of_the_start() -> None:
    source, store = ChainSource(chain(30)), HeldStore()
    async with projecting(source, store):
        await until(lambda: bool(store.batches))
        source.grow(5)
        assert store.rebuilds == [("it is empty, and the ledger has 30 blocks", 30)]
        with pytest.raises(StoreUnavailable):
            await store.height()
        store.gate.set()
        await until(lambda: store.at.height == 35)
        assert await store.height() == 35
    assert len(store.rebuilds) == 1


async def test_a_build_that_was_cut_short_goes_on() -> None:
    source, store = ChainSource(chain(9)), MemoryStore()
    store.at = Checkpoint(0, b"", 9)
    await store.project(chain(4))
    async with projecting(source, store):
        await until(lambda: store.at.height == 9)
    assert store.rebuilds == []
    assert store.batches[0] == [1, 2, 3, 4]
    assert store.batches[1][0] == 5


async def test_a_new_ledger_needs_no_building() -> None:
    source, store = ChainSource(), MemoryStore()
    async with projecting(source, store):
        await asyncio.sleep(0.01)
        source.grow(2)
        await until(lambda: store.at.height == 2)
    assert store.rebuilds == []


@pytest.mark.parametrize("at", [Checkpoint(0, b""), Checkpoint(0, b"", 3)])
async def test_documents_without_a_checkpoint_are_not_trusted(at: Checkpoint) -> None:
    """They may be what is left of the first batch of another ledger."""
    source, store = ChainSource(chain(3)), MemoryStore()
    store.write(block(1, {7: "stranger"}))
    store.at = at
    async with projecting(source, store):
        await until(lambda: store.at.height == 3)
    assert [target for _, target in store.rebuilds] == [3]
    assert "stranger" not in str(store.kept)


@pytest.mark.parametrize("height", [0, 4])
async def test_a_store_that_waits_for_blocks_which_never_come_is_rebuilt(height: int) -> None:
    source, store = ChainSource(chain(5)), MemoryStore()
    await store.project(chain(height))
    store.at = Checkpoint(height, mark_of(height) if height else b"", 100)
    async with projecting(source, store):
        await until(lambda: store.at.height == 5)
        assert await store.height() == 5
    assert [target for _, target in store.rebuilds] == [5]


async def test_a_rebuild_can_be_asked_for_with_a_file(tmp_path: Path) -> None:
    request = tmp_path / "query.rebuild"
    source, store = ChainSource(chain(5)), MemoryStore()
    rebuilds: list[str] = []
    options = {"rebuild_request": request, "on_rebuild": rebuilds.append}
    async with projecting(source, store, **options):
        await until(lambda: store.at.height == 5)
        for number in (1, 2):
            request.touch()
            source.grow(1)
            await until(lambda: not request.exists())
            await until(lambda number=number: store.at.height == 5 + number)  # type: ignore[misc]
    request.touch()
    async with projecting(source, store, **options):
        await until(lambda: not request.exists())
        await until(lambda: store.at.height == 7)
    assert rebuilds[1:] == ["it was asked for"] * 3
    assert [target for _, target in store.rebuilds[1:]] == [6, 7, 7]
    assert len(store.kept["blocks"]) == 7


async def test_a_request_stays_until_it_is_fulfilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "RETRY_S_MAX", 0.001)
    request = tmp_path / "query.rebuild"
    source, store = ChainSource(chain(5)), MemoryStore()
    await store.project(chain(5))
    rebuild, failures = store.rebuild, [StoreUnavailable("away"), StoreUnavailable("away")]

    async def failing(reason: str, target: int) -> None:
        assert request.exists()
        if failures:
            raise failures.pop()
        await rebuild(reason, target)

    monkeypatch.setattr(store, "rebuild", failing)
    request.touch()
    told: list[str] = []
    async with projecting(source, store, rebuild_request=request, on_trouble=told.append):
        await until(lambda: not request.exists())
        await until(lambda: store.at.height == 5)
    assert told == ["away", "away"]
    assert len(store.rebuilds) == 1


async def test_a_request_that_cannot_be_removed_is_not_fulfilled_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refused)
    request = tmp_path / "query.rebuild"
    request.touch()
    source, store = ChainSource(chain(5)), MemoryStore()
    async with projecting(source, store, rebuild_request=request):
        await until(lambda: store.at.height == 5)
        source.grow(1)
        await until(lambda: store.at.height == 6)
    assert len(store.rebuilds) == 1


async def test_a_store_that_breaks_again_and_again_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "RETRY_S_MAX", 0.2)
    source, store = ChainSource(chain(3)), MemoryStore()
    await store.project(chain(3))
    store.troubles = [StoreDamaged("torn"), StoreDamaged("torn")]
    source.grow(1)
    begun = asyncio.get_running_loop().time()
    async with projecting(source, store):
        await until(lambda: store.at.height == 4)
    assert store.rebuilds == [("torn", 4), ("torn", 4)]
    assert asyncio.get_running_loop().time() - begun >= 0.2


# --- killed -----------------------------------------------------------------------------------------------

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
    truth = MemoryLedger(chain(blocks))
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
            assert (await reader.checkpoint()).height >= height
            height = (await reader.checkpoint()).height
            assert [found async for found in check(truth, reader, lambda what, done, total: None)] == []
    assert kills
    await assert_holds(reader, blocks)
    await reader.close()
