"""Clients that post all kinds of transactions at once and remember exactly what they were told.

They run until they are stopped or the node dies. What they write down is compared with the ledger afterwards,
so nothing may be written down that was not read from a whole answer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import random
from collections.abc import Coroutine

from bcdb.model import KeyPair, prepare_create, prepare_transfer, sign
from bcdb.model.build import Document
from tests.support.http1 import Answer, Connection

POST = "/api/v1/transactions"
BATCH_ITEMS = 12
UNPLANNED = frozenset({429, 503})
"""Refusals of a node that is busy or going down: nothing was accepted."""


def text_of(transaction: Document) -> bytes:
    return json.dumps(transaction).encode()


@dataclasses.dataclass
class Pair:
    """Two TRANSFERs that spend one output, and what was answered to each: None means no answer."""

    first: Document
    second: Document
    answers: list[Answer | None]


@dataclasses.dataclass
class Record:
    """All the clients were told. `accepted`: id → transaction, of every 202 outside planted conflicts."""

    accepted: dict[str, Document] = dataclasses.field(default_factory=dict)
    unanswered: dict[str, Document] = dataclasses.field(default_factory=dict)
    pairs: list[Pair] = dataclasses.field(default_factory=list)
    surprises: list[str] = dataclasses.field(default_factory=list)

    def heard(self, identity: str) -> None:
        """A 202 was read this moment. For those who want to look at something at that very moment."""

    def note(self, transaction: Document, answer: Answer | None) -> bool:
        """Write down the answer to a transaction that breaks no rule. True when it is accepted."""
        if answer is not None and answer.status in (202, 504):
            self.heard(transaction["id"])
            self.accepted[transaction["id"]] = transaction
            return True
        if answer is None or answer.status in UNPLANNED:
            self.unanswered[transaction["id"]] = transaction
        else:
            self.surprises.append(f"{transaction['id']}: {answer.status} {answer.body!r}")
        return False


class Traffic:
    """The clients of one node. `seed` makes their transactions differ from those of every other traffic."""

    def __init__(self, host: str, port: int, record: Record, *, seed: int) -> None:
        self._host, self._port = host, port
        self._record = record
        self._seed = seed
        self._random = random.Random(seed)
        self._serial = itertools.count()
        self._keys = [KeyPair.from_seed(self._random.randbytes(32)) for _ in range(4)]
        self._stopping = False

    async def run(self, seconds: float) -> None:
        """Post for about so long, or until the node is gone."""
        clients: list[Coroutine[None, None, None]] = [
            self._one_by_one(),
            self._one_by_one(),
            self._traders(concurrently=False),
            self._traders(concurrently=True),
            self._batches(),
        ]
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(client) for client in clients]
            await asyncio.wait(running, timeout=seconds)
            self._stopping = True

    def _create(self) -> Document:
        owner = self._random.choice(self._keys)
        asset = {"traffic": self._seed, "serial": next(self._serial), "padding": "x" * 200}
        return sign(prepare_create(issuers=[owner.public_key], asset=asset), owner)

    def _transfer(self, source: Document, note: str) -> Document:
        receiver = self._random.choice(self._keys).public_key
        prepared = prepare_transfer(
            inputs=[(source, 0)], recipients=[([receiver], 1)], metadata={"note": note}
        )
        return sign(prepared, self._keys)

    async def _one_by_one(self) -> None:
        async with Connection(self._host, self._port) as connection:
            while not self._stopping:
                transaction = self._create()
                try:
                    answer = await connection.post(POST, text_of(transaction))
                except ConnectionError:
                    self._record.note(transaction, None)
                    return
                self._record.note(transaction, answer)

    async def _traders(self, *, concurrently: bool) -> None:
        """CREATE, wait for the block, then sell it twice: one after the other, or both at once."""
        one, other = (Connection(self._host, self._port) for _ in range(2))
        async with one, other:
            while not self._stopping:
                asset = self._create()
                answer = await _answer(one, asset, mode="commit")
                if not self._record.note(asset, answer) or answer is None:
                    return
                if answer.status != 202:
                    continue
                pair = Pair(self._transfer(asset, "a"), self._transfer(asset, "b"), [None, None])
                self._record.pairs.append(pair)
                if concurrently:
                    pair.answers = list(
                        await asyncio.gather(_answer(one, pair.first), _answer(other, pair.second))
                    )
                else:
                    pair.answers[0] = await _answer(one, pair.first)
                    pair.answers[1] = await _answer(other, pair.second)
                if None in pair.answers:
                    return

    async def _batches(self) -> None:
        async with Connection(self._host, self._port) as connection:
            while not self._stopping:
                sent = [self._create() for _ in range(BATCH_ITEMS)]
                body = b"\n".join(map(text_of, sent))
                try:
                    answer = await connection.post(f"{POST}/batch", body, "application/x-ndjson")
                except ConnectionError:
                    for transaction in sent:
                        self._record.note(transaction, None)
                    return
                lines = (
                    [json.loads(line) for line in answer.body.splitlines()] if answer.status == 200 else []
                )
                if len(lines) != len(sent) and answer.status not in UNPLANNED:
                    self._record.surprises.append(f"batch: {answer.status} {answer.body!r}")
                for transaction, line in zip(sent, lines, strict=False):
                    if line["status"] in ("pending", "committed") and line["id"] == transaction["id"]:
                        self._record.accepted[transaction["id"]] = transaction
                    elif line.get("error", {}).get("name") not in ("Overloaded", "Unavailable"):
                        self._record.surprises.append(f"batch item {transaction['id']}: {line}")


async def _answer(connection: Connection, transaction: Document, mode: str = "async") -> Answer | None:
    try:
        return await connection.post(f"{POST}?mode={mode}", text_of(transaction))
    except ConnectionError:
        return None
