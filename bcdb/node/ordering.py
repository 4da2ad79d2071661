"""Which engine orders for this node, made from its settings: itself, or the CometBFT of a network.

Everything that can be wrong with a node's part in a network is told here, before anything is started.
"""

import base64
from collections.abc import Callable

import structlog
from msgspec import Struct

from bcdb.ledger import Ledger
from bcdb.model import limits
from bcdb.model.errors import SettingsError
from bcdb.model.keys import encode_key
from bcdb.node.bundler import Window
from bcdb.node.chain import GenesisError, read_app_state
from bcdb.node.identity import NodeSigner
from bcdb.node.members import Member, Members, MembersFile
from bcdb.node.settings import Settings
from consensus.cometbft.binary import find
from consensus.cometbft.engine import CometEngine
from consensus.cometbft.files import Home, NodeSettings, Peer, has_chain, node_identity, write_home
from consensus.cometbft.genesis import read_genesis
from consensus.cometbft.lasting import LastingEngine
from consensus.engine import Engine, Genesis
from consensus.solo import SoloEngine

PACE_S = 0.05
"""Between two bundles under load: some twenty a second, each a message to every peer."""
MEMPOOL_BYTES_MAX = 1024 * 1024 * 1024
MEMPOOL_TXS_MAX = 40_000

log = structlog.get_logger(__name__)


class Ordering(Struct, frozen=True):
    """An engine, and what the node must know of it: see `NodeService`."""

    engine: Engine
    base_height: int = 0
    window: Window = Window()
    quota_bytes: Callable[[bytes], int | None] | None = None


def chain_id_of(settings: Settings) -> str | None:
    """The chain that this home belongs to; None if that is for its ledger to say.

    Raises `SettingsError` when it shall be part of a network and is not yet.
    """
    if settings.engine == "solo":
        return settings.chain_id or None
    _, genesis = _read_genesis(settings)
    if settings.chain_id not in ("", genesis.chain_id):
        raise SettingsError(
            f"{settings.genesis_path} begins the chain {genesis.chain_id!r}; this home is of "
            f"{settings.chain_id!r}."
        )
    return genesis.chain_id


def make_ordering(settings: Settings, ledger: Ledger, signer: NodeSigner) -> Ordering:
    """The engine that `settings.engine` names, not started. Raises `BcdbError` or `EngineError`."""
    if settings.engine == "solo":
        engine = SoloEngine(chain_id=ledger.chain_id, signer=signer, block_bytes_max=limits.BLOCK_BYTES_MAX)
        return Ordering(engine)
    return _cometbft(settings, ledger, signer)


