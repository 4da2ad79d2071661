"""The wires between the nodes of a testnet, each in the hands of the test: cut, held, slow or healed.

For every two nodes there is a proxy of TCP at which the one dials the other, named by the members' file of
the one that dials. What a proxy was given it passes on whole and in order, or not at all: it never changes a
byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import msgspec

from bcdb.node.members import Member
from tests.support.membership import change_members
from tests.support.testnet import Testnet

CHUNK_BYTES = 64 * 1024
STOP_S_MAX = 10.0
HOST = "127.0.0.1"

Way = tuple[int, int]
"""From the node of this number to that one."""


class Wires:
    """All wires of a testnet that does not run yet; a context, which must outlive the nodes.

    What a test does to them takes effect at once and stays until it is healed. Nodes go by their numbers.
    """

    def __init__(self, net: Testnet) -> None:
        self._net = net
        count = len(net.nodes)
        self._ways = list(itertools.permutations(range(count), 2))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wires")
        self._passing: dict[Way, asyncio.Event] = {}
        self._pause_s = 0.0
        self._cut: set[Way] = set()
        self._servers: list[asyncio.Server] = []
        self._carried: dict[asyncio.Task[None], Way] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        ports = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(STOP_S_MAX)
        for number, server in enumerate(self._net.nodes):
            known = {
                node.name: f"{HOST}:{ports[number, other]}"
                for other, node in enumerate(self._net.layout.nodes)
                if other != number
            }

            def through(member: Member, known: dict[str, str] = known) -> Member:
                return msgspec.structs.replace(member, address=known.get(member.name, member.address))

            change_members(server.home, through)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(STOP_S_MAX)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_S_MAX)
        self._loop.close()

    # --- what a test does -----------------------------------------------------------------------------------

    def cut(self, ones: Iterable[int], others: Iterable[int]) -> None:
        """Connections between the ones and the others break, what was under way is lost, new ones break at
        once."""
        ways = _both(ones, others)

        def do() -> None:
            self._cut |= ways
            for task, way in self._carried.items():
                if way in ways:
                    task.cancel()

        self._do(do)

    def hold(self, sources: Iterable[int], targets: Iterable[int]) -> None:
        """Nothing comes from these to those any more, though no connection breaks. What is sent waits."""
        self._do(lambda: self._clear(_one(sources, targets)))

    def part(self, ones: Iterable[int], others: Iterable[int]) -> None:
        """`hold` in both directions."""
        self._do(lambda: self._clear(_both(ones, others)))

    def slow(self, pause_s: float) -> None:
        """Each piece of up to 64 KiB takes so long on each wire, and pieces do not overtake each other."""

        def do() -> None:
            self._pause_s = pause_s

        self._do(do)

    def heal(self) -> None:
        """All is as it was; what was held arrives now, and who dials again gets through."""

        def do() -> None:
            self._pause_s = 0.0
            self._cut.clear()
            for event in self._passing.values():
                event.set()

        self._do(do)

    # --- in the thread of the proxies -----------------------------------------------------------------------

    def _do(self, work: Callable[[], object]) -> None:
        async def within() -> None:
            work()

        asyncio.run_coroutine_threadsafe(within(), self._loop).result(STOP_S_MAX)

    def _clear(self, ways: set[Way]) -> None:
        for way in ways:
            self._passing[way].clear()

    async def _listen(self) -> dict[Way, int]:
        ports = {}
        for way in self._ways:
            self._passing[way] = asyncio.Event()
            self._passing[way].set()

            def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way = way) -> None:
                task = self._loop.create_task(self._carry(way, reader, writer))
                self._carried[task] = way
                task.add_done_callback(lambda ended: self._carried.pop(ended))

            server = await asyncio.start_server(opened, HOST, 0)
            self._servers.append(server)
            ports[way] = int(server.sockets[0].getsockname()[1])
        return ports

    async def _carry(self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection that `way[0]` has opened to `way[1]`."""
        ends = [writer]
        try:
            if way in self._cut:
                return
            port = self._net.layout.nodes[way[1]].p2p_port
            there, back = await asyncio.open_connection(HOST, port)
            ends.append(back)
            pumps = [
                asyncio.create_task(self._pump(way, reader, back)),
                asyncio.create_task(self._pump((way[1], way[0]), there, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass
        except asyncio.CancelledError:
            pass
        finally:
            for end in ends:
                end.transport.abort()

    async def _pump(self, way: Way, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(CHUNK_BYTES):
                if self._pause_s:
                    await asyncio.sleep(self._pause_s)
                await self._passing[way].wait()
                target.write(chunk)
                await target.drain()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        tasks = list(self._carried)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _one(sources: Iterable[int], targets: Iterable[int]) -> set[Way]:
    return set(itertools.product(sources, targets))


def _both(ones: Iterable[int], others: Iterable[int]) -> set[Way]:
    ways = _one(ones, others)
    return ways | {(target, source) for source, target in ways}
