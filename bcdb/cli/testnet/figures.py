"""How the nodes of a testnet are, as any client sees them over HTTP, beside what is known of their processes.

Each look is bounded in time, so that a node that hangs holds up nobody. App hashes are compared at the newest
height that all have: nodes that are at different heights need not agree on them.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from types import TracebackType
from typing import Literal, Self

import httpx
import msgspec

from bcdb.cli.testnet import logfile
from bcdb.cli.testnet.layout import Layout, Node
from bcdb.cli.testnet.running import Process, Processes

LOOK_S_MAX = 2.0
STARTING_S_MAX = 60.0
"""A node that is not ready for longer is in trouble."""
FAILURES_MAX = 3
"""One that has ended so often, too."""
RATE_S = 10.0
"""The rate of transactions is that of these last seconds."""
HEIGHTS_KEPT = 64
BLOCK_BYTES_MAX = 4 * 1024 * 1024
"""A larger block is not read for its app hash alone."""
COMMITTED = b"bcdb_transactions_committed_total "

State = Literal["up", "starting", "trouble", "down"]


class Figures(msgspec.Struct, kw_only=True):
    """One node. What is not known is None; `app_hash` (hex) is that of the picture's height."""

    name: str
    url: str
    state: State
    reason: str = ""
    validator: bool | None = None
    height: int | None = None
    app_hash: str | None = None
    differs: bool = False
    peers: int | None = None
    pending: int | None = None
    transactions_per_s: float | None = None
    projected_height: int | None = None
    catching_up: bool | None = None
    pid: int | None = None
    failures: int = 0

    @property
    def lag(self) -> int | None:
        """Blocks that its searches lack."""
        if self.height is None or self.projected_height is None:
            return None
        return max(self.height - self.projected_height, 0)


class Picture(msgspec.Struct):
    """All nodes at one time. `height`: the newest that all who are up have, None if it is not known."""

    chain_id: str
    height: int | None
    nodes: list[Figures]

    @property
    def agrees(self) -> bool:
        return not any(node.differs for node in self.nodes)

    @property
    def up(self) -> list[Figures]:
        return [node for node in self.nodes if node.state == "up"]


class _Ready(msgspec.Struct):
    chain_id: str
    height: int
    pending: int
    projected_height: int | None
    app_hash: str
    peers: int
    catching_up: bool
    validator: bool


class _Block(msgspec.Struct):
    app_hash: str


class _Problem(msgspec.Struct):
    message: str


class _Seen(msgspec.Struct):
    """What one node said in one look."""

    ready: _Ready | None = None
    reason: str = ""
    is_silent: bool = False
    committed: float | None = None


