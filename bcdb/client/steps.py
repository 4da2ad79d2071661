"""How a call reaches a node: which one is asked, when it is tried again, when that ends; without any I/O.

A call is a generator: it yields `Request` and `Pause` and is sent what came of them, so that the same code
runs under `Client` and under `AsyncClient`. Nothing here may block or sleep.
"""

import random
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from bcdb.client.errors import Unreachable, error_of

T = TypeVar("T")

PAUSE_S_FIRST = 0.1
PAUSE_S_MAX = 5.0
API = "/api/v1"
Arguments = Mapping[str, str | int | bool | None]
"""Arguments of a request by name; None means not given."""


class Request(msgspec.Struct, frozen=True):
    """One HTTP request. `url` is whole; `timeout_s` bounds the wait for each part of the answer."""

    method: str
    url: str
    content: bytes | None = None
    media_type: str = "application/json"
    timeout_s: float = 20.0


class Response(msgspec.Struct, frozen=True):
    """An answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    content: bytes


class Lost(msgspec.Struct, frozen=True):
    """There was no answer. `sent`: the request may have reached the node all the same."""

    reason: str
    sent: bool


class Pause(msgspec.Struct, frozen=True):
    """Wait this long before going on; the answer to it is None."""

    seconds: float


Step = Request | Pause
Outcome = Response | Lost | None
Steps = Generator[Step, Outcome, T]


class Node:
    """One address and how it has behaved lately."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/").removesuffix(API)
        self.failures = 0
        self.rests_until = 0.0


class Reply(msgspec.Struct, frozen=True):
    """The answer that ended a request. `doubtful`: an earlier try may have arrived too."""

    response: Response
    doubtful: bool


class Road:
    """The way to one of several nodes; stays with one as long as it answers.

    `timeout_s` bounds all tries of one call together. `clock` gives seconds that never go back.
    """

    def __init__(self, urls: Sequence[str], *, timeout_s: float, clock: Callable[[], float]) -> None:
        if not urls:
            raise ValueError("a client needs the address of at least one node")
        self.nodes = [Node(url) for url in urls]
        self.timeout_s = timeout_s
        self.clock = clock

    def travel(
        self,
        method: str,
        path: str,
        *,
        arguments: Arguments | None = None,
        content: bytes | None = None,
        media_type: str = "application/json",
        patient: bool = True,
    ) -> Steps[Reply]:
        """Ask until a node answers with something else than "later" or the time is over.

        Connection errors, 429 and 503 are tried again, at another node first if there is one; 429 and 503
        after their Retry-After. Raises `Unreachable`, `Overloaded` or `Unavailable` when the time is over.
        Unless `patient`, each node is asked once at most, and 429 and 503 are answers.
        """
        deadline = self.clock() + self.timeout_s
        address = path + _query(arguments or {})
        doubtful = False
        tries = 0
        while True:
            tries += 1
            node = self.nearest()
            rest = node.rests_until - self.clock()
            if rest > 0 and patient:
                yield Pause(min(rest, self.timeout_s))
            timeout_s = max(deadline - self.clock(), 1.0)
            outcome = yield Request(method, node.url + address, content, media_type, timeout_s)
            if isinstance(outcome, Response) and (outcome.status not in (429, 503) or not patient):
                node.failures, node.rests_until = 0, 0.0
                return Reply(outcome, doubtful)
            assert outcome is not None
            # A 429 says that nothing was kept. After a 503 or a lost answer nobody knows.
            doubtful = doubtful or (outcome.sent if isinstance(outcome, Lost) else outcome.status == 503)
            node.failures += 1
            node.rests_until = self.clock() + self._rest(node, outcome)
            if self.nearest().rests_until >= deadline or (not patient and tries >= len(self.nodes)):
                if isinstance(outcome, Response):
                    raise error_of(outcome.status, outcome.content)
                raise Unreachable(f"{self._names()} can't be reached: {outcome.reason}.")

    def nearest(self) -> Node:
        """The node that is asked next."""
        return min(self.nodes, key=lambda node: node.rests_until)

    def _rest(self, node: Node, outcome: Response | Lost) -> float:
        if isinstance(outcome, Response):
            try:
                return max(float(outcome.headers["retry-after"]), PAUSE_S_FIRST)
            except (KeyError, ValueError):
                pass
        pause = min(PAUSE_S_FIRST * 2.0 ** min(node.failures - 1, 10), PAUSE_S_MAX)
        # So that many clients that lost one node do not come back as one.
        return pause * random.uniform(0.75, 1.25)

    def _names(self) -> str:
        return " and ".join(node.url for node in self.nodes)


def _query(arguments: Arguments) -> str:
    given = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in arguments.items()
        if value is not None
    }
    return "?" + urlencode(given, quote_via=quote) if given else ""
