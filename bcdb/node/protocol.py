"""The frames between the node process and its workers, on one local socket of mode 0600.

A frame is a 4-byte big-endian length and one MessagePack array whose first element says which message it is.
Both ends are processes of one node and trust each other's content, but a frame that is too long or can't be
read ends the connection it came on and nothing else.
"""

from collections.abc import Iterator
from typing import Literal

from msgspec import MsgspecError, Struct
from msgspec.msgpack import Decoder, Encoder

from bcdb.ledger import Head
from bcdb.model import limits
from bcdb.model.errors import BcdbError, Overloaded, StorageFailed, Unavailable, ValidationError
from bcdb.model.transaction import Verified

VERSION = 1
"""Version of these messages; both ends must have the same, since they are started from one installation."""
PREFIX_BYTES = 4


class ProtocolError(BcdbError):
    """The other end sent what is no frame of this protocol."""


# --- what the answers carry ---------------------------------------------------------------------------------


class LocalStatus(Struct, array_like=True, frozen=True):
    """What this node knows about an id that was given to it.

    `rejected` has `name`, `text` and the `height` of the block that decided; `committed` has `height` and
    `position` (it is answered only once that height is published); `pending` and `unknown` have nothing more.
    """

    status: Literal["pending", "committed", "rejected", "unknown"]
    name: str = ""
    text: str = ""
    height: int = 0
    position: int = 0


class Settled(Struct, array_like=True, frozen=True):
    """How an accepted transaction ended: `committed` (height, position) or `rejected` (height, name, text).

    `pending` is what a caller gets when its time is over first: durable, but not decided yet. `unknown` means
    that the id is neither committed nor was it accepted by this node.
    """

    status: Literal["committed", "rejected", "pending", "unknown"]
    height: int = 0
    position: int = 0
    name: str = ""
    text: str = ""


class NodeInfo(Struct, array_like=True, frozen=True):
    """The state of the node process, for status pages and metrics.

    `node_key` and the keys of `validators` are base64 of 32 bytes; `validators` are (key, power). `cpu_s` is
    user and system time of the process; `uptime_s` is seconds since it began to serve. `in_flight` counts
    this node's bundles that wait for a block; `engine_trouble` says why the engine does not order, "" if it
    does; `app_hash` is that of `height`.
    """

    chain_id: str
    engine: str
    node_key: str
    height: int
    pending_count: int
    pending_bytes: int
    validators: list[tuple[str, int]]
    uptime_s: float
    cpu_s: float
    links: int
    flushes: int
    accepted: int
    committed: int
    rejected: int
    in_flight: int
    engine_trouble: str
    peers: int
    catching_up: bool
    is_validator: bool
    app_hash: bytes


class Refusal(Struct, array_like=True, frozen=True):
    """One item of a `Submit` that was not accepted: the `offset` in its list, and the error's name and
    text.
    """

    offset: int
    name: str
    text: str


# --- worker to node -----------------------------------------------------------------------------------------


class Hello(Struct, array_like=True, frozen=True, tag=1):
    """First frame of a link. `verifies`: the node may send it `VerifyRequest`."""

    version: int
    name: str
    verifies: bool


class Submit(Struct, array_like=True, frozen=True, tag=2):
    """Transactions to accept; item i has the number `first + i`. Answered by one `Answered`."""

    first: int
    items: list[Verified]


class Await(Struct, array_like=True, frozen=True, tag=3):
    """Asks for one `SettledAnswer` once the id is settled and published."""

    number: int
    id: bytes


class Forget(Struct, array_like=True, frozen=True, tag=4):
    """The `Await` of this number is not wanted any more."""

    number: int


class AskStatus(Struct, array_like=True, frozen=True, tag=5):
    number: int
    id: bytes


class AskInfo(Struct, array_like=True, frozen=True, tag=6):
    number: int


class VerifyResult(Struct, array_like=True, frozen=True, tag=7):
    """Answer to `VerifyRequest`: one entry for each body, None where `failures` has the reason."""

    number: int
    verified: list[Verified | None]
    failures: list[Refusal]


# --- node to worker -----------------------------------------------------------------------------------------


class Welcome(Struct, array_like=True, frozen=True, tag=1):
    version: int
    chain_id: str
    head: Head


