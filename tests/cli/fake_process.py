"""A process of a node that only pretends: it lives until SIGTERM and does no work.

With `--fd` it answers every request on that socket with a 200, like a worker; with `--node` it takes
connections on the node's socket; with `--deaf` it does not hear SIGTERM; with `--fail` it ends at once with
exit code 3.
"""

import asyncio
import contextlib
import signal
import socket
import sys
from pathlib import Path

from bcdb.node.settings import Settings

READY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def main() -> None:
    settings = Settings.load(Path(sys.argv[1]))
    arguments = sys.argv[2:]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if "--fd" in arguments:
        listener = socket.socket(fileno=int(arguments[arguments.index("--fd") + 1]))

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(READY)
                await writer.drain()
            writer.close()

        await asyncio.start_server(answer, sock=listener)
    elif "--node" in arguments:
        await asyncio.start_unix_server(lambda reader, writer: writer.close(), settings.socket_path)
    if "--deaf" in arguments:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
    await stop.wait()


if __name__ == "__main__":
    if "--fail" in sys.argv:
        sys.exit(3)
    asyncio.run(main())
