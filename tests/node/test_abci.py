"""The ledger behind the ABCI socket, asked by a client that plays CometBFT.

Whatever time its blocks have against this machine's clock, the ledger keeps theirs; and however long a block
takes, the other connections are answered meanwhile.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bcdb.ledger import Head, Ledger, Outcome
from bcdb.ledger.apphash import app_hash
from bcdb.ledger.bundle import encode_bundle
from bcdb.ledger.merkle import EMPTY_ROOT
from bcdb.model import limits
from bcdb.model.keys import KeyPair, decode_key
from bcdb.node.application import CODE_BUNDLE, CODE_NOT_TAKEN, CODE_SETTLED, LedgerApplication
from bcdb.node.chain import app_state
from bcdb.node.verifiers import Verifiers
from consensus.cometbft.messages import ACCEPT, NEW, RECHECK
from consensus.cometbft.server import AbciServer
from tests.consensus.cometbft.peer import Peer
from tests.support.transactions import Signed, bob, carol, create, transfer

CHAIN = "test-chain"
MEMBER = "ab" * 20
NS = 1_000_000_000
YEAR_NS = 365 * 24 * 3600 * NS
LARGE_BUNDLES = 4
LARGE_BUNDLE_TRANSACTIONS = 750
ROUNDS_MIN = 5
"""Answers on each other connection while such a block is applied; each takes the turns of several slices."""

submitter = KeyPair.from_seed(b"p" * 32)
stranger = KeyPair.from_seed(b"s" * 32)


class Chain:
    """An application behind its socket, and CometBFT's four connections to it."""

    def __init__(self, ledger: Ledger, consensus: Peer, mempool: Peer, query: Peer) -> None:
        self.ledger = ledger
        self.consensus = consensus
        self.mempool = mempool
        self.query = query

    async def begin(self, time_ns: int) -> bytes:
        state = app_state(Head(0, 0, b"", app_hash(EMPTY_ROOT), 0))
        began = await self.consensus.ask(
            "init_chain", chain_id=CHAIN, time=_timestamp(time_ns), app_state_bytes=state, initial_height=1
        )
        return bytes(began.app_hash)

    def block(self, time_ns: int, *txs: bytes) -> dict[str, Any]:
        height = self.ledger.head.height + 1
        proposer = bytes([height]) * 20
        return {"txs": txs, "height": height, "time": _timestamp(time_ns), "proposer_address": proposer}

    async def decide(self, time_ns: int, *txs: bytes) -> list[object]:
        """One block from proposal to commit. Returns all that was answered."""
        block = self.block(time_ns, *txs)
        proposed = await self.consensus.ask("prepare_proposal", max_tx_bytes=2**22, **block)
        block["txs"] = list(proposed.txs)
        judged = await self.consensus.ask("process_proposal", hash=b"h" * 32, **block)
        applied = await self.consensus.ask("finalize_block", hash=b"h" * 32, **block)
        committed = await self.consensus.ask("commit")
        results = [(each.code, each.data) for each in applied.tx_results]
        return [list(proposed.txs), judged.status, results, applied.app_hash, committed.retain_height]

    async def check(self, tx: bytes, kind: int = NEW) -> int:
        code: int = (await self.mempool.ask("check_tx", tx=tx, type=kind)).code
        return code


def quota_bytes(key: bytes) -> int | None:
    return 2**23 if key == decode_key(submitter.public_key) else None


@contextlib.asynccontextmanager
async def chain(folder: Path) -> AsyncIterator[Chain]:
    folder.mkdir()
    ledger = Ledger.open(folder / "ledger", chain_id=CHAIN)

    async def durable(mark: int) -> None:
        await asyncio.to_thread(ledger.flush)

    def committed(outcome: Outcome, txs: Sequence[bytes]) -> None:
        assert outcome.head == ledger.head

    application = LedgerApplication(
        ledger,
        Verifiers(),
        written=lambda: None,
        durable=durable,
        committed=committed,
        quota_bytes=quota_bytes,
    )
    socket = folder / "abci.sock"
    server = AbciServer(application, socket, is_member=MEMBER.__eq__, block_bytes_max=limits.BLOCK_BYTES_MAX)
    await server.start()
    try:
        async with Peer(socket) as consensus, Peer(socket) as mempool, Peer(socket) as query:
            yield Chain(ledger, consensus, mempool, query)
    finally:
        await server.stop()
        ledger.close()


def bundle(*transactions: Signed, of: KeyPair = submitter) -> bytes:
    bodies = [found.raw for found in transactions]
    return encode_bundle(CHAIN, decode_key(of.public_key), bodies, of.sign)


def _timestamp(time_ns: int) -> dict[str, int]:
    seconds, nanos = divmod(time_ns, NS)
    return {"seconds": seconds, "nanos": nanos}


