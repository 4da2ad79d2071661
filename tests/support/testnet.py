"""A network of real nodes for tests and benchmarks, each a `Server` of its own to be killed and started.

It is laid out as `bcdb testnet init` does it, on free ports, and run without `bcdb testnet up`, so that no
one starts again what a test has killed. It sees of the nodes what any client may see.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from bcdb.cli.testnet.layout import Layout, Node, make_testnet
from bcdb.cli.testnet.running import go_threads
from bcdb.node.settings import Settings
from tests.support.cometbft import program
from tests.support.server import START_S_MAX, Server, free_ports, members_of_session

A = TypeVar("A")
B = TypeVar("B")

NO_TRANSACTION = "0" * 64
WAIT_S_MAX = 60.0
POLL_S = 0.05
ANSWER_S_MAX = 20.0
"""No single answer that is waited for here takes longer, or the node counts as one that does not answer."""


def free_nodes(validators: int, observers: int = 0) -> tuple[Node, ...]:
    """That many nodes on ports that are free at the moment."""
    count = validators + observers
    ports = iter(free_ports(3 * count))
    return tuple(
        Node(f"node{at}", next(ports), next(ports), next(ports), at < validators) for at in range(count)
    )


class Testnet:
    """A new network in `folder`; validators come first in `nodes`.

    As a context it starts all nodes, waits until they are ready, and kills what runs in the end. `source`:
    the chain goes on from the ledger of that stopped node. `flags` and `environment` are for every node.
    """

    __test__ = False

    def __init__(
        self,
        folder: Path,
        validators: int = 4,
        observers: int = 0,
        *,
        workers: int = 1,
        source: Settings | None = None,
        flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        places = free_nodes(validators, observers)
        self.layout: Layout = make_testnet(folder, places, workers=workers, source=source)
        with_engine = {
            "BCDB_COMETBFT": str(program()),
            "GOMAXPROCS": go_threads(len(places)),
            **(environment or {}),
        }
        self.nodes = [
            Server(self.layout.home(node), as_configured=True, flags=flags, environment=with_engine)
            for node in self.layout.nodes
        ]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    # --- processes ------------------------------------------------------------------------------------------

    @property
    def running(self) -> list[Server]:
        return [server for server in self.nodes if server.is_running]

    def start(self, *numbers: int, wait: bool = True) -> None:
        """Start these nodes at once, all that do not run if none is named, and wait until they are ready."""
        chosen = [self.nodes[number] for number in numbers] or [
            server for server in self.nodes if not server.is_running
        ]
        for server in chosen:
            server.start(wait=False)
        if wait:
            _together(chosen, Server.wait_ready)

    def stop(self, *numbers: int) -> None:
        """SIGTERM to these nodes at once, to all that run if none is named; every one must end with 0."""
        chosen = [self.nodes[number] for number in numbers] or self.running
        codes = _together(chosen, Server.stop)
        assert not any(codes), codes

    def kill(self) -> None:
        """`kill -9` of all that runs."""
        _together(self.nodes, Server.kill)

    def engine_pid(self, number: int) -> int:
        """The process id of a running node's CometBFT."""
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline:
            for pid in members_of_session(self.nodes[number].pid):
                try:
                    name = Path(f"/proc/{pid}/comm").read_text().strip()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if name == "cometbft":
                    return pid
            time.sleep(POLL_S)
        raise AssertionError(f"node {number} has no CometBFT:\n{self.nodes[number].tail()}")

    # --- what its clients see -------------------------------------------------------------------------------

    def heights(self) -> dict[int, int]:
        """The height of each node that answers, by its number."""
        numbers = [number for number, server in enumerate(self.nodes) if server.is_running]
        seen = _together(numbers, lambda number: _height(self.nodes[number]))
        return {number: height for number, height in zip(numbers, seen, strict=True) if height is not None}

    def wait_height(self, height: int, *numbers: int, s_max: float = WAIT_S_MAX) -> dict[int, int]:
        """Wait until these nodes, all that run if none is named, have this height. Returns all heights."""
        wanted = numbers or [number for number, server in enumerate(self.nodes) if server.is_running]
        assert wanted, "no node runs"

        def look() -> dict[int, int] | None:
            heights = self.heights()
            return heights if all(heights.get(number, -1) >= height for number in wanted) else None

        return self._until(look, f"height {height}", s_max)

    def wait_same_height(self, *, s_max: float = WAIT_S_MAX) -> int:
        """Wait until all running nodes have the same height at a time. Returns it."""

        def look() -> int | None:
            heights = self.heights()
            same = len(heights) == len(self.running) and len(set(heights.values())) == 1
            return next(iter(heights.values())) if same else None

        return self._until(look, "one height", s_max)

    def app_hashes(self, height: int) -> dict[int, str]:
        """The app hash of this height at each running node that has it, by the node's number."""
        numbers = [number for number, server in enumerate(self.nodes) if server.is_running]

        def read(number: int) -> str | None:
            with _Reader(self.nodes[number]) as reader:
                return reader.app_hash(height)

        seen = _together(numbers, read)
        return {number: found for number, found in zip(numbers, seen, strict=True) if found is not None}

    def assert_agreement(self, since: int = 1) -> int:
        """The app hashes of all heights from `since` on are the same wherever they are known.

        Returns the height that all running nodes have.
        """
        numbers = [number for number, server in enumerate(self.nodes) if server.is_running]
        heights = self.heights()
        assert set(heights) == set(numbers), f"not all that run answer: {heights}"

        def read(number: int) -> list[str | None]:
            with _Reader(self.nodes[number]) as reader:
                return [reader.app_hash(height) for height in range(since, heights[number] + 1)]

        chains = dict(zip(numbers, _together(numbers, read), strict=True))
        first: dict[int, tuple[int, str | None]] = {}
        for number, chain in chains.items():
            for height, found in enumerate(chain, since):
                other, known = first.setdefault(height, (number, found))
                assert found is not None, f"node {number} lacks block {height} and has {heights[number]}"
                assert found == known, (
                    f"at height {height} node {number} has {found}, node {other} has {known}"
                )
        return min(heights.values(), default=0)

    def settled(self, ids: Iterable[str], *, s_max: float = WAIT_S_MAX) -> dict[str, dict[str, Any]]:
        """Wait until each is committed at all running nodes, or rejected at one and pending at none.

        Returns the status documents by id. Raises AssertionError with what is not settled in time.
        """
        open_ids = dict.fromkeys(ids)
        done: dict[str, dict[str, Any]] = {}
        seen: list[dict[str, Any]] = []

        def look() -> dict[str, dict[str, Any]] | None:
            with contextlib.ExitStack() as stack:
                readers = [stack.enter_context(_Reader(server)) for server in self.running]
                for identity in list(open_ids):
                    seen[:] = [reader.status(identity) for reader in readers]
                    known = [status["status"] for status in seen]
                    committed = bool(known) and all(word == "committed" for word in known)
                    rejected = "rejected" in known and not {"pending", "committed"} & set(known)
                    if not (committed or rejected):
                        return None
                    done[identity] = next(s for s in seen if s["status"] in ("committed", "rejected"))
                    del open_ids[identity]
            return done

        try:
            return self._until(look, "all settled", s_max)
        except AssertionError as error:
            at = next(iter(open_ids))
            raise AssertionError(f"{len(open_ids)} are not settled; {at} is {seen}. {error}") from None

    def _until(self, look: Callable[[], A | None], what: str, s_max: float) -> A:
        deadline = time.monotonic() + s_max
        while (found := look()) is None:
            if time.monotonic() > deadline:
                tails = "\n".join(f"--- {server.log.name}\n{server.tail(8)}" for server in self.nodes)
                raise AssertionError(f"{what}: not within {s_max:.0f} s; heights {self.heights()}\n{tails}")
            time.sleep(POLL_S)
        return found


