"""What tests of faults do again and again: load on several nodes, and looking whether all is well after it.

Nothing here knows of the fault that a test makes. It sees what any client may see, and what the system tells
of processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.fates import Fates
from tests.support.http1 import Connection
from tests.support.testnet import Testnet
from tests.support.traffic import BATCH_ITEMS, POST, Record, Traffic, text_of
from tests.support.transactions import Signed, create

BACK_S_MAX = 45.0
"""Until commits go on at every node: a node that starts and catches up while two cores do all the rest."""
POLL_S = 0.05
ROUND_S = 0.5
"""After so long clients connect anew, so that those that have lost their node come back to it."""
ONE_PAUSE_S = 0.05
BATCH_PAUSE_S = 0.5

_serial = itertools.count(1)
_seeds = itertools.count(1)


def fresh(**asset: Any) -> Signed:
    """A CREATE like no other of this run."""
    return create(asset={"scene": next(_serial), **asset})


class Cluster(Testnet):
    """A network whose nodes are killed and come back; `agreed`: the height up to which they were compared."""

    __test__ = False
    agreed = 0

    def restart_if_ended(self, *numbers: int, fsck: bool = False) -> None:
        """Start these nodes, or all, again where the command has ended, as a service manager does it.

        `fsck`: what such a one has on its disk is examined before. Waits until all of them are ready.
        """
        chosen = numbers or tuple(range(len(self.nodes)))
        ended = [number for number in chosen if not self.nodes[number].is_running]
        for number in ended:
            self.nodes[number].kill()
            if fsck:
                self.assert_clean(number)
        if ended:
            self.start(*ended, wait=False)
        for number in chosen:
            self.nodes[number].wait_ready()

    def assert_clean(self, *numbers: int) -> None:
        """The ledgers of these nodes, which do not run, are sound."""
        with ThreadPoolExecutor(len(numbers)) as threads:
            examined = list(threads.map(lambda number: self.nodes[number].fsck(), numbers))
        assert not any(done.returncode for done in examined), examined

    def assert_commits(self, s_max: float = BACK_S_MAX) -> None:
        """Every running node takes a transaction and sees it committed."""
        deadline = time.monotonic() + s_max

        def commit_at(number: int) -> None:
            server, made = self.nodes[number], fresh(at=number)
            told: tuple[int, Any] = 0, None
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    told = server.post(made.raw)
                if told[0] == 202 or (told[0] == 400 and "exists" in str(told[1])):
                    self.settled([made.tx["id"]], s_max=max(deadline - time.monotonic(), 1.0))
                    return
                time.sleep(POLL_S)
            raise AssertionError(f"node {number} commits nothing: {told}\n{server.tail(15)}")

        numbers = [number for number, server in enumerate(self.nodes) if server.is_running]
        with ThreadPoolExecutor(len(numbers)) as threads:
            list(threads.map(commit_at, numbers))

    def assert_whole(self) -> None:
        """All nodes run, nothing is pending, and they agree on all blocks since they were compared last."""
        assert len(self.running) == len(self.nodes), f"only {len(self.running)} run"
        until(
            lambda: not any(server.get("/health/ready")["pending"] for server in self.nodes),
            "nothing is pending",
        )
        self.wait_height(max(self.heights().values()))
        self.agreed = self.assert_agreement(since=self.agreed + 1)


def engines_in(folder: Path) -> dict[int, str]:
    """Process ids and command lines of all CometBFTs whose home is below `folder`."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                command = Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if "cometbft" in command and f"--home {folder}" in command:
                    found[int(entry)] = command
    return found


def assert_no_engine_left(folder: Path, s_max: float = 5.0) -> None:
    """No CometBFT of these homes runs, or does so for a moment only."""
    deadline = time.monotonic() + s_max
    while left := engines_in(folder):
        assert time.monotonic() < deadline, f"a CometBFT is left behind: {left}"
        time.sleep(POLL_S)


