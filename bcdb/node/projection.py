"""The projector process: `python -m bcdb.node.projection SETTINGS_JSON --lifeline FD`.

It follows the published blocks of the node into the query store until SIGTERM, or until the other end of the
lifeline pipe or the node is gone. It only reads the ledger; nothing in the node ever waits for it.
"""

import argparse
import asyncio
import contextlib
import gc
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
import uvloop

from bcdb.model.errors import BcdbError, Unavailable
from bcdb.node import figures, logs
from bcdb.node.blocks import read_blocks
from bcdb.node.ending import listen_for_end
from bcdb.node.link import NodeLink
from bcdb.node.reading import LedgerReader
from bcdb.node.settings import Settings
from bcdb.node.stores import open_store
from query.documents import Block
from query.projector import RETRY_S_MAX, RETRY_S_MIN, Progress, Projector
from query.store import QueryError, QueryStore, StoreUnavailable

NAME = "projector"
EXIT_STOPPED = 0
EXIT_FAILED = 1
GC_THRESHOLDS = (50_000, 20, 100)
"""Documents make no reference cycles; to look for some with every few of them is a tenth of the work."""

log = structlog.get_logger(__name__)


class LedgerSource:
    """The ledger as a `query.projector.Source`: published blocks only, so none that a power cut could take
    back.
    """

    def __init__(self, ledger: LedgerReader, link: NodeLink) -> None:
        self._ledger = ledger
        self._link = link

    async def head(self) -> int:
        """The published height. Raises `Unavailable` if the node is gone."""
        if not self._link.is_open:
            raise Unavailable("The node process is gone")
        return self._link.head.height

    async def mark(self, height: int) -> bytes | None:
        """The hash of the block at `height`."""
        block = (await self._ledger.ready()).block(height)
        return None if block is None else block.block_hash

    async def blocks(self, after: int, documents_max: int, bytes_max: int) -> list[Block]:
        """See `query.projector.Source.blocks`. Raises `Unavailable` when the node is gone, `StoreError`."""
        if self._link.head.height <= after:
            return []
        reader = await self._ledger.ready()
        # Published blocks never change, so it does no harm that this reader may move on meanwhile.
        return await read_blocks(reader, after, reader.head.height, documents_max, bytes_max)

    async def wait(self, height: int, timeout_s: float) -> None:
        """Return when `height` is published or the time is over. Raises `Unavailable` if the node is gone."""
        await self._link.wait_height(height, timeout_s)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop or until the node is gone. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bcdb.node.projection")
    parser.add_argument("settings", type=Path, help="file that Settings.dump wrote")
    parser.add_argument(
        "--lifeline", type=int, help="file descriptor; the projector stops when it reads its end"
    )
    options = parser.parse_args(arguments)
    try:
        settings = Settings.load(options.settings)
    except BcdbError as error:
        print(f"bcdb projector: {error.text}", file=sys.stderr, flush=True)
        return EXIT_FAILED
    logs.configure(settings, process=NAME)
    return uvloop.run(_serve(settings, options.lifeline))


async def _serve(settings: Settings, lifeline: int | None) -> int:
    stop = asyncio.Event()
    listen_for_end(stop, lifeline)
    work = asyncio.create_task(_project(settings))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    work.cancel()
    try:
        await work
    except asyncio.CancelledError:
        return EXIT_STOPPED
    except (BcdbError, QueryError) as error:
        log.error("projector ends", text=error.text)
    return EXIT_FAILED


async def _project(settings: Settings) -> None:
    """Project until cancelled; raises `BcdbError` when the node is gone."""
    async with contextlib.AsyncExitStack() as stack:
        link = await NodeLink.connect(settings.socket_path, name=NAME)
        stack.callback(link.close)
        ledger = LedgerReader.open(settings.ledger_path, settings.scratch_path(NAME), link)
        stack.callback(ledger.close)
        store = await _opened(settings, link)
        stack.push_async_callback(store.close)
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        await Projector(
            LedgerSource(ledger, link),
            store,
            rebuild_request=settings.rebuild_request_path,
            on_progress=_note_progress,
            on_rebuild=figures.count_rebuild,
            on_trouble=figures.count_failure,
        ).run()


async def _opened(settings: Settings, link: NodeLink) -> QueryStore:
    """The store, as soon as it can be had. Raises `Unavailable` when the node is gone."""
    pause_s = RETRY_S_MIN
    while True:
        try:
            return await open_store(settings)
        except StoreUnavailable as trouble:
            figures.count_failure(trouble.text)
            log.warning("the query store can't be opened; trying again", text=trouble.text, pause_s=pause_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(link.wait_closed(), pause_s)
        if not link.is_open:
            raise Unavailable("The node process is gone")
        pause_s = min(pause_s * 2, RETRY_S_MAX)


def _note_progress(progress: Progress) -> None:
    figures.count_progress(progress)
    log.debug(
        "projected",
        height=progress.height,
        documents=progress.documents,
        transactions_per_second=round(progress.transactions / max(progress.seconds, 1e-6)),
    )


if __name__ == "__main__":
    sys.exit(main())
