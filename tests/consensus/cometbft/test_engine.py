"""CometEngine over the real CometBFT: ordering, admission, restarts after kills, time, peers, votes."""

import asyncio
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consensus.cometbft.process import ProcessError
from consensus.cometbft.rpc import CometRpc, NoSuchHeight, RpcUnavailable, TooLarge
from consensus.engine import Admission, EngineError, Refused
from tests.support import cometbft
from tests.support.cometbft import (
    CHAIN_ID,
    CODE_REFUSED,
    START,
    TX_BYTES_MAX,
    Application,
    cluster,
    engine,
    node,
    running,
    until,
)

ROOT = Path(__file__).parents[3]
NS = 1_000_000_000


@pytest.fixture
def place() -> Iterator[Path]:
    with cometbft.folder() as path:
        yield path


async def test_one_validator_orders_what_is_submitted(place: Path) -> None:
    application = Application()
    made = engine(node(place))
    async with running(made, application):
        (began,) = application.genesis
        assert (began.chain_id, began.initial_height) == (CHAIN_ID, 1)
        assert began.app_state.replace(b" ", b"").replace(b"\n", b"") == b'{"a":1}'
        assert made.validators == began.validators
        txs = [b"tx %d " % number + bytes(number * 100) for number in range(40)]
        assert [await made.submit(tx) for tx in txs] == [Admission.ADMITTED] * len(txs)
        await until(lambda: application.txs == len(txs), "all are in blocks")
        assert [tx for block in application.blocks for tx in block.txs] == txs
        assert [block.height for block in application.blocks] == list(range(1, application.height + 1))
        times = [block.time_ns for block in application.blocks]
        assert times == sorted(set(times))
    assert not (place / "abci.sock").exists()
    assert made.pid is None


async def test_admission(place: Path) -> None:
    application = Application()
    made = engine(node(place, mempool_txs_max=3))
    async with running(made, application):
        with pytest.raises(Refused, match="not wanted") as refused:
            await made.submit(b"refuse this")
        assert refused.value.code == CODE_REFUSED
        assert await made.submit(b"once") is Admission.ADMITTED
        assert await made.submit(b"once") is Admission.KNOWN
        await until(lambda: application.txs == 1, "it is in a block")
        assert await made.submit(b"once") is Admission.KNOWN
        for number in range(3):
            assert await made.submit(b"wait %d" % number) is Admission.ADMITTED
        assert await made.submit(b"one too many") is Admission.FULL
        assert await made.submit(b"wait 1") is Admission.FULL
        assert b"one too many" not in application.checked
    with pytest.raises(RpcUnavailable, match="can't be reached"):
        await CometRpc(f"unix://{place}/rpc.sock").status()
    assert await engine(node(place)).submit(b"nobody is there") is Admission.FULL


async def test_a_mempool_full_of_bytes_and_a_transaction_too_large(place: Path) -> None:
    made = engine(node(place, mempool_bytes_max=2 * TX_BYTES_MAX))
    async with running(made, Application()):
        for number in range(2):
            filling = (b"wait %d" % number).ljust(TX_BYTES_MAX, b".")
            assert await made.submit(filling) is Admission.ADMITTED
        assert await made.submit(b"one too many") is Admission.FULL
    made = engine(node(place))
    async with running(made, Application()):
        for size in (TX_BYTES_MAX + 1, 3 * TX_BYTES_MAX):
            with pytest.raises(TooLarge, match=f"no transaction of {size} bytes"):
                await made.submit(bytes(size))


