"""CometBFT's JSON-RPC, as far as bcdb asks: what is offered to the mempool, and what is known of the chain.

Over the Unix socket (or the loopback) of this node's own CometBFT. Every call has a bound in time and every
answer one in bytes; what CometBFT tells in words is told apart here, and nowhere else.
"""

import asyncio
import base64
import binascii
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from consensus.cometbft import times
from consensus.cometbft.files import TCP, UNIX
from consensus.cometbft.keys import PUBLIC_TYPE
from consensus.engine import CODE_OK, Admission, EngineError, Refused, Validator

CALL_S_MAX = 15.0
"""Longer than CometBFT itself gives a call (10 s)."""
CONNECTIONS_MAX = 32
ANSWER_BYTES_MAX = 8 * 1024 * 1024
VALIDATORS_A_PAGE = 100
VALIDATORS_MAX = 10_000
TEXT_CHARS_MAX = 500

FLAG_COMMIT = 2
"""`CommitSignature.flag` of a validator that voted for the block; 1 is absent, 3 voted for none."""

_IN_CACHE = "tx already exists in cache"
_FULL = ("mempool is full", "mempool is still rechecking")
_TOO_LARGE = "Tx too large"
_APP_AWAY = "appConn mempool"
_NO_SUCH_HEIGHT = ("must be less than or equal to the current blockchain height", "is not available")
"""Parts of what CometBFT 0.38 and 0.39 say (mempool/errors.go, rpc/core/env.go)."""

T = TypeVar("T")


class RpcError(EngineError):
    """A call of CometBFT's RPC gave no answer that can be used."""


class RpcUnavailable(RpcError):
    """CometBFT does not answer now: it starts, ends, or has too much to do."""


class NoSuchHeight(RpcError):
    """CometBFT does not have this height, not yet or no more."""


class TooLarge(RpcError):
    """The transaction is larger than the `tx_bytes_max` of the node's settings."""


@dataclass(frozen=True, slots=True)
class Status:
    """Where this node stands. Before the first block `height` and `earliest_height` are 0."""

    node_id: str
    chain_id: str
    version: str
    height: int
    block_hash: bytes
    app_hash: bytes
    """That in the header of `height`: of the state after the block before it."""
    time_ns: int
    earliest_height: int
    is_catching_up: bool
    voting_power: int


@dataclass(frozen=True, slots=True)
class ConnectedPeer:
    """A node that this one is connected to. `ip` is as this node sees it."""

    node_id: str
    moniker: str
    ip: str
    is_outbound: bool


@dataclass(frozen=True, slots=True)
class BlockId:
    """Both hashes are empty for the block under the first one."""

    hash: bytes
    parts: int
    parts_hash: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """All that a block's hash is made of. `app_hash` is of the state after the block before this one."""

    block_version: int
    app_version: int
    chain_id: str
    height: int
    time_ns: int
    last_block: BlockId
    last_commit_hash: bytes
    data_hash: bytes
    validators_hash: bytes
    next_validators_hash: bytes
    consensus_hash: bytes
    app_hash: bytes
    last_results_hash: bytes
    evidence_hash: bytes
    proposer: bytes


@dataclass(frozen=True, slots=True)
class CommitSignature:
    """A validator's vote on a block, or that there was none (`flag`); its own time is part of what it signs."""

    flag: int
    address: bytes
    time_ns: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class SignedHeader:
    """A header and the votes on it. `is_final`: the votes are those that the next block holds."""

    header: Header
    block: BlockId
    round: int
    signatures: tuple[CommitSignature, ...]
    is_final: bool


