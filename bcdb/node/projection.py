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

import msgspec
import structlog
import uvloop

from bcdb.ledger import SecondaryReader
from bcdb.model.errors import BcdbError
from bcdb.node import logs
from bcdb.node.ending import listen_for_end
from bcdb.node.link import NodeLink
from bcdb.node.reading import LedgerReader
from bcdb.node.settings import Settings
from query.projector import Progress, Projector
from query.sqlite import SqliteStore
from query.store import Block, Document, QueryError

NAME = "projector"
EXIT_STOPPED = 0
EXIT_FAILED = 1
GC_THRESHOLDS = (50_000, 20, 100)
"""Documents make no reference cycles; to look for some with every few of them is a tenth of the work."""

log = structlog.get_logger(__name__)


class _Asset(msgspec.Struct, gc=False):
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Parts(msgspec.Struct, gc=False):
    asset: _Asset
    metadata: msgspec.Raw


_decode_parts = msgspec.json.Decoder(_Parts).decode


def documents_of(transaction_id: bytes, body: bytes) -> tuple[Document | None, Document]:
    """The asset that a transaction makes, None if it makes none, and its metadata, from its canonical bytes.

    Only an operation that makes an asset carries `asset.data`; all others name an asset by its id.
    """
    parts = _decode_parts(body)
    data = parts.asset.data
    asset = None if data is msgspec.UNSET else Document(transaction_id, bytes(data))
    return asset, Document(transaction_id, bytes(parts.metadata))


class LedgerSource:
    """The ledger as a `query.projector.Source`: published blocks only, so none that a power cut could take
    back.
    """

    def __init__(self, ledger: LedgerReader, link: NodeLink) -> None:
        self._ledger = ledger
        self._link = link

    async def mark(self, height: int) -> bytes | None:
        """The hash of the block at `height`."""
        block = (await self._ledger.ready()).block(height)
        return None if block is None else block.block_hash

    async def blocks(self, after: int, documents_max: int, bytes_max: int) -> list[Block]:
        """See `query.projector.Source.blocks`. Raises `Unavailable` when the node is gone, `StoreError`."""
        if self._link.head.height <= after:
            return []
        reader = await self._ledger.ready()
        found: list[Block] = []
        documents = size_bytes = 0
        for height in range(after + 1, reader.head.height + 1):
            block, block_bytes = _read_block(reader, height)
            found.append(block)
            documents += len(block.assets) + len(block.metadata)
            size_bytes += block_bytes
            if documents >= documents_max or size_bytes >= bytes_max:
                break
        return found

    async def wait(self, height: int, timeout_s: float) -> None:
        """Return when `height` is published or the time is over. Raises `Unavailable` if the node is gone."""
        await self._link.wait_height(height, timeout_s)


def _read_block(reader: SecondaryReader, height: int) -> tuple[Block, int]:
    record = reader.block(height)
    assert record is not None, "a ledger holds every block below its head"
    assets: list[Document] = []
    metadata: list[Document] = []
    size_bytes = 0
    for transaction_id in record.ids:
        stored = reader.transaction(transaction_id)
        assert stored is not None, "a ledger holds every transaction of its blocks"
        size_bytes += len(stored.body)
        asset, about = documents_of(transaction_id, stored.body)
        if asset is not None:
            assets.append(asset)
        metadata.append(about)
    return Block(height, record.block_hash, assets, metadata), size_bytes


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
        store = await asyncio.to_thread(SqliteStore.open, settings.store_path)
        stack.push_async_callback(store.close)
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        await Projector(LedgerSource(ledger, link), store, on_progress=_log_progress).run()


def _log_progress(progress: Progress) -> None:
    log.debug(
        "projected",
        height=progress.height,
        documents=progress.documents,
        per_second=round(progress.documents / max(progress.seconds, 1e-6)),
    )


if __name__ == "__main__":
    sys.exit(main())