async def test_the_child_is_killed(place: Path) -> None:
    application = Application(place / "state.json")
    home = node(place)
    for turn in range(2):
        made = engine(home)
        async with running(made, application) as run:
            assert await made.submit(b"turn %d" % turn) is Admission.ADMITTED
            await until(lambda: application.txs == turn + 1, "it is in a block")  # noqa: B023
            assert made.pid is not None
            os.kill(made.pid, signal.SIGKILL)
            with pytest.raises(ProcessError, match="ended by signal 9"):
                await run
    before = application.app_hash
    made = engine(home)
    async with running(made, application):
        assert application.app_hash == before
        assert await made.submit(b"after") is Admission.ADMITTED
        await until(lambda: application.txs == 3, "it goes on")
    # CometBFT knows the whole chain, so a state that was lost comes again, block by block.
    for height in (0, 2):
        again = Application()
        again.height, again.app_hash = height, application.hashes.get(height, START)
        async with running(engine(home), again):
            # CometBFT may have been stopped with one block more than the application has seen.
            assert again.height >= application.height
            assert again.hashes[application.height] == again.app_hash == application.app_hash
        assert len(again.genesis) == (height == 0)


APPLICATION = """
import asyncio, sys
from pathlib import Path
from tests.support.cometbft import Application, engine, node, running

async def main(place):
    application = Application(place / "state.json")
    made = engine(node(place))
    async with running(made, application) as run:
        print(application.height, application.app_hash.hex(), made.pid, flush=True)
        for number in range(100_000):
            await made.submit(b"%d of %d" % (number, application.height))
            if number % 10 == 9:
                await asyncio.sleep(0.02)
        await run

asyncio.run(main(Path(sys.argv[1])))
"""


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_the_application_is_killed(place: Path) -> None:
    """Its child is not left behind; started again, it is brought up to CometBFT's last block."""
    heights = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", APPLICATION, str(place)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            with process.stdout:
                height, _app_hash, child = (await asyncio.to_thread(process.stdout.readline)).split()
            heights.append(int(height))
            reached = int(height) + 3
            await until(lambda: Application(place / "state.json").height >= reached, "blocks")  # noqa: B023
        finally:
            process.kill()
            process.wait()
        await until(lambda: not _is_alive(int(child)), "its CometBFT has ended")  # noqa: B023
    assert heights == sorted(set(heights)), "each begins where the one before was"
    left = Application(place / "state.json")
    shutil.copy(left.file or place, place / "copy.json")
    async with running(engine(node(place)), left):
        assert not left.genesis
    again = Application()
    async with running(engine(node(place)), again):
        assert again.hashes[left.height] == left.app_hash
        # An application that has seen a block has its hash, however far it was.
        early = Application(place / "copy.json")
        assert again.hashes[early.height] == early.app_hash


async def test_an_application_that_fails_ends_the_engine(place: Path) -> None:
    made = engine(node(place))
    async with running(made, Application()) as run:
        await made.submit(b"break")
        with pytest.raises(RuntimeError, match="a defect of the application"):
            await run
    assert made.pid is None
    # And again at once, as the block is decided.
    made = engine(node(place))
    with pytest.raises(RuntimeError, match="a defect of the application"):
        await made.start(Application())
    assert made.pid is None
    assert not (place / "abci.sock").exists()


async def test_a_commit_that_fails_after_its_connection_is_gone_is_told(place: Path) -> None:
    class Failing(Application):
        def __init__(self) -> None:
            super().__init__()
            self.reached = asyncio.Event()
            self.go_on = asyncio.Event()

        async def commit(self) -> cometbft.Committed:
            if self.txs or (self._finalized is not None and self._finalized[0].txs):
                self.reached.set()
                await self.go_on.wait()
                raise OSError("the disk is gone")
            return await super().commit()

    application = Failing()
    made = engine(node(place))
    async with running(made, application) as run:
        await made.submit(b"anything")
        await application.reached.wait()
        assert made.pid is not None
        os.kill(made.pid, signal.SIGKILL)
        await asyncio.sleep(0.2)
        application.go_on.set()
        with pytest.raises(OSError, match="the disk is gone"):
            await run