class CometRpc:
    """A client of the RPC at `address`: `unix:///path`, or `tcp://` with a host and a port."""

    def __init__(self, address: str) -> None:
        limits = httpx.Limits(max_connections=CONNECTIONS_MAX)
        if address.startswith(UNIX):
            path = address.removeprefix(UNIX)
            self._transport = httpx.AsyncHTTPTransport(uds=path, limits=limits, trust_env=False)
            self._url = httpx.URL("http://cometbft/")
        else:
            self._transport = httpx.AsyncHTTPTransport(limits=limits, trust_env=False)
            self._url = httpx.URL(f"http://{quote(address.removeprefix(TCP), safe=':[]')}/")
        self._address = address

    async def close(self) -> None:
        await self._transport.aclose()

    async def broadcast(self, tx: bytes) -> Admission:
        """Offer a transaction to the mempool, once `check` has judged it.

        ADMITTED is no promise: a mempool that fills up meanwhile drops it without a word, and so does a
        restart. KNOWN is what waits, or was decided so lately that the cache still has it. Raises `Refused`
        with the code of `check`, `TooLarge`, `RpcUnavailable`.
        """
        try:
            result = await self._call("broadcast_tx_sync", _Broadcast, tx=base64.b64encode(tx).decode())
        except _Told as told:
            if _IN_CACHE in told.text:
                return Admission.KNOWN
            if any(text in told.text for text in _FULL):
                return Admission.FULL
            if _TOO_LARGE in told.text:
                raise TooLarge(f"CometBFT takes no transaction of {len(tx)} bytes: {told.text}") from None
            if _APP_AWAY in told.text:
                raise RpcUnavailable(f"CometBFT has lost the application: {told.text}") from None
            raise
        if result.code != CODE_OK:
            raise Refused(result.code, result.log[:TEXT_CHARS_MAX])
        return Admission.ADMITTED

    async def status(self) -> Status:
        seen = await self._call("status", _Status)
        node, sync = seen.node_info, seen.sync_info
        return Status(
            node.id,
            node.network,
            node.version,
            int(sync.latest_block_height),
            bytes.fromhex(sync.latest_block_hash),
            bytes.fromhex(sync.latest_app_hash),
            times.from_text(sync.latest_block_time),
            int(sync.earliest_block_height),
            sync.catching_up,
            int(seen.validator_info.voting_power),
        )

    async def peers(self) -> tuple[ConnectedPeer, ...]:
        """The peers that are connected now."""
        seen = await self._call("net_info", _NetInfo)
        return tuple(
            ConnectedPeer(each.node_info.id, each.node_info.moniker, each.remote_ip, each.is_outbound)
            for each in seen.peers
        )

    async def header(self, height: int) -> Header:
        """Raises `NoSuchHeight`."""
        found = (await self._call("header", _HeaderAnswer, height=str(height))).header
        if found is None:
            raise NoSuchHeight(f"CometBFT has no block {height}")
        return _header(found)

    async def commit(self, height: int) -> SignedHeader:
        """The header of a block and the votes on it. Raises `NoSuchHeight`."""
        found = await self._call("commit", _CommitAnswer | None, height=str(height))
        if found is None or found.signed_header.header is None or found.signed_header.commit is None:
            raise NoSuchHeight(f"CometBFT has no votes on a block {height}")
        commit = found.signed_header.commit
        return SignedHeader(
            _header(found.signed_header.header),
            _block_id(commit.block_id),
            commit.round,
            tuple(
                CommitSignature(
                    each.block_id_flag,
                    bytes.fromhex(each.validator_address),
                    times.from_text(each.timestamp),
                    base64.b64decode(each.signature or ""),
                )
                for each in commit.signatures
            ),
            found.canonical,
        )

    async def validators(self, height: int | None = None) -> tuple[Validator, ...]:
        """The set that votes on the block of this height, by default on the next one. Raises `NoSuchHeight`."""
        found: list[Validator] = []
        page = 1
        while True:
            asked = {"page": str(page), "per_page": str(VALIDATORS_A_PAGE)}
            if height is not None:
                asked["height"] = str(height)
            answer = await self._call("validators", _Validators, **asked)
            # All further pages must be of the set that the first one is of.
            height = int(answer.block_height)
            for each in answer.validators:
                if each.pub_key.type != PUBLIC_TYPE:
                    raise RpcError(f"A validator has a key of type {each.pub_key.type[:64]!r}")
                found.append(Validator(base64.b64decode(each.pub_key.value), int(each.voting_power)))
            if not answer.validators or len(found) >= min(int(answer.total), VALIDATORS_MAX):
                return tuple(found)
            page += 1

    async def _call(self, method: str, kind: Any, **parameters: str) -> Any:
        """The result of a call, decoded. Raises `RpcUnavailable`, `NoSuchHeight`, `RpcError`."""
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters})
        try:
            async with asyncio.timeout(CALL_S_MAX):
                content = await self._post(body)
        except TimeoutError:
            text = f"CometBFT did not answer {method} within {CALL_S_MAX:.0f} s"
            raise RpcUnavailable(text) from None
        except httpx.TransportError as error:
            text = f"CometBFT's RPC at {self._address} can't be reached ({error or type(error).__name__})"
            raise RpcUnavailable(text) from error
        try:
            answer = msgspec.json.decode(content, type=_Envelope)
            if answer.error is not None:
                raise _told(method, answer.error)
            return msgspec.json.decode(answer.result, type=kind)
        except (msgspec.MsgspecError, ValueError, binascii.Error) as error:
            raise RpcError(f"CometBFT's answer to {method} is not as expected: {error}") from error

    async def _post(self, body: bytes) -> bytes:
        """The bytes of an answer. The transport is used without httpx's client, which would log each call."""
        headers = {"host": "cometbft", "content-type": "application/json", "content-length": str(len(body))}
        request = httpx.Request("POST", self._url, headers=headers, content=body)
        response = await self._transport.handle_async_request(request)
        content = bytearray()
        try:
            async for part in response.aiter_raw():
                content += part
                if len(content) > ANSWER_BYTES_MAX:
                    raise RpcError(f"An answer of CometBFT is longer than {ANSWER_BYTES_MAX} bytes")
        finally:
            await response.aclose()
        return bytes(content)


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