class Watcher:
    """Looks at the nodes of a testnet again and again, and remembers what it takes to compare."""

    def __init__(self, layout: Layout, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._layout = layout
        self._client = httpx.AsyncClient(timeout=LOOK_S_MAX, trust_env=False, transport=transport)
        self._hashes: dict[str, OrderedDict[int, str]] = {node.name: OrderedDict() for node in layout.nodes}
        self._committed: dict[str, deque[tuple[float, float]]] = {node.name: deque() for node in layout.nodes}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def look(self, processes: Processes) -> Picture:
        """How all nodes are now. Takes at most two times `LOOK_S_MAX`."""
        nodes = self._layout.nodes
        seen = dict(
            zip(nodes, await asyncio.gather(*(self._see(node) for node in nodes)), strict=True),
        )
        figures = {
            node.name: self._figures(node, one, processes.get(node.name)) for node, one in seen.items()
        }
        up = [node for node, one in seen.items() if one.ready is not None]
        height = await self._compare(up, figures)
        return Picture(self._layout.chain_id, height, list(figures.values()))

    async def _see(self, node: Node) -> _Seen:
        seen = _Seen()
        try:
            async with asyncio.timeout(LOOK_S_MAX):
                answer = await self._client.get(f"{node.url}/health/ready")
                if answer.status_code != 200:
                    seen.reason = _problem(answer)
                    return seen
                ready = msgspec.json.decode(answer.content, type=_Ready)
                if ready.chain_id != self._layout.chain_id:
                    seen.reason = f"a node of another chain, {ready.chain_id}, answers at {node.url}"
                    return seen
                seen.ready = ready
                answer = await self._client.get(f"{node.url}/metrics")
                seen.committed = _committed(answer.content)
        except (TimeoutError, httpx.HTTPError):
            seen.is_silent = seen.ready is None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            seen.reason = f"what answers at {node.url} is no node of this version"
        return seen

    def _figures(self, node: Node, seen: _Seen, process: Process | None) -> Figures:
        state = state_of(seen.ready is not None, process, time.time())
        found = Figures(name=node.name, url=node.url, state=state, validator=node.validator)
        if process is not None:
            found.pid, found.failures = process.pid, process.failures
        ready = seen.ready
        if ready is None:
            found.reason = self._reason(node, seen, state, process)
            return found
        found.height, found.pending, found.peers = ready.height, ready.pending, ready.peers
        found.projected_height, found.catching_up = ready.projected_height, ready.catching_up
        if not ready.catching_up:
            found.validator = ready.validator
        found.transactions_per_s = self._rate(node, seen.committed)
        self._remember(node, ready.height, ready.app_hash)
        return found

    def _reason(self, node: Node, seen: _Seen, state: State, process: Process | None) -> str:
        if process is None:
            return ""
        if state == "down" or process.failures >= FAILURES_MAX:
            log = self._layout.log(node)
            words = logfile.last_words(log)
            return f"it ended; the last in {log}: {words}" if words else "it ended"
        if seen.is_silent and state == "trouble":
            return f"it does not answer at {node.url} within {LOOK_S_MAX:g} s"
        return seen.reason

    def _rate(self, node: Node, committed: float | None) -> float | None:
        """Transactions a second, None before there is anything to compare with."""
        if committed is None:
            return None
        samples, now_s = self._committed[node.name], time.monotonic()
        if samples and committed < samples[-1][1]:
            # It has been started anew, and so has the count.
            samples.clear()
        samples.append((now_s, committed))
        while len(samples) > 2 and now_s - samples[1][0] >= RATE_S:
            samples.popleft()
        began_s, before = samples[0]
        return (committed - before) / (now_s - began_s) if now_s > began_s else None

    def _remember(self, node: Node, height: int, app_hash: str) -> None:
        hashes = self._hashes[node.name]
        hashes[height] = app_hash
        while len(hashes) > HEIGHTS_KEPT:
            hashes.popitem(last=False)

    async def _compare(self, up: list[Node], figures: Mapping[str, Figures]) -> int | None:
        """Fill in the app hashes at the newest height that all of `up` have. Returns that height."""
        heights = [height for node in up if (height := figures[node.name].height) is not None]
        if not heights:
            return None
        common = min(heights)
        await asyncio.gather(*(self._fetch(node, common) for node in up))
        known = {node.name: found for node in up if (found := self._hashes[node.name].get(common))}
        for name, app_hash in known.items():
            figures[name].app_hash = app_hash
        counts = [list(known.values()).count(app_hash) for app_hash in known.values()]
        for (name, app_hash), count in zip(known.items(), counts, strict=True):
            # Without a majority nobody can say who is right.
            alone = count <= len(known) / 2
            figures[name].differs = alone and any(other != app_hash for other in known.values())
        return common

    async def _fetch(self, node: Node, height: int) -> None:
        """Learn the app hash of a height, unless it is known or can't be had within the time."""
        if height in self._hashes[node.name]:
            return
        with contextlib.suppress(TimeoutError, httpx.HTTPError, msgspec.MsgspecError, UnicodeDecodeError):
            async with (
                asyncio.timeout(LOOK_S_MAX),
                self._client.stream("GET", f"{node.url}/api/v1/blocks/{height}") as answer,
            ):
                size_bytes = int(answer.headers.get("content-length", 0))
                if answer.status_code != 200 or size_bytes > BLOCK_BYTES_MAX:
                    return
                block = msgspec.json.decode(await answer.aread(), type=_Block)
                self._remember(node, height, block.app_hash)


def state_of(ready: bool, process: Process | None, now_s: float) -> State:
    """`process` is None for a node that nobody has started here."""
    if ready:
        return "up"
    if process is None or (process.pid is None and process.failures < FAILURES_MAX):
        return "down"
    if process.failures >= FAILURES_MAX or now_s - process.since_s > STARTING_S_MAX:
        return "trouble"
    return "starting"


def _problem(answer: httpx.Response) -> str:
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.json.decode(answer.content, type=_Problem).message[: logfile.LAST_CHARS_MAX]
    return f"it answers with {answer.status_code}"


def _committed(metrics: bytes) -> float | None:
    for line in metrics.splitlines():
        if line.startswith(COMMITTED):
            with contextlib.suppress(ValueError):
                return float(line.removeprefix(COMMITTED))
    return None