async def test_an_idle_chain_keeps_time(place: Path) -> None:
    """A block has the time of the votes on the one before: without empty ones, that would be long ago."""
    application = Application()
    made = engine(node(place, empty_blocks_s=1.0))
    async with running(made, application):
        await until(lambda: application.height >= 3, "the chain idles and makes blocks")
        idle = application.blocks[-1]
        assert not idle.txs
        assert application.hashes[idle.height] == application.hashes[1], "they change nothing"
        began = time.monotonic()
        await until(lambda: application.height >= idle.height + 2, "two more")
        assert time.monotonic() - began > 0.9, "and not more than one each second"
        await asyncio.sleep(0.5)
        sent_ns = time.time_ns()
        await made.submit(b"late")
        await until(lambda: application.txs == 1, "it is in a block")
        (late,) = [block for block in application.blocks if block.txs]
        assert abs(late.time_ns - sent_ns) < 1.5 * NS


async def test_votes_and_what_is_known_of_the_chain(place: Path) -> None:
    application = Application()
    home = node(place)
    made = engine(home)
    async with running(made, application):
        await until(lambda: application.height >= 1, "the first block")
        await made.submit(b"a")
        await until(lambda: made.checkpoint is not None and made.checkpoint.height >= 2, "votes on a block")
        checkpoint = made.checkpoint
        assert checkpoint is not None
        block = application.blocks[checkpoint.height - 1]
        assert (checkpoint.chain_id, checkpoint.time_ns) == (CHAIN_ID, block.time_ns)
        assert (checkpoint.block_hash, checkpoint.app_hash) == (block.hash, application.hashes[block.height])
        (signature,) = checkpoint.signatures
        assert signature.public_key == home.validator_key
        signed = await made.rpc.commit(checkpoint.height + 1)
        assert signed.header.app_hash == checkpoint.app_hash
        (vote,) = signed.signatures
        assert vote.signature == signature.signature
        key = Ed25519PublicKey.from_public_bytes(signature.public_key)
        key.verify(vote.signature, _vote(signed.header.height, signed.round, signed.block, vote.time_ns))
        header = await made.rpc.header(checkpoint.height)
        assert (header.time_ns, header.proposer) == (block.time_ns, block.proposer)
        status = await made.rpc.status()
        assert (status.chain_id, status.node_id) == (CHAIN_ID, home.node_id)
        assert (status.voting_power, status.earliest_height, status.is_catching_up) == (10, 1, False)
        assert status.height >= checkpoint.height
        assert await made.rpc.peers() == ()
        for height in (0, 10_000):
            with pytest.raises(EngineError, match="height"):
                await made.rpc.commit(height)
        with pytest.raises(NoSuchHeight, match="10000 must be less"):
            await made.rpc.validators(10_000)