def now_ns() -> int:
    return 1_800_000_000 * NS


CLOCKS = {
    "as they should be": [now_ns() + at * NS for at in range(5)],
    "behind": [1 + at for at in range(5)],
    "ahead": [now_ns() + 200 * YEAR_NS + at * NS for at in range(5)],
    "stalled": [now_ns() + at for at in range(5)],
    "leaping": [now_ns(), now_ns() + 1, now_ns() + 50 * YEAR_NS, now_ns() + 50 * YEAR_NS + 1, 2**63 - 1],
}


async def live(folder: Path, times_ns: list[int]) -> list[object]:
    """A life of some blocks: all that the application answers."""
    asset = create(asset={"n": 1})
    sold = transfer([(asset, 0)], [([bob.public_key], 1)])
    resold = transfer([(asset, 0)], [([carol.public_key], 1)])
    blocks = [[bundle(asset)], [bundle(sold), bundle(resold)], [], [bundle(create(asset={"n": 2}))], []]
    told: list[object] = []
    async with chain(folder) as played:
        told.append(await played.begin(times_ns[0]))
        for time_ns, txs in zip(times_ns, blocks, strict=True):
            for tx in txs:
                told.append(await played.check(tx))
            told += await played.decide(time_ns, *txs)
            for tx in txs:
                told.append(await played.check(tx, RECHECK))
        told.append(await played.check(bundle(create(asset={"n": 3}), of=stranger)))
        told.append(await played.check(b"garbage"))
        info = await played.query.ask("info", abci_version="2.0.0")
        told += [info.last_block_height, info.last_block_app_hash]
        stored = [played.ledger.reader.block(height) for height in range(1, len(blocks) + 1)]
        assert [block and block.time_ns for block in stored] == times_ns, "the times of the blocks are kept"
        assert played.ledger.head.time_ns == times_ns[-1]
    assert told[-4:-2] == [CODE_NOT_TAKEN, CODE_BUNDLE]
    assert CODE_SETTLED in told
    return told


@pytest.mark.parametrize("times_ns", CLOCKS.values(), ids=CLOCKS)
async def test_times_are_those_of_the_blocks_whatever_the_clock_says(
    times_ns: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    for number, clock_ns in enumerate((now_ns(), 0, now_ns() + 300 * YEAR_NS)):
        monkeypatch.setattr(time, "time_ns", lambda clock_ns=clock_ns: clock_ns)
        monkeypatch.setattr(time, "time", lambda clock_ns=clock_ns: clock_ns / NS)
        told.append(await live(tmp_path / str(number), times_ns))
    assert told[0] == told[1] == told[2], "no answer depends on the clock of the machine"


async def test_the_time_of_a_block_is_part_of_the_app_hash_unless_it_is_empty(tmp_path: Path) -> None:
    told = [await live(tmp_path / name, CLOCKS[name]) for name in ("behind", "ahead")]
    assert told[0][-1] != told[1][-1]
    for name in ("behind", "ahead"):
        async with chain(tmp_path / f"{name}, empty") as played:
            first = await played.begin(now_ns())
            for time_ns in CLOCKS[name]:
                assert (await played.decide(time_ns))[3] == first


@pytest.mark.parametrize("is_known", [False, True], ids=["replayed", "proposed before"])
async def test_a_large_block_does_not_hold_up_the_other_connections(is_known: bool, tmp_path: Path) -> None:
    transactions = [
        [create(asset={"n": number, "of": of}) for number in range(LARGE_BUNDLE_TRANSACTIONS)]
        for of in range(LARGE_BUNDLES)
    ]
    large = [bundle(*each) for each in transactions]
    small = [bundle(create(asset={"small": number})) for number in range(3 * ROUNDS_MIN)]
    async with chain(tmp_path / "node") as played:
        await played.begin(now_ns())
        block = played.block(now_ns(), *large)
        if is_known:
            assert (await played.consensus.ask("process_proposal", hash=b"h", **block)).status == ACCEPT
        applying = asyncio.create_task(played.consensus.ask("finalize_block", hash=b"h", **block))
        rounds = 0
        while not applying.done():
            assert await played.check(small[rounds % len(small)]) == 0
            assert (await played.query.ask("query", path=f"/p2p/filter/id/{MEMBER}")).code == 0
            rounds += 1
        applied = await applying
        assert rounds >= ROUNDS_MIN
        assert [each.data for each in applied.tx_results] == [bytes(LARGE_BUNDLE_TRANSACTIONS)] * len(large)
        await played.consensus.ask("commit")
        assert played.ledger.head.log_size == LARGE_BUNDLES * LARGE_BUNDLE_TRANSACTIONS
        assert [await played.check(tx, RECHECK) for tx in small] == [0] * len(small)