# --- what is on the wire: 64-bit numbers as text, hashes in hexadecimal, keys and signatures in base64 --------


class _Error(msgspec.Struct):
    message: str = ""
    data: str = ""


class _Envelope(msgspec.Struct):
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None


class _Broadcast(msgspec.Struct):
    code: int = 0
    log: str = ""


class _NodeInfo(msgspec.Struct):
    id: str
    network: str
    version: str
    moniker: str


class _SyncInfo(msgspec.Struct):
    latest_block_hash: str
    latest_app_hash: str
    latest_block_height: str
    latest_block_time: str
    earliest_block_height: str
    catching_up: bool


class _ValidatorInfo(msgspec.Struct):
    voting_power: str


class _Status(msgspec.Struct):
    node_info: _NodeInfo
    sync_info: _SyncInfo
    validator_info: _ValidatorInfo


class _Peer(msgspec.Struct):
    node_info: _NodeInfo
    is_outbound: bool
    remote_ip: str


class _NetInfo(msgspec.Struct):
    peers: list[_Peer]


class _Parts(msgspec.Struct):
    total: int
    hash: str


class _BlockId(msgspec.Struct):
    hash: str
    parts: _Parts


class _Version(msgspec.Struct):
    block: str = "0"
    app: str = "0"


class _Header(msgspec.Struct):
    version: _Version
    chain_id: str
    height: str
    time: str
    last_block_id: _BlockId
    last_commit_hash: str
    data_hash: str
    validators_hash: str
    next_validators_hash: str
    consensus_hash: str
    app_hash: str
    last_results_hash: str
    evidence_hash: str
    proposer_address: str


class _HeaderAnswer(msgspec.Struct):
    header: _Header | None = None


class _CommitSig(msgspec.Struct):
    block_id_flag: int
    validator_address: str
    timestamp: str
    signature: str | None = None


class _Commit(msgspec.Struct):
    round: int
    block_id: _BlockId
    signatures: list[_CommitSig]


class _Signed(msgspec.Struct):
    header: _Header | None = None
    commit: _Commit | None = None


class _CommitAnswer(msgspec.Struct):
    signed_header: _Signed
    canonical: bool = False


class _PublicKey(msgspec.Struct):
    type: str
    value: str


class _Validator(msgspec.Struct):
    pub_key: _PublicKey
    voting_power: str


class _Validators(msgspec.Struct):
    block_height: str
    validators: list[_Validator]
    total: str


def _block_id(seen: _BlockId) -> BlockId:
    return BlockId(bytes.fromhex(seen.hash), seen.parts.total, bytes.fromhex(seen.parts.hash))


def _header(seen: _Header) -> Header:
    return Header(
        int(seen.version.block),
        int(seen.version.app),
        seen.chain_id,
        int(seen.height),
        times.from_text(seen.time),
        _block_id(seen.last_block_id),
        bytes.fromhex(seen.last_commit_hash),
        bytes.fromhex(seen.data_hash),
        bytes.fromhex(seen.validators_hash),
        bytes.fromhex(seen.next_validators_hash),
        bytes.fromhex(seen.consensus_hash),
        bytes.fromhex(seen.app_hash),
        bytes.fromhex(seen.last_results_hash),
        bytes.fromhex(seen.evidence_hash),
        bytes.fromhex(seen.proposer_address),
    )
