"""The real CometBFT for tests: the one on the PATH or in this user's cache, else it is built into the cache.

A machine that has none and can't build it fails the tests that want one; nothing is skipped. Beside it, what
such tests order: an application of some lines that keeps its state in a file.
"""

import asyncio
import contextlib
import functools
import hashlib
import json
import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from consensus.cometbft.binary import BinaryError, find, install
from consensus.cometbft.engine import CometEngine
from consensus.cometbft.files import Home, NodeSettings, Peer, write_home
from consensus.cometbft.genesis import ConsensusParameters, genesis_file
from consensus.cometbft.keys import Key
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

CHAIN_ID = "test-chain"
BLOCK_BYTES_MAX = 1_000_000
TX_BYTES_MAX = 100_000
TXS_BYTES_MAX = 900_000
CODE_REFUSED = 7
WAIT_S_MAX = 20.0
START = bytes(32)


@functools.cache
def program() -> Path:
    """The CometBFT to test with. BCDB_COMETBFT names another one."""
    named = os.environ.get("BCDB_COMETBFT")
    try:
        return find(Path(named) if named else None).path
    except BinaryError as missing:
        if named:
            raise AssertionError(str(missing)) from missing
    try:
        return install(progress=print).path
    except BinaryError as error:
        raise AssertionError(f"These tests need CometBFT, and it could not be built: {error}") from error


class Application:
    """Orders nothing but bytes: the state is a hash chain over the transactions.

    With `file` a commit is durable before it returns. Transactions that begin with `refuse` are refused,
    those that begin with `wait` are never proposed, `break` makes finalizing fail.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.height, self.app_hash, self.time_ns, self.txs = 0, START, 0, 0
        self.blocks: list[Block] = []
        self.genesis: list[Genesis] = []
        self.hashes: dict[int, bytes] = {}
        self.checked: list[bytes] = []
        self._finalized: tuple[Block, bytes] | None = None
        if file is not None and file.exists():
            seen = json.loads(file.read_text())
            self.height, self.txs, self.app_hash = seen["height"], seen["txs"], bytes.fromhex(seen["hash"])

    def info(self) -> AppInfo:
        return AppInfo(self.height, self.app_hash, 1, b"", self.time_ns)

    async def init_chain(self, genesis: Genesis) -> InitResult:
        self.genesis.append(genesis)
        return InitResult(self.app_hash, genesis.validators)

    def check(self, tx: bytes, *, recheck: bool) -> CheckResult:
        self.checked.append(tx)
        return CheckResult(CODE_REFUSED, "not wanted") if tx.startswith(b"refuse") else CheckResult()

    async def prepare(self, proposal: Proposal) -> tuple[bytes, ...]:
        return tuple(tx for tx in proposal.txs if not tx.startswith(b"wait"))

    async def process(self, block: Block) -> bool:
        return True

    async def finalize(self, block: Block) -> Finalized:
        if any(tx.startswith(b"break") for tx in block.txs):
            raise RuntimeError("a defect of the application")
        app_hash = self.app_hash
        for tx in block.txs:
            app_hash = hashlib.sha256(app_hash + tx).digest()
        self._finalized = block, app_hash
        return Finalized(tuple(TxResult(0, b"") for _ in block.txs), app_hash)

    async def commit(self) -> Committed:
        assert self._finalized is not None, "finalize comes first"
        block, self.app_hash = self._finalized
        self.height, self.time_ns, self.txs = block.height, block.time_ns, self.txs + len(block.txs)
        self.hashes[block.height] = self.app_hash
        self.blocks.append(block)
        if self.file is not None:
            state = {"height": self.height, "txs": self.txs, "hash": self.app_hash.hex()}
            fresh = self.file.with_suffix(".new")
            fresh.write_text(json.dumps(state))
            fresh.rename(self.file)
        return Committed()


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder with a path that is short enough for sockets in it."""
    with tempfile.TemporaryDirectory(prefix="bcdb-cmt-", ignore_cleanup_errors=True) as path:
        yield Path(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def settings(path: Path, **changed: object) -> NodeSettings:
    values: dict[str, object] = {
        "app_socket": path / "abci.sock",
        "rpc": f"unix://{path}/rpc.sock",
        "tx_bytes_max": TX_BYTES_MAX,
        "p2p_listen": "127.0.0.1:0",
        "timeout_commit_s": 0.02,
        "empty_blocks_s": 30.0,
    }
    return NodeSettings(**{**values, **changed})  # type: ignore[arg-type]


def genesis(*validators: Key, time_ns: int | None = None) -> Genesis:
    began_ns = time.time_ns() - 1_000_000_000 if time_ns is None else time_ns
    return Genesis(CHAIN_ID, began_ns, tuple(Validator(key.public, 10) for key in validators), 1, b'{"a":1}')


def node(path: Path, **changed: object) -> Home:
    """The home of the only validator of a chain; written again, it stays what it is."""
    there = path / "genesis.bytes"
    key = Key(hashlib.sha256(bytes(path)).digest())
    if not there.exists():
        there.write_bytes(genesis_file(genesis(key), ConsensusParameters(BLOCK_BYTES_MAX)))
    return write_home(path / "home", settings(path, **changed), there.read_bytes(), validator_key=key)


def engine(home: Home, *, is_member: Callable[[str], bool] = lambda node_id: True) -> CometEngine:
    return CometEngine(
        chain_id=CHAIN_ID,
        binary=program(),
        home=home,
        is_member=is_member,
        block_bytes_max=TXS_BYTES_MAX,
    )


@contextlib.asynccontextmanager
async def running(made: CometEngine, application: Application) -> AsyncIterator["asyncio.Task[None]"]:
    """Start an engine and run it; in the end it is stopped, unless it has ended by itself."""
    await made.start(application)
    task = asyncio.create_task(made.run())
    try:
        yield task
    finally:
        made.stop()
        # What it has raised is for the test that waits for it.
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()


async def until(condition: Callable[[], object], what: str, *, s_max: float = WAIT_S_MAX) -> None:
    deadline = time.monotonic() + s_max
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {s_max:.0f} s"
        await asyncio.sleep(0.01)


def cluster(path: Path, count: int, *, outsiders: int = 0) -> list[Home]:
    """Homes of `count` validators that know each other, then of nodes that know them but are no members."""
    keys = [Key.generate() for _ in range(count + outsiders)]
    names = [Key.generate() for _ in keys]
    addresses = [f"127.0.0.1:{free_port()}" for _ in keys]
    document = genesis_file(genesis(*keys[:count]), ConsensusParameters(BLOCK_BYTES_MAX))
    homes = []
    for number, (key, name) in enumerate(zip(keys, names, strict=True)):
        peers = tuple(Peer(names[other].id, addresses[other]) for other in range(count) if other != number)
        own = path / str(number)
        own.mkdir()
        made = settings(own, p2p_listen=addresses[number], peers=peers, timeout_commit_s=0.1)
        homes.append(write_home(own / "home", made, document, node_key=name, validator_key=key))
    return homes


if __name__ == "__main__":
    program()
