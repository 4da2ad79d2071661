"""Reads of the ledger in a worker: always as new as what the node has published, never newer.

A worker sees the ledger's files while the node writes them, so it may see a block before the fsync that makes
it durable. Such a block must never be shown: a power cut could take back what a client has read.
"""

import asyncio
from pathlib import Path
from typing import Protocol

from bcdb.ledger import Head, SecondaryReader, open_reader

KEEP_UP_S = 0.25
"""At 5,000 transactions a second a read then finds at most some 15 ms of catching up to do."""
KEEP_UP_ROUNDS = 40
"""For so many rounds after the last read a reader goes on to follow: 10 s."""


class Publications(Protocol):
    """Who knows the last published height: `NodeLink`, or a stand-in in tests."""

    @property
    def head(self) -> Head: ...

    async def newest(self) -> Head: ...

    async def wait_height(self, height: int, timeout_s: float | None = None) -> Head: ...


class LedgerReader:
    """One worker's view of the ledger.

    After `ready()` the view equals the published height of that moment or a later published one, and stays as
    it is until some coroutine of this process calls `ready()` again. So use what it returns without awaiting
    anything else in between; call it again after an await.
    """

    def __init__(self, reader: SecondaryReader, publications: Publications) -> None:
        self._reader = reader
        self._publications = publications
        self._was_read = False

    @classmethod
    def open(cls, ledger_path: Path, scratch_path: Path, publications: Publications) -> "LedgerReader":
        """`scratch_path`: an own folder for this process, see `Settings.scratch_path`. Raises
        `StoreError`.
        """
        return cls(open_reader(ledger_path, scratch_path), publications)

    async def ready(self) -> SecondaryReader:
        """The reader, moved to the published height. Raises `Unavailable` when the node is gone."""
        reader, publications = self._reader, self._publications
        self._was_read = True
        published = await publications.newest()
        if reader.head.height < published.height:
            reader.catch_up()
        while (seen := reader.head.height) > publications.head.height:
            await publications.wait_height(seen)
        return reader

    async def keep_up(self) -> None:
        """Catch up now and then while there are reads, until cancelled.

        Else each read that comes after a pause would have to take in all that was written meanwhile. Without
        reads the reader falls behind on purpose: following costs 10 µs a transaction in every worker. What a
        read has to take in then is bounded by RocksDB's own log (`LOG_BYTES_MAX`): some tenths of a second.
        """
        quiet = 0
        while True:
            await asyncio.sleep(KEEP_UP_S)
            quiet = 0 if self._was_read else quiet + 1
            self._was_read = False
            if quiet <= KEEP_UP_ROUNDS and self._reader.head.height < self._publications.head.height:
                self._reader.catch_up()

    def close(self) -> None:
        self._reader.close()
