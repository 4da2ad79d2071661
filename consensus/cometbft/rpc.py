"""CometBFT's JSON-RPC, as far as bcdb asks: what is offered to the mempool, and what is known of the chain.

Over the Unix socket (or the loopback) of this node's own CometBFT. Every call has a bound in time and every
answer one in bytes; what CometBFT tells in words is told apart here, and nowhere else.
"""

import asyncio
import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from consensus.cometbft import answers
from consensus.cometbft.answers import TEXT_CHARS_MAX, ConnectedPeer, Header, SignedHeader, Status
from consensus.cometbft.channel import AnswerTooLong, Channel, ChannelError
from consensus.cometbft.files import TCP, UNIX, Peer
from consensus.engine import CODE_OK, Admission, EngineError, Refused, Validator

CALL_S_MAX = 15.0
"""Longer than CometBFT itself gives a call (10 s)."""
ANSWER_BYTES_MAX = 8 * 1024 * 1024
VALIDATORS_A_PAGE = 100
VALIDATORS_MAX = 10_000

_IN_CACHE = "tx already exists in cache"
_FULL = ("mempool is full", "mempool is still rechecking")
_TOO_LARGE = ("Tx too large", "request body too large")
_NOT_NOW = ("appConn mempool", "while node is catching up", "confirmation not received")
_NO_SUCH_HEIGHT = ("must be less than or equal to the current blockchain height", "is not available")
"""Parts of what CometBFT 0.38 and 0.39 say (mempool/errors.go, rpc/core)."""

T = TypeVar("T")


class RpcError(EngineError):
    """A call of CometBFT's RPC gave no answer that can be used."""


class RpcUnavailable(RpcError):
    """CometBFT does not answer now: it starts, ends, or has too much to do."""


class NoSuchHeight(RpcError):
    """CometBFT does not have this height, not yet or no more."""


class TooLarge(RpcError):
    """The transaction is larger than the `tx_bytes_max` of the node's settings."""


class CometRpc:
    """A client of the RPC at `address`: `unix:///path`, or `tcp://` with a host and a port."""

    def __init__(self, address: str) -> None:
        if address.startswith(UNIX):
            self._channel = Channel(Path(address.removeprefix(UNIX)))
        else:
            host, _, port = address.removeprefix(TCP).rpartition(":")
            self._channel = Channel((host.strip("[]"), int(port)))
        self._address = address

    def close(self) -> None:
        self._channel.close()

    async def broadcast(self, tx: bytes) -> Admission:
        """Offer a transaction to the mempool, once `check` has judged it.

        ADMITTED is no promise: a mempool that fills up meanwhile drops it without a word, and so does a
        restart. KNOWN is what waits, or was decided so lately that the cache still has it. Raises `Refused`
        with the code of `check`, `TooLarge`, `RpcUnavailable`.
        """
        try:
            text = base64.b64encode(tx).decode()
            code, reason = await self._call(
                "broadcast_tx_sync", answers.BroadcastAnswer, answers.broadcast, tx=text
            )
        except _Told as told:
            if _IN_CACHE in told.text:
                return Admission.KNOWN
            if any(part in told.text for part in _FULL):
                return Admission.FULL
            if any(part in told.text for part in _TOO_LARGE):
                raise TooLarge(f"CometBFT takes no transaction of {len(tx)} bytes: {told.text}") from None
            if any(part in told.text for part in _NOT_NOW):
                raise RpcUnavailable(f"CometBFT takes no transactions now: {told.text}") from None
            raise
        if code != CODE_OK:
            raise Refused(code, reason)
        return Admission.ADMITTED

    async def status(self) -> Status:
        return await self._call("status", answers.StatusAnswer, answers.status)

    async def peers(self) -> tuple[ConnectedPeer, ...]:
        """The peers that are connected now."""
        return await self._call("net_info", answers.NetInfoAnswer, answers.peers)

    async def dial(self, peers: Sequence[Peer]) -> None:
        """Connect to those of these peers that are not connected; they are all that are kept from now on.

        Offered on a Unix socket only. Returns before anybody is reached.
        """
        addresses = [str(peer) for peer in peers]
        await self._call("dial_peers", msgspec.Raw, bytes, peers=addresses, persistent=True)

    async def header(self, height: int) -> Header:
        """Raises `NoSuchHeight`."""
        found = await self._call("header", answers.HeaderAnswer, answers.header_or_none, height=str(height))
        if found is None:
            raise NoSuchHeight(f"CometBFT has no block {height}")
        return found

    async def commit(self, height: int) -> SignedHeader:
        """The header of a block and the votes on it. Raises `NoSuchHeight`."""
        found = await self._call(
            "commit", answers.CommitAnswer | None, answers.signed_or_none, height=str(height)
        )
        if found is None:
            raise NoSuchHeight(f"CometBFT has no votes on a block {height}")
        return found

    async def validators(self, height: int | None = None) -> tuple[Validator, ...]:
        """Those who vote on the block of this height, by default on the next one. Raises `NoSuchHeight`."""
        found: list[Validator] = []
        page = 1
        while True:
            asked = {"page": str(page), "per_page": str(VALIDATORS_A_PAGE)}
            if height is not None:
                asked["height"] = str(height)
            # All further pages must be of the set that the first one is of.
            height, total, some = await self._call(
                "validators", answers.ValidatorsAnswer, answers.validators, **asked
            )
            found += some
            if not some or len(found) >= min(total, VALIDATORS_MAX):
                return tuple(found)
            page += 1

    async def _call(self, method: str, kind: Any, make: Callable[[Any], T], **parameters: Any) -> T:
        """The result of a call, decoded as `kind` and given to `make`.

        Raises `RpcUnavailable`, `NoSuchHeight`, `RpcError`.
        """
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters})
        try:
            async with asyncio.timeout(CALL_S_MAX):
                content = await self._channel.post(body, bytes_max=ANSWER_BYTES_MAX)
        except TimeoutError:
            text = f"CometBFT did not answer {method} within {CALL_S_MAX:.0f} s"
            raise RpcUnavailable(text) from None
        except ChannelError as error:
            text = f"CometBFT's RPC at {self._address} can't be reached: {error}"
            raise RpcUnavailable(text) from error
        except AnswerTooLong:
            text = f"CometBFT's answer to {method} is longer than {ANSWER_BYTES_MAX} bytes"
            raise RpcError(text) from None
        try:
            answer = msgspec.json.decode(content, type=_Envelope)
            if answer.error is not None:
                raise _told(method, answer.error)
            return make(msgspec.json.decode(answer.result, type=kind))
        except (msgspec.MsgspecError, ValueError) as error:
            raise RpcError(f"CometBFT's answer to {method} is not as expected: {error}") from error


class _Told(RpcError):
    """What CometBFT answers instead of a result."""

    def __init__(self, method: str, text: str) -> None:
        super().__init__(f"CometBFT can't answer {method}: {text}")
        self.text = text


def _told(method: str, error: "_Error") -> RpcError:
    text = (error.data or error.message)[:TEXT_CHARS_MAX]
    if any(part in text for part in _NO_SUCH_HEIGHT):
        return NoSuchHeight(f"CometBFT can't answer {method}: {text}")
    return _Told(method, text)


class _Error(msgspec.Struct):
    message: str = ""
    data: str = ""


class _Envelope(msgspec.Struct):
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None