class _Reader:
    """Many reads of one node through one connection."""

    def __init__(self, server: Server) -> None:
        self._connection = http.client.HTTPConnection(server.host, server.port, timeout=ANSWER_S_MAX)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def read(self, path: str) -> tuple[int, Any, http.client.HTTPMessage | None]:
        """Status, document and headers; 0 for a node that did not answer."""
        try:
            self._connection.request("GET", path)
            answer = self._connection.getresponse()
            return answer.status, json.loads(answer.read()), answer.headers
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return 0, None, None

    def app_hash(self, height: int) -> str | None:
        status, block, _ = self.read(f"/api/v1/blocks/{height}")
        return block["app_hash"] if status == 200 and isinstance(block, dict) else None

    def status(self, identity: str) -> dict[str, Any]:
        status, found, _ = self.read(f"/api/v1/transactions/{identity}/status")
        if status == 200:
            assert isinstance(found, dict)
            return found
        return {"id": identity, "status": "unknown" if status == 404 else "unanswered"}


def _height(server: Server) -> int | None:
    with _Reader(server) as reader:
        status, _, headers = reader.read(f"/api/v1/blocks?transaction_id={NO_TRANSACTION}")
    return int(headers["bcdb-height"]) if status == 200 and headers is not None else None


def _together(items: Sequence[A], work: Callable[[A], B]) -> list[B]:
    """`work` on all items at once; raises the first error once all have ended."""
    if not items:
        return []
    with ThreadPoolExecutor(len(items)) as threads:
        futures = [threads.submit(work, item) for item in items]
    return [future.result() for future in futures]
