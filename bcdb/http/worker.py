"""The process of one API worker: `python -m bcdb.http.worker SETTINGS --index I --fd FD --stream-fd FD
--lifeline FD`.

It serves on sockets that the supervisor made and keeps. It ends when it is told to, when the supervisor is
gone, and when the node is gone: it never tries to live on without either.
"""

import argparse
import asyncio
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import uvloop

from bcdb.http.app import Application
from bcdb.http.server import Server, make_server
from bcdb.http.services import Services
from bcdb.model.errors import BcdbError
from bcdb.node.logs import configure
from bcdb.node.settings import Settings

STALLED_S = 30.0
"""No request may hold the loop for this long; whatever does is a defect, and must not be the end of a worker.
"""
STALLED_EXIT = 75

log = logging.getLogger(__name__)

GC_THRESHOLDS = (50_000, 20, 100)
"""Answers make hardly any reference cycles; Python's own thresholds would look for them many times a second.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a worker; the exit code is 0 after it was asked to stop, else 1."""
    parser = argparse.ArgumentParser(prog="python -m bcdb.http.worker", description="Run one API worker.")
    parser.add_argument("settings", type=Path, help="settings file written by the supervisor")
    parser.add_argument("--index", type=int, required=True, help="number of this worker, from 0")
    parser.add_argument("--fd", type=int, required=True, help="socket of the API")
    parser.add_argument("--stream-fd", type=int, required=True, help="socket of the streams")
    parser.add_argument("--lifeline", type=int, required=True, help="pipe that closes with the supervisor")
    given = parser.parse_args(arguments)
    try:
        settings = Settings.load(given.settings)
    except BcdbError as error:
        print(error.text, file=sys.stderr)
        return 1
    name = f"worker-{given.index}"
    configure(settings, process=name)
    sockets = [socket.socket(fileno=given.fd), socket.socket(fileno=given.stream_fd)]
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run(settings, name, sockets, given.lifeline))
    except BcdbError as error:
        log.error("%s", error.text)
        return 1


async def run(settings: Settings, name: str, sockets: list[socket.socket], lifeline: int) -> int:
    """Serve on `sockets`, the API's and the streams', until there is a reason to end; gives the exit code."""
    stream_port: int = sockets[1].getsockname()[1]
    services = await Services.open(settings, name, stream_ports=frozenset({stream_port}))
    server = make_server(Application(services), settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    _watch_lifeline(loop, lifeline, server)
    watching = [
        asyncio.create_task(_watch_node(services, server)),
        asyncio.create_task(server.sweep()),
        asyncio.create_task(services.ledger.keep_up()),
        asyncio.create_task(_watch_loop()),
    ]
    # What lives for as long as the process need not be looked at by every collection.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        await server.serve(sockets=sockets)
        return 0 if services.link.is_open else 1
    finally:
        for task in watching:
            task.cancel()
        await services.close()


def _watch_lifeline(loop: asyncio.AbstractEventLoop, lifeline: int, server: Server) -> None:
    def on_readable() -> None:
        if not os.read(lifeline, 1):
            loop.remove_reader(lifeline)
            log.warning("The supervisor is gone; ending")
            server.stop()

    os.set_blocking(lifeline, False)
    loop.add_reader(lifeline, on_readable)


async def _watch_loop() -> None:
    """End this process when its loop has stood still for `STALLED_S`: the supervisor then starts another, and
    the connections that hang do not hang for good.
    """
    turned = time.monotonic()

    def watch() -> None:
        while time.monotonic() - turned < STALLED_S:
            time.sleep(STALLED_S / 10)
        faulthandler.dump_traceback(all_threads=True)
        os._exit(STALLED_EXIT)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    while True:
        turned = time.monotonic()
        await asyncio.sleep(STALLED_S / 30)


async def _watch_node(services: Services, server: Server) -> None:
    await services.link.wait_closed()
    log.warning("The node process is gone; ending")
    server.stop()


if __name__ == "__main__":
    sys.exit(main())
