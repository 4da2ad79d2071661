"""Asks a node for the fate of what its clients posted, and compares it with what they were told.

Every check raises AssertionError with the transaction and both sides of the story. It never looks into the
ledger itself: it sees what any client may see.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from bcdb.model.build import Document
from tests.support.http1 import Connection
from tests.support.traffic import POST, Pair, Record, text_of

SETTLE_S_MAX = 60.0
TAKEN = ("DoubleSpend",)
"""The rules by which the loser of a conflict may be refused or rejected."""


class Fates:
    """Reads through one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def status(self, identity: str) -> dict[str, Any]:
        """The status document, `{"status": "unknown"}` for what the node never accepted."""
        answer = await self._connection.get(f"{POST}/{identity}/status")
        if answer.status == 404:
            return {"status": "unknown"}
        assert answer.status == 200, (identity, answer)
        found = answer.json()
        assert isinstance(found, dict)
        return found

    async def settled(self, identity: str) -> dict[str, Any]:
        """The status once it is no longer pending."""
        async with asyncio.timeout(SETTLE_S_MAX):
            while (found := await self.status(identity))["status"] == "pending":
                await asyncio.sleep(0.02)
        return found

    async def check_accepted(self, record: Record, identities: Iterable[str]) -> None:
        """What was answered 202 is committed, and reads back as it was posted."""
        for identity in identities:
            fate = await self.settled(identity)
            assert fate["status"] == "committed", f"{identity} was accepted and is {fate}"
            answer = await self._connection.get(f"{POST}/{identity}")
            assert answer.status == 200, (identity, answer)
            assert answer.json() == record.accepted[identity]

    async def check_unanswered(self, record: Record, identities: Iterable[str]) -> None:
        """What got no answer may be there or not, but it breaks no rule and so is never rejected."""
        for identity in identities:
            fate = await self.settled(identity)
            assert fate["status"] in ("committed", "unknown"), f"{identity} broke no rule and is {fate}"
            if fate["status"] == "committed":
                answer = await self._connection.get(f"{POST}/{identity}")
                assert answer.json() == record.unanswered[identity]

    async def check_pair(self, pair: Pair) -> None:
        """Of two that spend one output at most one is committed, and the other one says why it is not."""
        both = (pair.first, pair.second)
        fates = [await self.settled(transaction["id"]) for transaction in both]
        story = f"{[t['id'] for t in both]}: told {pair.answers}, then {fates}"
        committed = [fate["status"] == "committed" for fate in fates]
        assert sum(committed) <= 1, f"both sides of a conflict are committed: {story}"
        for answer, fate in zip(pair.answers, fates, strict=True):
            if answer is not None and answer.status == 202:
                assert fate["status"] in ("committed", "rejected"), story
                if fate["status"] == "rejected":
                    assert fate["error"]["name"] in TAKEN, story
                    assert fate["error"]["text"], story
                    assert any(committed), f"rejected for nothing: {story}"
            elif answer is not None and answer.status == 400:
                assert answer.message.startswith(
                    tuple(f"Invalid transaction ({name}): " for name in TAKEN)
                ), story
                assert fate["status"] == "unknown", story
            elif answer is not None:
                assert answer.status in (429, 503), story
        if any(committed):
            await self._check_loser(both[committed.index(False)], story)

    async def _check_loser(self, loser: Document, story: str) -> None:
        again = await self._connection.post(POST, text_of(loser))
        assert again.status == 400, f"the loser of a conflict was taken: {again}; {story}"
        assert any(name in again.message for name in TAKEN), (again, story)

    async def check_heights(self) -> int:
        """Blocks are there without a gap up to the latest. Returns its height."""
        latest = (await self._connection.get("/api/v1/blocks/latest")).json()
        height = int(latest["height"])
        for below in range(max(1, height - 20), height + 1):
            block = (await self._connection.get(f"/api/v1/blocks/{below}")).json()
            assert block["height"] == below
            assert block["transactions"], f"block {below} is empty: {json.dumps(block)[:200]}"
        return height
