"""What the genesis of a chain says to the ledger: the state that its first block is applied on, and the
rules.

It stands as `app_state` in the genesis file, the same at every validator; a node whose ledger or limits
differ must not begin.
"""

import msgspec

from bcdb.ledger import Head
from bcdb.model import limits as ours
from bcdb.model.errors import BcdbError

FORMAT = 1


class GenesisError(BcdbError):
    """The genesis of the chain does not fit this node's ledger or limits."""


class AppState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`height` and `app_hash` (hex) of the ledger under the first block; `limits`, the version of the
    validity limits; the bounds of bundles and blocks, which every proposal is held to."""

    height: int
    app_hash: str
    format: int = FORMAT
    limits: int = ours.VERSION
    bundle_bytes_max: int = ours.BUNDLE_BYTES_MAX
    bundle_transactions_max: int = ours.BUNDLE_TRANSACTIONS_MAX
    bundle_signatures_max: int = ours.BUNDLE_SIGNATURES_MAX
    block_bytes_max: int = ours.BLOCK_BYTES_MAX
    block_transactions_max: int = ours.BLOCK_TRANSACTIONS_MAX
    block_signatures_max: int = ours.BLOCK_SIGNATURES_MAX


def app_state(head: Head) -> bytes:
    """The JSON for the genesis of a chain that goes on from this head."""
    return msgspec.json.encode(AppState(head.height, head.app_hash.hex()))


def read_app_state(content: bytes) -> AppState:
    """Raises `GenesisError`."""
    try:
        return msgspec.json.decode(content, type=AppState)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise GenesisError(f"The app_state of the genesis is not one of bcdb: {error}") from None


def check_app_state(content: bytes, initial_height: int, head: Head) -> None:
    """Whether a chain with this `app_state` can begin on the ledger with this head. Raises `GenesisError`."""
    state = read_app_state(content)
    here = AppState(head.height, head.app_hash.hex())
    if (state.height, state.app_hash) != (here.height, here.app_hash):
        raise GenesisError(
            f"The chain begins on a ledger of height {state.height} with app hash {state.app_hash[:16]}...; "
            f"the one here is at height {here.height} with {here.app_hash[:16]}...: another, or it went on."
        )
    if initial_height != state.height + 1:
        raise GenesisError(
            f"A chain on height {state.height} begins with the next, not with {initial_height}."
        )
    for name in AppState.__struct_fields__:
        told, known = getattr(state, name), getattr(here, name)
        if told != known:
            raise GenesisError(
                f"The chain has {name} {told}, this version of bcdb {known}: use the version that fits."
            )