def _vote(height: int, round_: int, block: object, time_ns: int) -> bytes:
    """What a validator signs (CometBFT v0.38, proto/tendermint/types/canonical.proto), written by hand."""

    def part(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    def varint(number: int, value: int) -> bytes:
        out = bytearray([number << 3])
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    parts = varint(1, block.parts) + part(2, block.parts_hash)  # type: ignore[attr-defined]
    seconds, nanos = divmod(time_ns, NS)
    stamp = varint(1, seconds) + (varint(2, nanos) if nanos else b"")
    fixed = b"\x11" + struct.pack("<q", height) + (b"\x19" + struct.pack("<q", round_) if round_ else b"")
    block_id = part(1, block.hash) + part(2, parts)  # type: ignore[attr-defined]
    vote = varint(1, 2) + fixed + part(4, block_id) + part(5, stamp) + part(6, CHAIN_ID.encode())
    return bytes([len(vote)]) + vote


async def test_validators_peer_and_others_are_kept_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consensus.cometbft.engine.REDIAL_S", 0.5)
    first, second, stranger = cluster(place, 2, outsiders=1)
    members = {first.node_id, second.node_id}
    asked: list[str] = []

    def is_member(node_id: str) -> bool:
        asked.append(node_id)
        return node_id in members

    applications = Application(), Application()
    one, two = engine(first, is_member=is_member), engine(second, is_member=is_member)
    outside = engine(stranger)
    async with running(one, applications[0]), running(two, applications[1]):
        for made, tx in ((one, b"to one"), (two, b"to the other")):
            while await made.submit(tx) is Admission.FULL:
                # CometBFT 0.39 takes none before it has met the others.
                await asyncio.sleep(0.02)
        await until(lambda: all(each.txs == 2 for each in applications), "both have both")
        common = min(each.height for each in applications)
        assert applications[0].hashes[common] == applications[1].hashes[common]
        assert [(peer.node_id, peer.ip) for peer in await one.rpc.peers()] == [(second.node_id, "127.0.0.1")]
        kept_out = Application()
        async with running(outside, kept_out):
            await until(lambda: asked.count(stranger.node_id) >= 2, "the stranger knocks at both")
            for _ in range(20):
                # On its own side a connection is a peer until the other side closes it.
                seen = {peer.node_id for peer in (*await one.rpc.peers(), *await two.rpc.peers())}
                assert seen == members
                await asyncio.sleep(0.02)
            assert (kept_out.height, len(kept_out.genesis)) == (0, 1)
            members.add(stranger.node_id)
            # CometBFT alone may never dial again somebody who has turned it away.
            await until(lambda: kept_out.height >= common, "who is a member by now is let in")
            assert kept_out.hashes[common] == applications[0].hashes[common]
        await until(lambda: one.checkpoint is not None and one.checkpoint.height >= common, "votes")
        assert one.checkpoint is not None
        assert len({each.public_key for each in one.checkpoint.signatures}) == 2


async def test_a_home_of_another_chain_is_refused(place: Path) -> None:
    made = cometbft.CometEngine(
        chain_id="another",
        binary=cometbft.program(),
        home=node(place),
        is_member=lambda node_id: True,
        block_bytes_max=1_000,
    )
    with pytest.raises(EngineError, match="on chain 'test-chain', this node on 'another'"):
        await made.start(Application())
    assert made.pid is None


async def test_settings_that_cometbft_does_not_take_are_told(place: Path) -> None:
    home = node(place)
    config = home.path / "config" / "config.toml"
    config.write_text(config.read_text().replace('abci = "socket"', 'abci = "carrier pigeon"'))
    with pytest.raises(ProcessError, match="carrier pigeon"):
        await engine(home).start(Application())


async def test_what_cannot_be_started(place: Path) -> None:
    home = node(place)
    made = cometbft.CometEngine(
        chain_id=CHAIN_ID,
        binary=place / "nothing",
        home=home,
        is_member=lambda node_id: True,
        block_bytes_max=1_000,
    )
    with pytest.raises(ProcessError, match="nothing can't be run: No such file"):
        await made.start(Application())


async def test_an_application_that_cannot_begin(place: Path) -> None:
    class Broken(Application):
        async def init_chain(self, genesis: cometbft.Genesis) -> cometbft.InitResult:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        await engine(node(place)).start(Broken())
    away = engine(node(place, app_socket=place / "away" / "abci.sock"))
    with pytest.raises(EngineError, match="sockets of the engine can't be opened"):
        await away.start(Application())


async def test_stop_before_anything_was_done(place: Path) -> None:
    application = Application()
    made = engine(node(place))
    await made.start(application)
    pid = made.pid
    assert pid is not None
    made.stop()
    await made.run()
    assert not _is_alive(pid)


async def test_variables_of_ours_do_not_reach_cometbft(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMTHOME", str(place / "elsewhere"))
    monkeypatch.setenv("CMT_MONIKER", "not this one")
    made = engine(node(place))
    async with running(made, Application()):
        assert not (place / "elsewhere").exists()
        assert (await made.rpc.status()).moniker == "bcdb"
