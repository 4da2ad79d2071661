"""CometBFT as an `Engine`: the application's socket, the child that connects to it, and its RPC, as one.

A run begins with `start` and ends when `run` returns or raises; whoever wants another makes another engine.
When the application or CometBFT fails, both are ended: CometBFT never connects twice, and replays by itself
what the application has not committed.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from consensus.cometbft.answers import FLAG_COMMIT
from consensus.cometbft.files import Home, Peer
from consensus.cometbft.keys import address
from consensus.cometbft.process import CometProcess, ProcessError
from consensus.cometbft.rpc import CometRpc, NoSuchHeight, RpcError, RpcUnavailable
from consensus.cometbft.server import AbciServer
from consensus.engine import (
    Admission,
    AppInfo,
    Application,
    Block,
    Checkpoint,
    CheckResult,
    Committed,
    Condition,
    EngineError,
    Finalized,
    Genesis,
    InitResult,
    Proposal,
    Signature,
    Validator,
)

log = logging.getLogger(__name__)

SILENCE_S_MAX = 60.0
"""How long CometBFT may start without asking the application anything; a long replay is no silence."""
READY_PAUSE_S = 0.05
CHECKPOINT_PAUSE_S = 1.0
"""Between two looks at the votes: most checkpoints are never asked for."""
LOOK_PAUSE_S = 2.0
"""Between two looks at peers and progress, while no blocks come."""
REDIAL_S = 10.0
"""Peers that are missing for so long are dialled from here. CometBFT pauses longer and longer, up to
hours, and after a connection that was closed at once it may never dial again (p2p/switch.go,
reconnectToPeer)."""

T = TypeVar("T")


class CometEngine:
    """An `Engine` that is a CometBFT child of this process.

    `binary`: from `binary.find`. `home`: from `files.write_home`. `is_member` decides by node id (40 hex
    digits) who may peer, `peers` tells whom to dial, by default those of the home. `block_bytes_max`: what
    the application proposes at most, all transactions of a block together; less than the chain's own bound.
    `start` must be called in a thread that lives as long as the engine shall, best the main one.
    """

    name = "cometbft"

    def __init__(
        self,
        *,
        chain_id: str,
        binary: Path,
        home: Home,
        is_member: Callable[[str], bool],
        block_bytes_max: int,
        peers: Callable[[], Sequence[Peer]] | None = None,
    ) -> None:
        self._chain_id = chain_id
        self._home = home
        self._peers = peers or (lambda: home.settings.peers)
        self._missing_since_s: float | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._is_member = is_member
        self._block_bytes_max = block_bytes_max
        self._process = CometProcess(binary, home.path)
        self._server: AbciServer | None = None
        self._watched: _Watched | None = None
        self._rpc = CometRpc(home.settings.rpc)
        self._validators: tuple[Validator, ...] = ()
        self._next_hash = b""
        """`next_validators_hash` of the header that `_validators` is of."""
        self._keys: dict[bytes, bytes] = {}
        """Validators' keys by address; renewed with the set of each checkpoint."""
        self._keys_hash = b""
        self._checkpoint: Checkpoint | None = None
        self._condition = Condition("It starts", is_validator=False)
        self._stopping = asyncio.Event()
        self.on_restart: Callable[[], None] = lambda: None
        """Never called: a run that ends is not begun again here."""

    @property
    def condition(self) -> Condition:
        return self._condition

    @property
    def application_failed(self) -> bool:
        """Whether the run ended because of what the application raised."""
        return self._watched is not None and self._watched.failure is not None

    @property
    def validators(self) -> tuple[Validator, ...]:
        """The set that votes on the next block; about a second behind when it changes."""
        return self._validators

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The newest block whose app hash is voted on: the votes are those on the block after it.

        None until there are two blocks; up to some seconds behind.
        """
        return self._checkpoint

    @property
    def rpc(self) -> CometRpc:
        """For whoever wants to know more of the chain than this contract tells."""
        return self._rpc

    @property
    def pid(self) -> int | None:
        """Of the CometBFT that runs."""
        return self._process.pid

    async def start(self, application: Application) -> None:
        """Listen, start CometBFT and wait until it has replayed and answers.

        Raises what the application raised, or `EngineError`; then nothing is left running.
        """
        settings = self._home.settings
        self._watched = _Watched(application)
        self._server = AbciServer(
            self._watched,
            settings.app_socket,
            is_member=self._is_member,
            block_bytes_max=self._block_bytes_max,
        )
        try:
            try:
                await self._server.start()
                if settings.rpc_socket is not None:
                    # One that was killed leaves its socket there, and could not listen on it again.
                    settings.rpc_socket.unlink(missing_ok=True)
            except OSError as error:
                raise EngineError(f"The sockets of the engine can't be opened: {error}") from error
            await self._process.start()
            await self._until_ended(self._until_ready())
        except BaseException:
            await self._end()
            raise

    async def run(self) -> None:
        """Until `stop`. Raises what the application raised, or `EngineError` when CometBFT has ended."""
        try:
            await self._until_ended(self._follow())
        finally:
            await self._end()

    async def submit(self, tx: bytes) -> Admission:
        """Offer a transaction to CometBFT's mempool. Raises `Refused`, `EngineError`.

        FULL also when CometBFT can't be asked now: if it is gone for good, `run` tells.
        """
        try:
            return await self._rpc.broadcast(tx)
        except RpcUnavailable as error:
            log.debug("%s", error)
            return Admission.FULL

    def stop(self) -> None:
        self._stopping.set()

    async def _until_ended(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`, but no longer than CometBFT and the application go on, or until `stop`."""
        server, watched = self._server, self._watched
        assert server is not None, "start comes first"
        assert watched is not None, "start comes first"
        assert server.failed is not None, "it listens"
        working = asyncio.create_task(work)
        child = asyncio.create_task(self._process.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            everything: set[asyncio.Future[Any]] = {working, child, stopping, server.failed}
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            if child.done() and not stopping.done():
                # The application's own error tells more than that CometBFT has ended.
                await watched.quiet()
                if watched.failure is not None:
                    raise watched.failure
            if server.failed.done():
                raise server.failed.result()
            if stopping.done():
                return
            if child.done():
                code = child.result()
                how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
                raise ProcessError(f"CometBFT {how}; it said: {self._process.last_words}")
            working.result()
        finally:
            for task in (working, child, stopping):
                task.cancel()
            await asyncio.gather(working, child, stopping, return_exceptions=True)

    async def _until_ready(self) -> None:
        assert self._watched is not None, "start comes first"
        loop = asyncio.get_running_loop()
        calls, since = -1, loop.time()
        while True:
            with contextlib.suppress(RpcUnavailable):
                status = await self._rpc.status()
                break
            if self._watched.calls != calls:
                calls, since = self._watched.calls, loop.time()
            if loop.time() - since > SILENCE_S_MAX:
                text = f"CometBFT was started and is not ready after {SILENCE_S_MAX:.0f} s of silence"
                raise EngineError(f"{text}; it said: {self._process.last_words}")
            await asyncio.sleep(READY_PAUSE_S)
        if status.chain_id != self._chain_id:
            text = f"CometBFT is on chain {status.chain_id!r}, this node on {self._chain_id!r}"
            raise EngineError(f"{text}: {self._home.path} is the home of another")
        # A node that looks for peers to catch up with does not tell of a set before it has a block.
        self._validators = self._watched.first_validators
        with contextlib.suppress(RpcError):  # it is asked again soon
            if status.height > 0:
                self._validators = await self._rpc.validators()
            await self._look()
        self._watched.moved.set()

    async def _look(self) -> None:
        """See how CometBFT does."""
        status, peers = await self._rpc.status(), await self._rpc.peers()
        self._condition = Condition(
            "", len(peers), status.is_catching_up, is_validator=status.voting_power > 0
        )
        await self._redial({peer.node_id for peer in peers})

    async def _redial(self, connected: set[str]) -> None:
        wanted = self._peers()
        if all(peer.id in connected for peer in wanted):
            self._missing_since_s = None
            return
        now_s = asyncio.get_running_loop().time()
        if self._missing_since_s is None:
            self._missing_since_s = now_s
        elif now_s - self._missing_since_s >= REDIAL_S:
            self._missing_since_s = now_s
            # Names are looked up before it answers, which may take longer than anything else here.
            self._dialling = asyncio.create_task(self._dial(wanted))

    async def _dial(self, peers: Sequence[Peer]) -> None:
        try:
            await self._rpc.dial(peers)
        except RpcError as error:
            log.warning("Members can't be dialled: %s", error)

    async def _follow(self) -> None:
        """Renew what is known of votes and validators as blocks come, without end."""
        assert self._watched is not None, "start comes first"
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_PAUSE_S):
                    await self._watched.moved.wait()
            moved = self._watched.moved.is_set()
            self._watched.moved.clear()
            try:
                await self._look()
                if moved:
                    await self._renew(self._watched.height)
            except (RpcUnavailable, NoSuchHeight) as error:
                log.debug("No new checkpoint: %s", error)
            except RpcError as error:
                log.warning("No new checkpoint: %s", error)
            await asyncio.sleep(CHECKPOINT_PAUSE_S)

    async def _renew(self, height: int) -> None:
        """Take the votes on block `height`, whose header vouches for the state after the one before it."""
        if height <= 0:
            return
        signed = await self._rpc.commit(height)
        header = signed.header
        if header.next_validators_hash != self._next_hash:
            # Unknown while CometBFT catches up; then a later block asks again.
            with contextlib.suppress(NoSuchHeight):
                self._validators = await self._rpc.validators(height + 1)
                self._next_hash = header.next_validators_hash
        if not header.last_block.hash:
            return
        if header.validators_hash != self._keys_hash:
            voters = await self._rpc.validators(height)
            self._keys = {address(each.public_key): each.public_key for each in voters}
            self._keys_hash = header.validators_hash
        before = await self._rpc.header(height - 1)
        self._checkpoint = Checkpoint(
            header.chain_id,
            before.height,
            before.time_ns,
            header.last_block.hash,
            header.app_hash,
            tuple(
                Signature(self._keys[each.address], each.signature)
                for each in signed.signatures
                if each.flag == FLAG_COMMIT and each.address in self._keys
            ),
        )

    async def _end(self) -> None:
        """End everything: CometBFT first, while its questions are still answered."""
        if self._dialling is not None:
            self._dialling.cancel()
        await self._process.stop()
        if self._watched is not None:
            await self._watched.quiet()
        if self._server is not None:
            await self._server.stop()
        self._rpc.close()


