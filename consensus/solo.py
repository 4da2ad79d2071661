"""One embedded validator: it orders alone, in this process, and makes a block whenever something waits.

It makes the same application calls in the same order as CometBFT (info, init_chain, check, prepare, process,
finalize, commit), one block at a time. It keeps nothing on disk: what it must know after a restart it asks
the application, and what waited here at a crash is lost, so who submits must offer it again.
"""

import asyncio
import hashlib
import struct
import time
from collections.abc import Callable

from consensus.engine import (
    CODE_OK,
    Admission,
    Application,
    Block,
    Checkpoint,
    Condition,
    EngineError,
    Genesis,
    Proposal,
    Refused,
    Signature,
    Signer,
    Validator,
)

POWER = 10
MEMPOOL_BYTES_MAX = 64 * 1024 * 1024
MEMPOOL_TXS_MAX = 10_000
NOT_READY_PAUSE_S = 0.02
ZERO_HASH = bytes(32)
_BLOCK_DOMAIN = b"bcdb solo block 1\0"
_CHECKPOINT_DOMAIN = b"bcdb solo checkpoint 1\0"


class SoloEngine:
    """An `Engine` of one validator.

    `signer`: the node's key, the only validator's. `block_bytes_max`: bytes of all transactions of a block.
    `clock`: nanoseconds since the epoch; a block's time is never at or before that of the block under it,
    whatever the clock does.
    """

    name = "solo"

    def __init__(
        self,
        *,
        chain_id: str,
        signer: Signer,
        block_bytes_max: int,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._chain_id = chain_id
        self._signer = signer
        self._block_bytes_max = block_bytes_max
        self._clock = clock
        self._address = address(signer.public_key)
        self._validators: tuple[Validator, ...] = ()
        self._application: Application | None = None
        self._height = 0
        self._time_ns = 0
        self._block_hash = ZERO_HASH
        self._app_hash = ZERO_HASH
        self._made = False
        self._checkpoint: Checkpoint | None = None
        self._pool: dict[bytes, bytes] = {}  # transaction -> its SHA-256, in order of arrival
        self._pool_bytes = 0
        self._wake = asyncio.Event()
        self._stopping = False
        self.on_restart: Callable[[], None] = lambda: None
        """Never called: what ends here ends for good."""

    @property
    def condition(self) -> Condition:
        return Condition()

    @property
    def validators(self) -> tuple[Validator, ...]:
        return self._validators

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Signed when it is asked for: most blocks are never looked at so closely."""
        if self._made and (self._checkpoint is None or self._checkpoint.height != self._height):
            self._checkpoint = self._sign_checkpoint()
        return self._checkpoint

    async def start(self, application: Application) -> None:
        """Take height, hashes and time from the application; begin the chain when it has none."""
        info = application.info()
        self._application = application
        self._validators = (Validator(self._signer.public_key, POWER),)
        self._height, self._time_ns = info.height, info.time_ns
        self._block_hash, self._app_hash = info.block_hash, info.app_hash
        if info.height == 0:
            result = await application.init_chain(Genesis(self._chain_id, self._clock(), self._validators))
            self._app_hash = result.app_hash
            self._validators = result.validators or self._validators

    async def submit(self, tx: bytes) -> Admission:
        """Queue a transaction for the next block. Raises `Refused`."""
        if tx in self._pool:
            return Admission.KNOWN
        if len(self._pool) >= MEMPOOL_TXS_MAX or self._pool_bytes + len(tx) > MEMPOOL_BYTES_MAX:
            return Admission.FULL
        result = self._started.check(tx, recheck=False)
        if result.code != CODE_OK:
            raise Refused(result.code, result.text)
        self._pool[tx] = hashlib.sha256(tx).digest()
        self._pool_bytes += len(tx)
        self._wake.set()
        return Admission.ADMITTED

    async def run(self) -> None:
        """Make blocks until `stop`; a block that was begun is finished."""
        while not self._stopping:
            await self._wake.wait()
            self._wake.clear()
            while self._pool and not self._stopping:
                await self._make_block(self._started)

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    @property
    def _started(self) -> Application:
        if self._application is None:
            raise EngineError("The engine was used before it was started")
        return self._application

    async def _make_block(self, application: Application) -> None:
        height = self._height + 1
        time_ns = max(self._time_ns + 1, self._clock())
        offered = tuple(self._pool)
        proposal = Proposal(height, time_ns, self._address, offered, self._block_bytes_max)
        txs = await application.prepare(proposal)
        if sum(map(len, txs)) > self._block_bytes_max:
            raise EngineError(f"The application proposes more than {self._block_bytes_max} bytes")
        if not txs:
            self._recheck(application)
            if tuple(self._pool) == offered:  # none is ready yet: it verifies on its own time
                await asyncio.sleep(NOT_READY_PAUSE_S)
            return
        block = Block(height, time_ns, self._hash(height, time_ns, txs), self._address, txs)
        if not await application.process(block):
            raise EngineError(f"The application rejects its own proposal for height {height}")
        finalized = await application.finalize(block)
        if len(finalized.results) != len(txs):
            raise EngineError(
                f"{len(txs)} transactions of height {height} gave {len(finalized.results)} results"
            )
        await application.commit()
        self._height, self._time_ns = height, time_ns
        self._block_hash, self._app_hash = block.hash, finalized.app_hash
        self._made = True
        for tx in txs:
            self._drop(tx)
        self._recheck(application)

    def _recheck(self, application: Application) -> None:
        for tx in tuple(self._pool):
            if application.check(tx, recheck=True).code != CODE_OK:
                self._drop(tx)

    def _drop(self, tx: bytes) -> None:
        if tx in self._pool:
            del self._pool[tx]
            self._pool_bytes -= len(tx)

    def _hash(self, height: int, time_ns: int, txs: tuple[bytes, ...]) -> bytes:
        digests = [self._pool.get(tx) or hashlib.sha256(tx).digest() for tx in txs]
        content = hashlib.sha256(b"".join(digests)).digest()
        header = struct.pack(">QQ", height, time_ns) + self._block_hash + self._app_hash + self._address
        chain = self._chain_id.encode()
        return hashlib.sha256(_BLOCK_DOMAIN + bytes([len(chain)]) + chain + header + content).digest()

    def _sign_checkpoint(self) -> Checkpoint:
        message = checkpoint_message(
            self._chain_id, self._height, self._time_ns, self._block_hash, self._app_hash
        )
        signature = Signature(self._signer.public_key, self._signer.sign(message))
        return Checkpoint(
            self._chain_id, self._height, self._time_ns, self._block_hash, self._app_hash, (signature,)
        )


def address(public_key: bytes) -> bytes:
    """A validator's address: the first 20 bytes of the SHA-256 of its key, as CometBFT derives it."""
    return hashlib.sha256(public_key).digest()[:20]


def checkpoint_message(chain_id: str, height: int, time_ns: int, block_hash: bytes, app_hash: bytes) -> bytes:
    """The bytes that the solo validator signs for a checkpoint: a domain tag, then every field, none
    ambiguous.
    """
    chain = chain_id.encode()
    return (
        _CHECKPOINT_DOMAIN
        + bytes([len(chain)])
        + chain
        + struct.pack(">QQ", height, time_ns)
        + block_hash
        + app_hash
    )