class Answered(Struct, array_like=True, frozen=True, tag=2):
    """All of one `Submit` is durable but for the refusals."""

    first: int
    count: int
    refusals: list[Refusal]


class SettledAnswer(Struct, array_like=True, frozen=True, tag=3):
    number: int
    settled: Settled


class StatusAnswer(Struct, array_like=True, frozen=True, tag=4):
    number: int
    status: LocalStatus


class InfoAnswer(Struct, array_like=True, frozen=True, tag=5):
    number: int
    info: NodeInfo


class Published(Struct, array_like=True, frozen=True, tag=6):
    """This height is durable; readers may show it."""

    head: Head


class VerifyRequest(Struct, array_like=True, frozen=True, tag=7):
    """Transaction bodies, as they stood in a bundle, that this node has not verified yet."""

    number: int
    bodies: list[bytes]


class Declined(Struct, array_like=True, frozen=True, tag=8):
    """The request of this number can't be answered."""

    number: int
    name: str
    text: str


ToNode = Hello | Submit | Await | Forget | AskStatus | AskInfo | VerifyResult
ToWorker = (
    Welcome | Answered | SettledAnswer | StatusAnswer | InfoAnswer | Published | VerifyRequest | Declined
)

_encoder = Encoder()
_to_node: Decoder[ToNode] = Decoder(ToNode)
_to_worker: Decoder[ToWorker] = Decoder(ToWorker)


def encode(message: ToNode | ToWorker) -> bytearray:
    """The message as one frame, its length in front. Raises `ProtocolError` when it passes the frame
    limit.
    """
    frame = bytearray(PREFIX_BYTES)
    _encoder.encode_into(message, frame, PREFIX_BYTES)
    size = len(frame) - PREFIX_BYTES
    if size > limits.FRAME_BYTES_MAX:
        raise ProtocolError(f"A frame may have {limits.FRAME_BYTES_MAX} bytes, this message has {size}")
    frame[:PREFIX_BYTES] = size.to_bytes(PREFIX_BYTES, "big")
    return frame


def decode_to_node(frame: memoryview) -> ToNode:
    """Read what a worker sent. Raises `ProtocolError`."""
    try:
        return _to_node.decode(frame)
    except (MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"A worker sent a frame that can't be read: {error}") from error


def decode_to_worker(frame: memoryview) -> ToWorker:
    """Read what the node sent. Raises `ProtocolError`."""
    try:
        return _to_worker.decode(frame)
    except (MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"The node sent a frame that can't be read: {error}") from error


class FrameSplitter:
    """Cuts a byte stream into frames, whatever the pieces in which it arrives.

    Keeps at most one unfinished frame, so its memory is bounded by `limits.FRAME_BYTES_MAX` and one read.
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[memoryview]:
        """Yield each frame that `data` completes. The view is good until the next `feed`.

        Raises `ProtocolError` for a length above the limit, before any of that frame is kept.
        """
        rest = self._rest
        if rest:
            rest += data
            if len(rest) >= PREFIX_BYTES and len(rest) < PREFIX_BYTES + _size_at(rest, 0):
                return
            source = bytes(rest)
            rest.clear()
        else:
            source = data
        view, start, end = memoryview(source), 0, len(source)
        while end - start >= PREFIX_BYTES:
            stop = start + PREFIX_BYTES + _size_at(source, start)
            if stop > end:
                break
            yield view[start + PREFIX_BYTES : stop]
            start = stop
        if start < end:
            rest += view[start:]


def _size_at(data: bytes | bytearray, start: int) -> int:
    size = int.from_bytes(data[start : start + PREFIX_BYTES], "big")
    if size > limits.FRAME_BYTES_MAX:
        raise ProtocolError(f"A frame may have {limits.FRAME_BYTES_MAX} bytes, one of {size} was announced")
    return size


_OTHER_ERRORS: dict[str, type[BcdbError]] = {
    error.__name__: error for error in (Overloaded, Unavailable, StorageFailed)
}


def restore_error(name: str, text: str) -> BcdbError:
    """The error that a refusal tells of, as an exception of its own class."""
    other = _OTHER_ERRORS.get(name)
    return other(text) if other else ValidationError.restore(name, text)