class _Watched:
    """The application, with what the engine wants to know of the calls.

    A connection that breaks does not break off a call to the application: what has begun to become durable
    goes on to its end, or nobody would know what is on disk.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._running: set[asyncio.Future[Any]] = set()
        self._block: Block | None = None
        self.calls = 0
        self.height = application.info().height
        """The last block that was committed."""
        self.moved = asyncio.Event()
        self.first_validators: tuple[Validator, ...] = ()
        """The genesis's, when the chain begins with this run."""
        self.failure: BaseException | None = None
        """What a call raised, even if nobody waits for its answer any more."""
        # Called once for every transaction, and nothing is to be learnt from them.
        self.check: Callable[..., CheckResult] = application.check

    async def quiet(self) -> None:
        """Return once no call is running."""
        while self._running:
            await asyncio.wait(self._running)

    def info(self) -> AppInfo:
        self.calls += 1
        return self._application.info()

    async def init_chain(self, genesis: Genesis) -> InitResult:
        self.calls += 1
        self.first_validators = genesis.validators
        return await self._whole(self._application.init_chain(genesis))

    async def prepare(self, proposal: Proposal) -> tuple[bytes, ...]:
        return await self._whole(self._application.prepare(proposal))

    async def process(self, block: Block) -> bool:
        return await self._whole(self._application.process(block))

    async def finalize(self, block: Block) -> Finalized:
        self.calls += 1
        self._block = block
        return await self._whole(self._application.finalize(block))

    async def commit(self) -> Committed:
        self.calls += 1
        committed = await self._whole(self._application.commit())
        if self._block is not None:
            self.height = self._block.height
        self.moved.set()
        return committed

    async def _whole(self, call: Awaitable[T]) -> T:
        task = asyncio.ensure_future(call)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, call: asyncio.Future[Any]) -> None:
        self._running.discard(call)
        if self.failure is None and not call.cancelled():
            self.failure = call.exception()
