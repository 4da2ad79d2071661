"""What one API worker works with, made once at its start and closed at its end.

Handlers get these parts from here and from nowhere else; none of them may block the event loop.
"""

import asyncio
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bcdb.http.metrics import Observer
from bcdb.http.policy import WritePolicy
from bcdb.http.questions import Questions
from bcdb.http.rate import RateLimit
from bcdb.http.streams import Feed
from bcdb.http.turns import Turns
from bcdb.model import Verified, limits, verify
from bcdb.node.link import NodeLink
from bcdb.node.reading import LedgerReader
from bcdb.node.settings import Settings
from bcdb.node.stores import open_reader

RATE_FILE = "rate"
LARGE_BYTES = 64 * 1024
"""Documents from here on may take long to verify, up to some tenths of a second."""


@dataclass(slots=True)
class Services:
    """The parts of a worker. `stream_ports`: ports on which there is nothing but the streams."""

    settings: Settings
    link: NodeLink
    ledger: LedgerReader
    questions: Questions
    policy: WritePolicy
    rate: RateLimit
    feed: Feed
    stream_ports: frozenset[int] = frozenset()
    observer: Observer = field(default_factory=Observer)
    turns: Turns = field(default_factory=Turns)
    _large: asyncio.Lock = field(default_factory=asyncio.Lock)
    batches: int = field(default=0)
    """Batches that are being taken in at this moment."""
    waiting_writes: int = field(default=0)
    """Writes that wait for a block before their bodies are read."""

    @classmethod
    async def open(
        cls, settings: Settings, name: str, *, stream_ports: frozenset[int] = frozenset()
    ) -> "Services":
        """Connect to the node and open the ledger and the store for reading.

        `name` tells the node who this is and is the name of the reader's own folder, e.g. `worker-0`.
        Raises `Unavailable` or `StoreError`.
        """
        link = await NodeLink.connect(settings.socket_path, name=name, verifies=True)
        try:
            ledger = LedgerReader.open(settings.ledger_path, settings.scratch_path(name), link)
        except BaseException:
            link.close()
            raise
        questions = Questions(link, partial(open_reader, settings))
        questions.prepare()
        return cls(
            settings=settings,
            link=link,
            ledger=ledger,
            questions=questions,
            policy=WritePolicy(settings.write_keys, ledger),
            rate=RateLimit(Path(settings.run_path) / RATE_FILE, settings.rate_limit),
            feed=Feed(link, ledger, limits.STREAM_BACKLOG_BLOCKS_MAX),
            stream_ports=stream_ports,
        )

    async def verify(self, raw: bytes) -> Verified:
        """`bcdb.model.verify`, of large documents only one in a turn of the loop: others get their turn.

        Raises `ValidationError`.
        """
        if len(raw) <= LARGE_BYTES:
            return verify(raw)
        async with self._large:
            await asyncio.sleep(0)
            return verify(raw)

    async def close(self) -> None:
        self.observer.move()
        self.rate.close()
        await self.questions.close()
        self.ledger.close()
        self.link.close()
