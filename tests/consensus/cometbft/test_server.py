"""The ABCI server against a client that plays CometBFT, and against clients that play something worse."""

import asyncio
import os
import random
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consensus.cometbft.framing import MESSAGE_BYTES_MAX, REQUESTS_WAITING_MAX
from consensus.cometbft.messages import ACCEPT, NEW, RECHECK, REJECT
from consensus.cometbft.server import CODE_NOT_A_MEMBER, AbciServer
from consensus.engine import (
    AppInfo,
    Block,
    CheckResult,
    Committed,
    Finalized,
    Genesis,
    InitResult,
    Proposal,
    TxResult,
    Validator,
)
from tests.consensus.cometbft.peer import Peer, frame, uvarint

MEMBER = "ab" * 20
TIME = {"seconds": 1_700_000_000, "nanos": 5}


class Recorder:
    """An application that keeps what it is asked; `hold` delays its blocks."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.results: int | None = None

    def info(self) -> AppInfo:
        return AppInfo(7, b"\7" * 32, 1, b"", 0)

    async def init_chain(self, genesis: Genesis) -> InitResult:
        self.seen.append(genesis)
        return InitResult(b"\0" * 32, genesis.validators)

    def check(self, tx: bytes, *, recheck: bool) -> CheckResult:
        if tx == b"break":
            raise RuntimeError("a defect")
        self.seen.append((tx, recheck))
        return CheckResult(0 if tx.startswith(b"good") else 9, "because")

    async def prepare(self, proposal: Proposal) -> tuple[bytes, ...]:
        self.seen.append(proposal)
        return proposal.txs[:1]

    async def process(self, block: Block) -> bool:
        return b"bad" not in block.txs

    async def finalize(self, block: Block) -> Finalized:
        await self.hold.wait()
        self.seen.append(block)
        count = len(block.txs) if self.results is None else self.results
        return Finalized(tuple(TxResult(n, b"%d" % n) for n in range(count)), b"\1" * 32)

    async def commit(self) -> Committed:
        await asyncio.sleep(0)
        return Committed(3)


@pytest.fixture
def application() -> Recorder:
    return Recorder()


@pytest.fixture
async def server(application: Recorder, tmp_path: Path) -> AsyncIterator[AbciServer]:
    running = AbciServer(
        application, tmp_path / "abci.sock", is_member=MEMBER.__eq__, block_bytes_max=4_000_000
    )
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def peer(server: AbciServer, tmp_path: Path) -> AsyncIterator[Peer]:
    async with Peer(tmp_path / "abci.sock") as connected:
        yield connected


async def test_the_calls_of_a_chain(peer: Peer, application: Recorder) -> None:
    assert (await peer.ask("echo", message="hello")).message == "hello"
    info = await peer.ask("info", abci_version="2.0.0")
    assert (info.last_block_height, info.last_block_app_hash, info.app_version) == (7, b"\7" * 32, 1)
    key = b"\2" * 32
    began = await peer.ask(
        "init_chain",
        chain_id="c",
        time=TIME,
        validators=[{"pub_key": {"ed25519": key}, "power": 10}],
        app_state_bytes=b"{}",
    )
    assert began.app_hash == b"\0" * 32
    assert application.seen[-1] == Genesis("c", 1_700_000_000_000_000_005, (Validator(key, 10),), 1, b"{}")
    assert (await peer.ask("check_tx", tx=b"good", type=NEW)).code == 0
    refused = await peer.ask("check_tx", tx=b"poor", type=RECHECK)
    assert (refused.code, refused.log) == (9, "because")
    assert application.seen[-2:] == [(b"good", False), (b"poor", True)]
    block = {"txs": [b"a", b"b"], "height": 8, "time": TIME, "proposer_address": b"\3" * 20}
    assert (await peer.ask("prepare_proposal", max_tx_bytes=1000, **block)).txs == [b"a"]
    proposal = application.seen[-1]
    assert isinstance(proposal, Proposal)
    assert proposal.bytes_max < 1000
    assert (await peer.ask("process_proposal", hash=b"h", **block)).status == ACCEPT
    assert (await peer.ask("process_proposal", **{**block, "txs": [b"bad"]})).status == REJECT
    applied = await peer.ask("finalize_block", hash=b"h", **block)
    assert [(each.code, each.data) for each in applied.tx_results] == [(0, b"0"), (1, b"1")]
    assert applied.app_hash == b"\1" * 32
    assert application.seen[-1] == Block(8, 1_700_000_000_000_000_005, b"h", b"\3" * 20, (b"a", b"b"))
    assert (await peer.ask("commit")).retain_height == 3


async def test_what_is_not_offered_is_answered(peer: Peer) -> None:
    assert not (await peer.ask("list_snapshots")).snapshots
    assert (await peer.ask("offer_snapshot", app_hash=b"x")).result == 3
    assert (await peer.ask("apply_snapshot_chunk", chunk=b"x")).result == 2
    assert (await peer.ask("load_snapshot_chunk", height=1)).chunk == b""
    assert (await peer.ask("extend_vote", height=1)).vote_extension == b""
    assert (await peer.ask("verify_vote_extension", height=1)).status == ACCEPT


async def test_only_members_may_peer(peer: Peer) -> None:
    assert (await peer.ask("query", path=f"/p2p/filter/id/{MEMBER}")).code == 0
    assert (await peer.ask("query", path=f"/p2p/filter/id/{'cd' * 20}")).code == CODE_NOT_A_MEMBER
    assert (await peer.ask("query", path="/p2p/filter/addr/10.0.0.1:26656")).code == 0
    assert (await peer.ask("query", path="/store")).code != 0


async def test_a_block_that_takes_long_holds_up_its_own_connection_only(
    server: AbciServer, peer: Peer, application: Recorder, tmp_path: Path
) -> None:
    application.hold.clear()
    peer.send("finalize_block", height=1, txs=[b"a"])
    peer.send("echo", message="after")
    async with Peer(tmp_path / "abci.sock") as other:
        for number in range(50):
            assert (await other.ask("check_tx", tx=b"good%d" % number)).code == 0
    application.hold.set()
    assert [(await peer.answer())[0] for _ in range(2)] == ["finalize_block", "echo"]


async def test_the_socket_is_for_this_user(server: AbciServer, tmp_path: Path) -> None:
    assert stat.S_IMODE(os.stat(tmp_path / "abci.sock").st_mode) == 0o600


async def test_frames_in_any_pieces(peer: Peer) -> None:
    texts = ["", "x", "y" * 127, "z" * 128, "w" * 70_000]
    stream = b"".join(frame("echo", message=text) for text in texts) + frame("flush")
    randomness = random.Random(1)
    for size in (lambda: 1, lambda: randomness.randrange(1, 9_000)):
        at = 0
        while at < len(stream):
            step = size() if at < 600 else max(size(), 3_000)
            peer.writer.write(stream[at : at + step])
            await peer.writer.drain()
            await asyncio.sleep(0)
            at += step
        assert [(await peer.answer())[1].message for _ in texts] == texts
        assert (await peer.answer())[0] == "flush"


async def test_many_and_large(peer: Peer) -> None:
    large = b"good" + bytes(20_000_000)
    peer.send("check_tx", tx=large)
    for number in range(3 * REQUESTS_WAITING_MAX):
        peer.send("check_tx", tx=b"good%d" % number)
    peer.send("flush")
    kinds = [(await peer.answer())[0] for _ in range(3 * REQUESTS_WAITING_MAX + 2)]
    assert kinds == ["check_tx"] * (len(kinds) - 1) + ["flush"]


@pytest.mark.parametrize("count", [REQUESTS_WAITING_MAX - 1, REQUESTS_WAITING_MAX, 4_500])
async def test_one_read_may_bring_more_than_may_wait(peer: Peer, count: int) -> None:
    small = frame("check_tx", tx=b"good")
    peer.writer.write(small * count)
    await peer.writer.drain()
    for _ in range(count):
        assert (await peer.answer())[0] == "check_tx"
    assert (await peer.ask("echo", message="still there")).message == "still there"


async def test_many_requests_give_way_to_other_connections(
    peer: Peer, application: Recorder, tmp_path: Path
) -> None:
    async with Peer(tmp_path / "abci.sock") as other:
        peer.writer.write(frame("check_tx", tx=b"good") * 4_000)
        asked = asyncio.create_task(other.ask("echo", message="me too"))
        for _ in range(500):
            await peer.answer()
        await asked
        for _ in range(3_500):
            await peer.answer()


@pytest.mark.parametrize(
    "sent",
    [
        uvarint(MESSAGE_BYTES_MAX + 1),
        b"\xff" * 10,
        uvarint(3) + b"\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n" * 10,
    ],
)
async def test_garbage_ends_its_connection_only(
    sent: bytes, server: AbciServer, peer: Peer, tmp_path: Path
) -> None:
    async with Peer(tmp_path / "abci.sock") as other:
        other.writer.write(sent)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await other.answer()
    assert (await peer.ask("echo", message="still here")).message == "still here"


@pytest.mark.parametrize("kind", ["insert_tx", "reap_txs"])
async def test_what_is_not_spoken_is_an_exception(kind: str, server: AbciServer, peer: Peer) -> None:
    peer.send(kind)
    seen, message = await peer.answer()
    assert (seen, kind in message.error) == ("exception", True)


async def test_a_defect_is_told_and_ends_the_engine(server: AbciServer, peer: Peer) -> None:
    peer.send("check_tx", tx=b"good")
    peer.send("check_tx", tx=b"break")
    peer.send("check_tx", tx=b"good")
    assert [(await peer.answer())[0] for _ in range(2)] == ["check_tx", "exception"]
    with pytest.raises(asyncio.IncompleteReadError):
        await peer.answer()
    assert server.failed is not None
    assert str(server.failed.result()) == "a defect"


async def test_a_wrong_number_of_results_is_a_defect(
    server: AbciServer, peer: Peer, application: Recorder
) -> None:
    application.results = 1
    peer.send("finalize_block", height=1, txs=[b"a", b"b"])
    assert "1 results for 2" in (await peer.answer())[1].error
    assert server.failed is not None
    assert server.failed.done()


async def test_another_abci_is_refused(peer: Peer) -> None:
    peer.send("info", abci_version="1.0.0")
    assert "speaks ABCI '1.0.0'" in (await peer.answer())[1].error