def _cometbft(settings: Settings, ledger: Ledger, signer: NodeSigner) -> Ordering:
    content, genesis = _read_genesis(settings)
    if genesis.chain_id != ledger.chain_id:
        raise SettingsError(
            f"{settings.genesis_path} begins the chain {genesis.chain_id!r}; the ledger here is of "
            f"{ledger.chain_id!r}."
        )
    base_height = genesis.initial_height - 1
    if read_app_state(genesis.app_state).height != base_height or ledger.head.height < base_height:
        raise GenesisError(
            f"The chain begins after height {base_height}, and the ledger here is at {ledger.head.height}: "
            "`bcdb network join` brings the ledger that it begins on."
        )
    if ledger.head.height > base_height and not has_chain(settings.cometbft_path):
        # With the record of its votes lost as well, the validator must not go on with the same key.
        raise SettingsError(
            f"The ledger here is at height {ledger.head.height}, and CometBFT's blocks are missing in "
            f"{settings.cometbft_path / 'data'}: bring that folder back, or let this node join again as a "
            "new one, with an empty home and new keys."
        )
    members = MembersFile(settings.members_path)
    binary = find(settings.cometbft)
    if not binary.is_qualified:
        log.warning("this CometBFT is not one that bcdb was tested with", version=binary.version)
    home = _write_home(settings, members, content)
    key = signer.public_key
    own = members.current.by_node_id.get(home.node_id)
    if own is None or members.current.submitter(key) is not own:
        log.warning(
            "this node is not in its own members' file as it is: others may not take its bundles",
            node_id=home.node_id,
            key=encode_key(key),
        )
    own_quota = own.quota_bytes if own else limits.SUBMITTER_QUOTA_MB * 1024 * 1024

    def quota_bytes(submitter: bytes) -> int | None:
        if submitter == key:
            return own_quota
        member = members.current.submitter(submitter)
        return None if member is None else member.quota_bytes

    def peers() -> tuple[Peer, ...]:
        return _peers(members.current, home.node_id)

    def make() -> CometEngine:
        return CometEngine(
            chain_id=ledger.chain_id,
            binary=binary.path,
            home=home,
            is_member=lambda node_id: members.current.may_peer(node_id),
            block_bytes_max=limits.BLOCK_BYTES_MAX,
            peers=peers,
        )

    wanted = sum(member.quota_bytes for member in members.current.all)
    if wanted > MEMPOOL_BYTES_MAX:
        log.warning(
            "the quotas of all members together are more than the mempool holds: some may fill it for others",
            quotas_bytes=wanted,
            mempool_bytes=MEMPOOL_BYTES_MAX,
        )
    log.info(
        "ordering with CometBFT",
        version=binary.version,
        node_id=home.node_id,
        validator=base64.b64encode(home.validator_key).decode(),
        members=len(members.current.all),
    )
    # Half of what others let wait of this node: they may not have seen yet what this one has seen committed.
    in_flight = max(own_quota // 2, limits.BUNDLE_BYTES_MAX)
    window = Window(limits.BUNDLES_IN_FLIGHT_MAX, in_flight, PACE_S, compress=True)
    return Ordering(LastingEngine(make), base_height, window, quota_bytes)


def _read_genesis(settings: Settings) -> tuple[bytes, Genesis]:
    try:
        content = settings.genesis_path.read_bytes()
    except FileNotFoundError:
        raise SettingsError(
            f"This home is of no network yet: {settings.genesis_path} is missing; "
            "`bcdb network join` brings it."
        ) from None
    except OSError as error:
        raise SettingsError(f"{settings.genesis_path} can't be read: {error.strerror}.") from None
    return content, read_genesis(content)


def _write_home(settings: Settings, members: MembersFile, genesis: bytes) -> Home:
    """Bring CometBFT's files up to the settings and the members."""
    identity = node_identity(settings.cometbft_path)
    own = members.current.by_node_id.get(identity)
    everybody = members.current.all
    return write_home(
        settings.cometbft_path,
        NodeSettings(
            app_socket=settings.abci_socket_path,
            rpc=f"unix://{settings.rpc_socket_path}",
            tx_bytes_max=limits.BUNDLE_BYTES_MAX,
            moniker=own.name if own else "bcdb",
            p2p_listen=settings.p2p_listen,
            p2p_external=settings.p2p_external,
            peers=_peers(members.current, identity),
            mempool_txs_max=min((len(everybody) + 1) * limits.SUBMITTER_BUNDLES_MAX, MEMPOOL_TXS_MAX),
            mempool_bytes_max=_mempool_bytes(everybody),
        ),
        genesis,
    )


def _peers(members: Members, identity: str) -> tuple[Peer, ...]:
    """Whom to dial: every other member that has an address."""
    return tuple(
        Peer(member.node_id, member.address)
        for member in members.all
        if member.address and member.node_id != identity
    )


def _mempool_bytes(members: tuple[Member, ...]) -> int:
    """Room for what every member may have waiting, and for this node if it is not among them."""
    alone = limits.SUBMITTER_QUOTA_MB * 1024 * 1024
    return min(sum(member.quota_bytes for member in members) + alone, MEMPOOL_BYTES_MAX)
