"""What CometBFT's RPC tells, as values: what bcdb works with, what is on the wire, and the way between.

On the wire, 64-bit numbers are text, hashes hexadecimal, keys and signatures base64. Whatever is not so
raises `ValueError` or an error of msgspec; nothing here asks anybody anything.
"""

import base64
from dataclasses import dataclass

import msgspec

from consensus.cometbft import times
from consensus.cometbft.keys import PUBLIC_TYPE
from consensus.engine import Validator

TEXT_CHARS_MAX = 500
FLAG_COMMIT = 2
"""`CommitSignature.flag` of a validator that voted for the block; 1 is absent, 3 voted for none."""


@dataclass(frozen=True, slots=True)
class Status:
    """Where this node stands. Before the first block `height` and `earliest_height` are 0."""

    node_id: str
    moniker: str
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
    """A validator's vote on a block, or that there is none (`flag`); it signs its own time with the block."""

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


# --- on the wire ------------------------------------------------------------------------------------------


class BroadcastAnswer(msgspec.Struct):
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


class StatusAnswer(msgspec.Struct):
    node_info: _NodeInfo
    sync_info: _SyncInfo
    validator_info: _ValidatorInfo


class _Peer(msgspec.Struct):
    node_info: _NodeInfo
    is_outbound: bool
    remote_ip: str


class NetInfoAnswer(msgspec.Struct):
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


class HeaderAnswer(msgspec.Struct):
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


class CommitAnswer(msgspec.Struct):
    signed_header: _Signed
    canonical: bool = False


class _PublicKey(msgspec.Struct):
    type: str
    value: str


class _Validator(msgspec.Struct):
    pub_key: _PublicKey
    voting_power: str


class ValidatorsAnswer(msgspec.Struct):
    block_height: str
    validators: list[_Validator]
    total: str


def broadcast(seen: BroadcastAnswer) -> tuple[int, str]:
    return seen.code, seen.log[:TEXT_CHARS_MAX]


def status(seen: StatusAnswer) -> Status:
    node, sync = seen.node_info, seen.sync_info
    return Status(
        node.id,
        node.moniker,
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


def peers(seen: NetInfoAnswer) -> tuple[ConnectedPeer, ...]:
    return tuple(
        ConnectedPeer(each.node_info.id, each.node_info.moniker, each.remote_ip, each.is_outbound)
        for each in seen.peers
    )


def header_or_none(seen: HeaderAnswer) -> Header | None:
    return None if seen.header is None else _header(seen.header)


def signed_or_none(seen: CommitAnswer | None) -> SignedHeader | None:
    if seen is None or seen.signed_header.header is None or seen.signed_header.commit is None:
        return None
    commit = seen.signed_header.commit
    signatures = tuple(
        CommitSignature(
            each.block_id_flag,
            bytes.fromhex(each.validator_address),
            times.from_text(each.timestamp),
            base64.b64decode(each.signature or ""),
        )
        for each in commit.signatures
    )
    header = _header(seen.signed_header.header)
    return SignedHeader(header, _block_id(commit.block_id), commit.round, signatures, seen.canonical)


def validators(seen: ValidatorsAnswer) -> tuple[int, int, list[Validator]]:
    for each in seen.validators:
        if each.pub_key.type != PUBLIC_TYPE:
            raise ValueError(f"A validator has a key of type {each.pub_key.type[:64]!r}")
    found = [
        Validator(base64.b64decode(each.pub_key.value), int(each.voting_power)) for each in seen.validators
    ]
    return int(seen.block_height), int(seen.total), found


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