def until(look: Callable[[], object], what: str, s_max: float = BACK_S_MAX) -> None:
    deadline = time.monotonic() + s_max
    while not look():
        assert time.monotonic() < deadline, f"{what}: not within {s_max:.0f} s"
        time.sleep(POLL_S)


# --- load ---------------------------------------------------------------------------------------------------


class Steady(Traffic):
    """The clients of `Traffic` with pauses, so that a whole network and they have room on two cores."""

    async def run(self, seconds: float) -> None:
        clients: list[Coroutine[None, None, None]] = [
            self._paced(ONE_PAUSE_S, self._post_one),
            self._paced(BATCH_PAUSE_S, self._post_batch),
            self._traders(concurrently=False),
            self._traders(concurrently=True),
        ]
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(client) for client in clients]
            await asyncio.wait(running, timeout=seconds)
            self._stopping = True

    async def _paced(self, pause_s: float, post: Callable[[Connection], Awaitable[bool]]) -> None:
        async with Connection(self._host, self._port) as connection:
            while not self._stopping and await post(connection):
                await asyncio.sleep(pause_s)

    async def _post_one(self, connection: Connection) -> bool:
        transaction = self._create()
        try:
            answer = await connection.post(POST, text_of(transaction))
        except ConnectionError:
            answer = None
        self._record.note(transaction, answer)
        return answer is not None

    async def _post_batch(self, connection: Connection) -> bool:
        sent = [self._create() for _ in range(BATCH_ITEMS)]
        try:
            answer = await connection.post(
                f"{POST}/batch", b"\n".join(map(text_of, sent)), "application/x-ndjson"
            )
        except ConnectionError:
            answer = None
        lines = [json.loads(line) for line in answer.body.splitlines()] if answer is not None else []
        if answer is None or answer.status != 200:
            self._record.unanswered.update({transaction["id"]: transaction for transaction in sent})
            return answer is not None
        for transaction, line in zip(sent, lines, strict=True):
            if line["status"] in ("pending", "committed"):
                self._record.accepted[transaction["id"]] = transaction
            elif line.get("error", {}).get("name") in ("Overloaded", "Unavailable"):
                self._record.unanswered[transaction["id"]] = transaction
            else:
                self._record.surprises.append(f"batch item {transaction['id']}: {line}")
        return True


class Load:
    """Clients of these nodes as a context; in its end they stop. `records` has what each node's were told."""

    def __init__(self, net: Testnet, numbers: Sequence[int]) -> None:
        self._net = net
        self.records = {number: Record() for number in numbers}
        self.resting = False
        """Set it to leave the machine to others for a while."""
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._keep(number)) for number in self.records]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        if error is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=error is not None)

    @property
    def accepted(self) -> int:
        return sum(len(record.accepted) for record in self.records.values())

    async def _keep(self, number: int) -> None:
        server = self._net.nodes[number]
        while not self._stopping:
            if not self.resting:
                traffic = Steady(server.host, server.port, self.records[number], seed=next(_seeds))
                await traffic.run(ROUND_S)
            await asyncio.sleep(POLL_S)

    async def check(self) -> None:
        """What was answered 202 is committed at the node that answered, the losers of conflicts say why not.

        That the other nodes have the same is for `assert_whole` to see.
        """
        await asyncio.gather(*(self._check(number) for number in self.records))

    async def _check(self, number: int) -> None:
        server, record = self._net.nodes[number], self.records[number]
        assert not record.surprises, record.surprises[:3]
        async with Connection(server.host, server.port) as connection:
            fates = Fates(connection)
            await fates.check_accepted(record, record.accepted)
            await fates.check_unanswered(record, record.unanswered)
            for pair in record.pairs:
                await fates.check_pair(pair)


@contextlib.contextmanager
def paused(*pids: int) -> Iterator[None]:
    """These processes get no time at all."""
    stopped = []
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
        yield
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
