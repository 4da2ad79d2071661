"""The genesis file of a chain, as CometBFT reads it: the same bytes on every node that is told the same.

CometBFT would fill what is missing with defaults of its own version, so every consensus parameter is written.
"""

import base64
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from consensus.cometbft.keys import PUBLIC_BYTES, HomeError, address, public_json
from consensus.cometbft.times import from_text, to_text
from consensus.engine import Genesis, Validator

CHAIN_ID_CHARS_MAX = 50
BLOCK_BYTES_MAX = 100 * 1024 * 1024
POWER_MAX = (2**63 - 1) // 8
HEIGHT_MAX = 2**63 - 1
EVIDENCE_BYTES_MAX = 1024 * 1024
EVIDENCE_BLOCKS = 100_000
EVIDENCE_S = 48 * 3600
"""For how long a double vote can be told: both bounds must have passed until it can't."""
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ConsensusParameters:
    """What all validators hold a block to. `block_bytes_max` counts the whole block, its header included."""

    block_bytes_max: int
    app_version: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.block_bytes_max <= BLOCK_BYTES_MAX:
            raise HomeError(f"A block has 1 to {BLOCK_BYTES_MAX} bytes, not {self.block_bytes_max}")


def genesis_file(genesis: Genesis, parameters: ConsensusParameters) -> bytes:
    """The content of `genesis.json`. Raises `HomeError` for what CometBFT would not begin with.

    `genesis.app_state` is JSON, or nothing; its blanks may change on the way to the application.
    """
    _check(genesis)
    content: dict[str, Any] = {
        "genesis_time": to_text(genesis.time_ns),
        "chain_id": genesis.chain_id,
        "initial_height": str(genesis.initial_height),
        "consensus_params": {
            "block": {"max_bytes": str(parameters.block_bytes_max), "max_gas": "-1"},
            "evidence": {
                "max_age_num_blocks": str(EVIDENCE_BLOCKS),
                "max_age_duration": str(EVIDENCE_S * _NS),
                "max_bytes": str(min(EVIDENCE_BYTES_MAX, parameters.block_bytes_max)),
            },
            "validator": {"pub_key_types": ["ed25519"]},
            "version": {"app": str(parameters.app_version)},
            "abci": {"vote_extensions_enable_height": "0"},
        },
        "validators": [
            {
                "address": address(each.public_key).hex().upper(),
                "pub_key": public_json(each.public_key),
                "power": str(each.power),
                "name": "",
            }
            for each in sorted(genesis.validators, key=lambda each: each.public_key)
        ],
        "app_hash": "",
    }
    if genesis.app_state:
        content["app_state"] = msgspec.Raw(genesis.app_state)
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def read_genesis(content: bytes) -> Genesis:
    """What a `genesis.json` that `genesis_file` made says. Raises `HomeError` for anything else."""
    try:
        found = msgspec.json.decode(content, type=_File)
        genesis = Genesis(
            found.chain_id,
            from_text(found.genesis_time),
            tuple(
                Validator(base64.b64decode(each.pub_key.value, validate=True), int(each.power))
                for each in found.validators
            ),
            int(found.initial_height),
            bytes(found.app_state),
        )
    except (msgspec.MsgspecError, ValueError) as error:
        raise HomeError(f"This is no genesis of a chain: {error}") from None
    _check(genesis)
    return genesis


class _Key(msgspec.Struct):
    type: Literal["tendermint/PubKeyEd25519"]
    value: str


class _Validator(msgspec.Struct):
    pub_key: _Key
    power: str


class _File(msgspec.Struct):
    chain_id: str
    genesis_time: str
    validators: list[_Validator]
    initial_height: str = "1"
    app_state: msgspec.Raw = msgspec.Raw(b"")


def _check(genesis: Genesis) -> None:
    if not 0 < len(genesis.chain_id) <= CHAIN_ID_CHARS_MAX:
        text = f"A chain id has 1 to {CHAIN_ID_CHARS_MAX} characters, not {len(genesis.chain_id)}"
        raise HomeError(text)
    if not 0 < genesis.initial_height <= HEIGHT_MAX:
        raise HomeError(f"A chain can't begin at height {genesis.initial_height}")
    if not genesis.validators:
        raise HomeError("A chain begins with at least one validator")
    keys = {each.public_key for each in genesis.validators}
    if len(keys) < len(genesis.validators) or any(len(key) != PUBLIC_BYTES for key in keys):
        raise HomeError(f"Each validator has a key of its own, of {PUBLIC_BYTES} bytes")
    if any(each.power <= 0 for each in genesis.validators):
        raise HomeError("The voting power of a validator is above 0")
    if sum(each.power for each in genesis.validators) > POWER_MAX:
        raise HomeError(f"All voting power together is at most {POWER_MAX}")
    try:
        if genesis.app_state:
            msgspec.json.decode(genesis.app_state)
    except msgspec.MsgspecError as error:
        raise HomeError(f"The application's state in a genesis is JSON: {error}") from error
