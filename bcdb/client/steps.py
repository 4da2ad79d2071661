"""How a call reaches a node: which one is asked, when it is tried again, when that ends; without any I/O.

A call is a generator: it yields `Request` and `Pause` and is sent what came of them, so that the same code
runs under `Client` and under `AsyncClient`. Nothing here may block or sleep. What one node has told is asked
of every other one: a node that is behind gets `min_height` with each request.
"""

import math
import random
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from bcdb.client.errors import Unreachable, error_of

T = TypeVar("T")

PAUSE_S_FIRST = 0.1
PAUSE_S_MAX = 5.0
TRY_SHARE = 0.75
"""What one try may take of the time that is left, where there are other nodes to ask. Of the 20 s that a call
has by default it covers all that a node may wait for a block and a commit."""
TRY_S_MIN = 1.0
API = "/api/v1"
HEIGHT = "bcdb-height"
HEIGHT_DIGITS_MAX = 18
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
    """One address, how it has behaved lately, and the highest block that it is known to have."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/").removesuffix(API)
        self.failures = 0
        self.rests_until = 0.0
        self.height = 0


class Reply(msgspec.Struct, frozen=True):
    """The answer that ended a request, and the node that gave it.

    `doubtful`: an earlier try may have arrived too. `elsewhere`: it may have arrived at another node.
    """

    response: Response
    node: Node
    doubtful: bool = False
    elsewhere: bool = False


class Road:
    """The way to one of several nodes; stays with one as long as it answers.

    `timeout_s` bounds all tries of one call together. `clock` gives seconds that never go back.
    `min_height` is a block that every node must have before it answers.
    """

    def __init__(
        self, urls: Sequence[str], *, timeout_s: float, clock: Callable[[], float], min_height: int = 0
    ) -> None:
        if not urls:
            raise ValueError("a client needs the address of at least one node")
        if min_height < 0:
            raise ValueError(f"min_height is a height, a whole number from 0, not {min_height}")
        self.nodes = [Node(url) for url in urls]
        self.timeout_s = timeout_s
        self.clock = clock
        self.height = min_height
        self._learning = threading.Lock()

    def travel(
        self,
        method: str,
        path: str,
        *,
        arguments: Arguments | None = None,
        content: bytes | None = None,
        media_type: str = "application/json",
        patient: bool = True,
        carries: bool = True,
        timeout_s: float = math.inf,
        try_s_max: float = math.inf,
    ) -> Steps[Reply]:
        """Ask until a node answers with something else than "later" or the time is over.

        Connection errors, 429 and 503 are tried again, at another node first if there is one; 429 and 503
        after their Retry-After. Raises `Unreachable`, `Overloaded` or `Unavailable` when the time is over.
        Unless `patient`, each node is asked once at most, and 429 and 503 are answers. `carries`: as `ask`.
        `timeout_s` makes the time shorter; with several nodes no try takes longer than `try_s_max`.
        """
        deadline = self.clock() + min(self.timeout_s, timeout_s)
        doubts: set[Node] = set()
        tries = 0
        while True:
            tries += 1
            node = self.nearest()
            rest = node.rests_until - self.clock()
            if rest > 0 and patient:
                yield Pause(min(rest, self.timeout_s))
            left_s = deadline - self.clock()
            share_s = min(left_s * TRY_SHARE, try_s_max) if len(self.nodes) > 1 else left_s
            outcome = yield from self.ask(
                node,
                method,
                path,
                arguments=arguments,
                content=content,
                media_type=media_type,
                patient=patient,
                carries=carries,
                timeout_s=max(share_s, TRY_S_MIN),
            )
            if isinstance(outcome, Response) and (outcome.status not in (429, 503) or not patient):
                return Reply(outcome, node, bool(doubts), bool(doubts - {node}))
            if _may_be_kept(outcome):
                doubts.add(node)
            over = max(self.nearest().rests_until, self.clock()) >= deadline
            if over or (not patient and tries >= len(self.nodes)):
                if isinstance(outcome, Response):
                    raise error_of(outcome.status, outcome.content)
                raise Unreachable(f"{self._names()} can't be reached: {outcome.reason}.")

    def ask(
        self,
        node: Node,
        method: str,
        path: str,
        *,
        arguments: Arguments | None = None,
        content: bytes | None = None,
        media_type: str = "application/json",
        patient: bool = True,
        carries: bool = True,
        timeout_s: float,
    ) -> Steps[Response | Lost]:
        """Ask this node once, and remember how it behaved and which height it told.

        `carries`: a node that is not known to have all that others told is asked to wait for it. Unless
        `patient`, 429 and 503 are answers like any other.
        """
        wanted = self.height if carries and self.height > node.height else None
        given = dict(arguments or {})
        if wanted is not None:
            given["min_height"] = wanted
        outcome = yield Request(method, node.url + path + _query(given), content, media_type, timeout_s)
        assert outcome is not None
        if isinstance(outcome, Lost) or (patient and outcome.status in (429, 503)):
            node.failures += 1
            node.rests_until = self.clock() + self._rest(node, outcome)
        else:
            node.failures, node.rests_until = 0, 0.0
        if isinstance(outcome, Response):
            self.learn(node, _told_height(outcome))
            if wanted is not None and 200 <= outcome.status < 300:
                self.learn(node, wanted)
        return outcome

    def learn(self, node: Node, height: int) -> None:
        """Remember that this node has the block `height`."""
        with self._learning:
            node.height = max(node.height, height)
            self.height = max(self.height, height)

    def nearest(self) -> Node:
        """The node that is asked next."""
        return min(self.nodes, key=lambda node: node.rests_until)

    def rested(self, *, but: Node) -> list[Node]:
        """The nodes that may be asked now, without `but`."""
        now = self.clock()
        return [node for node in self.nodes if node is not but and node.rests_until <= now]

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


def _may_be_kept(outcome: Response | Lost) -> bool:
    """Whether a write may have been stored though the node did not say so.

    A 429 says that nothing was kept, and a 503 that tells a height that its block was waited for in vain.
    After another 503 or a lost answer nobody knows.
    """
    if isinstance(outcome, Lost):
        return outcome.sent
    return outcome.status == 503 and HEIGHT not in outcome.headers


def _told_height(response: Response) -> int:
    text = response.headers.get(HEIGHT, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= HEIGHT_DIGITS_MAX else 0


def _query(arguments: Arguments) -> str:
    given = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in arguments.items()
        if value is not None
    }
    return "?" + urlencode(given, quote_via=quote) if given else ""
