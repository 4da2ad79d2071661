"""The contract between what orders and what is ordered: `Engine` and `Application`, and what passes between
them.

The calls are those of ABCI 2.0, so that an application that serves one engine serves the others; an engine
may never look into the bytes it orders. Times are integer nanoseconds since the epoch, hashes 32 bytes,
heights count from 1 and height 0 is the state before the first block.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

CODE_OK = 0


class EngineError(Exception):
    """The engine or the application broke this contract; ordering can't go on."""


class Refused(Exception):
    """`check` gave a code other than 0 for a transaction that was submitted."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Validator:
    """A member of the validator set: raw Ed25519 key of 32 bytes, voting power above 0."""

    public_key: bytes
    power: int


@dataclass(frozen=True, slots=True)
class Genesis:
    """What a chain begins with."""

    chain_id: str
    time_ns: int
    validators: tuple[Validator, ...]
    initial_height: int = 1
    app_state: bytes = b""


@dataclass(frozen=True, slots=True)
class AppInfo:
    """The application's last durable commit, all fields from one read of its storage.

    `block_hash` and `time_ns` are those of that block; an engine that keeps no blocks of its own chains on
    them.
    """

    height: int
    app_hash: bytes
    app_version: int
    block_hash: bytes
    time_ns: int


@dataclass(frozen=True, slots=True)
class InitResult:
    app_hash: bytes
    validators: tuple[Validator, ...]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """`code` 0 admits the transaction to the pool of those that wait; `text` says why not otherwise."""

    code: int = CODE_OK
    text: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a proposer offers for a block: the application picks from `txs`, `bytes_max` in all."""

    height: int
    time_ns: int
    proposer: bytes
    txs: tuple[bytes, ...]
    bytes_max: int


@dataclass(frozen=True, slots=True)
class Block:
    """A block to judge or, once decided, to apply. `proposer` is the 20-byte address of its maker."""

    height: int
    time_ns: int
    hash: bytes
    proposer: bytes
    txs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TxResult:
    """The outcome of one consensus transaction; both fields must be the same on every validator."""

    code: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Finalized:
    """What applying a block gives: one result for each of its transactions, in order, and the new app
    hash.
    """

    results: tuple[TxResult, ...]
    app_hash: bytes
    validator_updates: tuple[Validator, ...] = ()


@dataclass(frozen=True, slots=True)
class Committed:
    """`retain_height`: blocks below it may be forgotten by the engine; 0 keeps all."""

    retain_height: int = 0


@dataclass(frozen=True, slots=True)
class Signature:
    public_key: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Who vouches for the app hash that stands after a block."""

    chain_id: str
    height: int
    time_ns: int
    block_hash: bytes
    app_hash: bytes
    signatures: tuple[Signature, ...]


class Admission(Enum):
    """What became of a submitted transaction."""

    ADMITTED = "admitted"
    KNOWN = "known"
    """It waits already, or was decided a moment ago."""
    FULL = "full"
    """No room now; offer it again later."""


@dataclass(frozen=True, slots=True)
class Condition:
    """How an engine does, for people and metrics. `text` says why it does not order, "" if it does.

    `peers`: other nodes that it is connected to now. `is_catching_up`: it still fetches blocks that others
    have. `is_validator`: whether this node votes. All up to some seconds old.
    """

    text: str = ""
    peers: int = 0
    is_catching_up: bool = False
    is_validator: bool = True


class Application(Protocol):
    """What is ordered. One call at a time, but for `check`, which may come between any two.

    A call that raises ends the engine: an application that can't go on must not be asked again.
    """

    def info(self) -> AppInfo:
        """The last durable commit. Never a height whose `commit` has not returned."""

    async def init_chain(self, genesis: Genesis) -> InitResult:
        """Called while `info().height` is 0, perhaps more than once; must then give the same answer."""

    def check(self, tx: bytes, *, recheck: bool) -> CheckResult:
        """May this wait for a block? Any bytes; never raises for their sake.

        `recheck`: it was admitted before, and a block has been committed since. Answers from memory.
        """

    async def prepare(self, proposal: Proposal) -> tuple[bytes, ...]:
        """Pick what to propose, changing no state. What it picks passes its own `process`."""

    async def process(self, block: Block) -> bool:
        """Is this proposal well-formed? A function of the block and the committed state alone."""

    async def finalize(self, block: Block) -> Finalized:
        """Apply a decided block in memory. May be called again for the same height before `commit`."""

    async def commit(self) -> Committed:
        """Make the last finalized block durable, and return only then."""


class Engine(Protocol):
    """What orders. `start`, then `run` until `stop`; `submit` in between.

    `on_restart` is called when the engine begins anew: what was submitted before and is in no block is lost,
    and is to be offered again.
    """

    on_restart: Callable[[], None]

    @property
    def name(self) -> str: ...

    @property
    def condition(self) -> Condition: ...

    @property
    def validators(self) -> tuple[Validator, ...]:
        """The validator set after the last block."""

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The newest one, None before the first block of this run."""

    async def start(self, application: Application) -> None:
        """Compare notes with the application, and bring it up to the engine's last block."""

    async def run(self) -> None:
        """Order until `stop` is called. Raises what the application raised, or `EngineError`."""

    async def submit(self, tx: bytes) -> Admission:
        """Offer a transaction. Raises `Refused` when the application does not want it."""

    def stop(self) -> None:
        """Finish the block that is being made, then let `run` return."""


class Signer(Protocol):
    """A key that signs for a validator."""

    @property
    def public_key(self) -> bytes:
        """Raw Ed25519 key, 32 bytes."""

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""
