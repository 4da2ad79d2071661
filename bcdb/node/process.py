"""The node process: `python -m bcdb.node.process SETTINGS_JSON --lifeline FD`.

It holds the ledger and the engine and serves the local socket until SIGTERM, or until the other end of the
lifeline pipe is gone; then it finishes what it has begun. When the storage fails it says so in one sentence
and ends with a code of its own; it never goes on with data of which it can't say whether it is on disk.
"""

import argparse
import asyncio
import gc
import os
import sys
import traceback
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import structlog
import uvloop

from bcdb.ledger import Ledger
from bcdb.model import limits
from bcdb.model.errors import BcdbError, StorageFailed
from bcdb.node import logs
from bcdb.node.ending import listen_for_end
from bcdb.node.identity import NodeSigner, ensure_node_key
from bcdb.node.ordering import chain_id_of, make_ordering
from bcdb.node.server import NodeServer
from bcdb.node.service import NodeService
from bcdb.node.settings import Settings
from consensus.engine import EngineError

EXIT_STOPPED = 0
EXIT_NOT_STARTED = 1
EXIT_FAILED = 70
"""The node met a state that its code excludes (EX_SOFTWARE of sysexits.h)."""
EXIT_STORAGE_FAILED = 74
"""A write or an fsync failed (EX_IOERR of sysexits.h)."""

DRAIN_S_MAX = limits.STOP_S_MAX / 2
GC_THRESHOLDS = (50_000, 20, 100)

log = structlog.get_logger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop. Returns the exit code; a failure of the storage ends the process right away."""
    parser = argparse.ArgumentParser(prog="python -m bcdb.node.process")
    parser.add_argument("settings", type=Path, help="file that Settings.dump wrote")
    parser.add_argument("--lifeline", type=int, help="file descriptor; the node stops when it reads its end")
    options = parser.parse_args(arguments)
    try:
        settings = Settings.load(options.settings)
        logs.configure(settings, process="node")
        signer = NodeSigner(ensure_node_key(settings.node_key_path))
        ledger = Ledger.open(settings.ledger_path, chain_id=chain_id_of(settings))
    except (BcdbError, EngineError) as error:
        _say(f"{error}")
        return EXIT_STORAGE_FAILED if isinstance(error, StorageFailed) else EXIT_NOT_STARTED
    return uvloop.run(_serve(settings, ledger, signer, options.lifeline))


async def _serve(settings: Settings, ledger: Ledger, signer: NodeSigner, lifeline: int | None) -> int:
    stop = asyncio.Event()
    listen_for_end(stop, lifeline)
    try:
        ordering = make_ordering(settings, ledger, signer)
    except (BcdbError, EngineError) as error:
        _say(f"{error}")
        ledger.close()
        return EXIT_NOT_STARTED
    service = NodeService(
        ledger,
        ordering.engine,
        signer,
        base_height=ordering.base_height,
        window=ordering.window,
        quota_bytes=ordering.quota_bytes,
    )
    server = NodeServer(service, settings.socket_path)
    service.failure.add_done_callback(lambda _: stop.set())
    try:
        # The workers come first: what the engine replays is verified by them.
        await service.start()
        await server.start()
        begun = await _unless(stop, service.start_engine())
    except StorageFailed as error:
        _end(error)
    except (BcdbError, EngineError) as error:
        _say(f"{error}")
        await service.drain()
        await server.stop()
        ledger.close()
        return EXIT_NOT_STARTED
    if begun:
        _tune_gc()
        height, pending = ledger.head.height, len(ledger.pending)
        log.info("node is ready", height=height, pending=pending, chain=ledger.chain_id)
    else:
        log.info("the engine has not begun yet")
    await stop.wait()
    if not service.failure.done():
        log.info("node is stopping")
        try:
            async with asyncio.timeout(DRAIN_S_MAX):
                await service.drain()
        except TimeoutError:
            # A thread may still be inside RocksDB, so the ledger can't be closed; what was answered is safe.
            log.warning("the last block did not end in time", seconds=DRAIN_S_MAX)
            os._exit(EXIT_STOPPED)
        except StorageFailed as error:
            log.error("the storage failed while stopping", text=error.text)
    await server.stop()
    if service.failure.done():
        _end(service.failure.result())
    ledger.close()
    return EXIT_STOPPED


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether `work` was done; it is broken off when `stop` is set first. Raises what it raises."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    await asyncio.wait({working})
    return False


def _tune_gc() -> None:
    """Keep the collector from walking through everything that is pending, again and again, for nothing.

    The way of a write makes no reference cycles, and tens of thousands of transactions may wait at a time:
    with Python's thresholds each few hundred new ones would start a walk. Code and modules are never garbage:
    frozen.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _end(error: BaseException) -> None:
    """End now, with the reason on standard error. Closing a store that failed could hang, and would save
    nothing.
    """
    if isinstance(error, StorageFailed):
        _say(error.text)
        code = EXIT_STORAGE_FAILED
    else:
        traceback.print_exception(error, file=sys.stderr)
        _say(f"The node met an error that it can't go on from: {error!r}. All that was answered for is safe.")
        code = EXIT_FAILED
    sys.stderr.flush()
    os._exit(code)


def _say(sentence: str) -> None:
    print(f"bcdb node: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
