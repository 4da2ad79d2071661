"""The listening sockets of a node, bound before any process starts and kept open until the end.

Each API worker has its own, with SO_REUSEPORT, so that the kernel spreads connections and a worker that is
started again takes over what waits. The kernel would also let a second node share the port: that is tested
for first.
"""

import errno
import socket
from typing import cast

from bcdb.model.errors import SettingsError

BACKLOG = 2048


def bind(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` listening sockets on one address; port 0 lets the system choose one. Raises `SettingsError`."""
    family, address = _resolve(host, port)
    try:
        with socket.socket(family, socket.SOCK_STREAM) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
            address = (address[0], alone.getsockname()[1], *address[2:])
        return [_listen(family, address) for _ in range(count)]
    except OSError as error:
        raise SettingsError(_sentence(error, host, port)) from None


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def _listen(family: int, address: tuple[str | int, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Accepted connections inherit it: answers are small and must not wait for one another.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _resolve(host: str, port: int) -> tuple[int, tuple[str | int, ...]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise SettingsError(f"The host {host!r} is neither an address nor a name of this machine.") from None
    # `localhost` has two addresses; clients that know only one know the older.
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, cast(tuple[str | int, ...], tuple(address))


def _sentence(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use by another program; choose one with --port or --stream-port."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; choose another with --host."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"Port {port} on {host} is not allowed to this user; choose one above 1023."
    return f"{host} port {port} can't be listened on: {error.strerror}."
