"""Founding a network and joining it: a card from each member, one folder for all, and each home takes it
over.

The folder has the genesis of the chain, the members' file and, when the chain goes on from the ledger of a
solo node, that ledger. Nothing in it is secret; who takes it over checks that its parts belong together.
"""

import base64
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bcdb.cli.home import locked, write_settings
from bcdb.ledger import Head, Ledger, fsck
from bcdb.ledger.apphash import app_hash
from bcdb.ledger.export import export_ledger
from bcdb.ledger.merkle import EMPTY_ROOT
from bcdb.model import limits
from bcdb.model.errors import SettingsError, StoreError
from bcdb.node.chain import app_state, check_app_state
from bcdb.node.keyfile import read_key_file
from bcdb.node.members import MEMBERS_FILE, Member, Members, members_file, read_members
from bcdb.node.settings import Settings, write_private
from consensus.cometbft.files import has_chain, make_keys
from consensus.cometbft.genesis import ConsensusParameters, genesis_file, read_genesis
from consensus.engine import Genesis, Validator

GENESIS_FILE = "genesis.json"
LEDGER_FOLDER = "ledger"
POWER = 10
BLOCK_ROOM_BYTES = 2 * 1024 * 1024
"""What a block of CometBFT has beside its transactions, evidence of double votes included."""
CARD_BYTES_MAX = 64 * 1024
GENESIS_BYTES_MAX = 16 * 1024 * 1024


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a member tells the others about its node. `validator`: base64 of the raw key that it votes
    with, "" for a node that does not vote; the rest is as in the members' file."""

    name: str
    node_id: str
    key: str
    address: str
    validator: str
    power: int = POWER
    quota_mb: int = limits.SUBMITTER_QUOTA_MB

    @property
    def member(self) -> Member:
        return Member(self.name, self.node_id, self.key, self.address, self.quota_mb)


def make_card(settings: Settings, name: str, address: str, *, votes: bool = True, power: int = POWER) -> Card:
    """The card of the node in this home. Raises `BcdbError` or `EngineError`."""
    if settings.engine != "cometbft":
        raise SettingsError(
            f"{settings.home} is the home of a node that orders alone: set engine = cometbft."
        )
    node_id, validator = make_keys(settings.cometbft_path)
    key = read_key_file(settings.node_key_path).public_key
    card = Card(name, node_id, key, address, base64.b64encode(validator).decode() if votes else "", power)
    Members([card.member])
    return card


def write_card(card: Card, path: Path) -> None:
    _publish(path, msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")


def read_card(path: Path) -> Card:
    """Raises `SettingsError`."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(CARD_BYTES_MAX), type=Card)
    except OSError as error:
        raise SettingsError(f"The card {path} can't be read: {error.strerror}.") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no card, as `bcdb network card` makes them: {error}.") from None


def found_network(
    cards: Sequence[Card], out: Path, *, chain_id: str | None = None, source: Settings | None = None
) -> Genesis:
    """Make the folder `out` of a new network; with `source` it goes on from the ledger of that stopped node.

    Raises `BcdbError` or `EngineError`. The genesis comes last: a folder without it is no network.
    """
    Members([card.member for card in cards])
    validators = tuple(
        Validator(_validator_key(card), card.power) for card in sorted(cards, key=_name) if card.validator
    )
    if not validators:
        raise SettingsError("A network needs at least one member that votes.")
    if (out / GENESIS_FILE).exists():
        raise SettingsError(f"{out} holds the genesis of a network already; it is not overwritten.")
    out.mkdir(parents=True, exist_ok=True)
    if source is None:
        head = Head(0, 0, b"", app_hash(EMPTY_ROOT), 0)
        name = chain_id or f"bcdb-{secrets.token_hex(4)}"
    else:
        if chain_id not in (None, source.chain_id):
            raise SettingsError(f"The ledger is of the chain {source.chain_id!r}, and stays of it.")
        if not source.ledger_path.exists():
            raise SettingsError(f"There is no ledger in {source.home}: name the home of a stopped node.")
        with locked(source):
            head = export_ledger(source.ledger_path, out / LEDGER_FOLDER)
        name = source.chain_id
    began_ns = max(time.time_ns(), head.time_ns + 1)
    genesis = Genesis(name, began_ns, validators, head.height + 1, app_state(head))
    parameters = ConsensusParameters(limits.BLOCK_BYTES_MAX + BLOCK_ROOM_BYTES)
    _publish(out / MEMBERS_FILE, members_file([card.member for card in sorted(cards, key=_name)]).encode())
    _publish(out / GENESIS_FILE, genesis_file(genesis, parameters))
    return genesis


def join_network(folder: Path, settings: Settings) -> Genesis:
    """Make this home a part of the network of `folder`, as `found_network` has made it.

    A ledger that is there already must be the one on which the chain begins; it, or the one from the folder,
    is derived anew from its transactions before it is believed. A members' file that is there is kept. Raises
    `BcdbError` or `EngineError`; then the home is as it was.
    """
    try:
        content = (folder / GENESIS_FILE).read_bytes()[:GENESIS_BYTES_MAX]
    except OSError as error:
        raise SettingsError(f"{folder / GENESIS_FILE} can't be read: {error.strerror}.") from None
    genesis = read_genesis(content)
    members = read_members(folder / MEMBERS_FILE)
    node_id, _ = make_keys(settings.cometbft_path)
    if node_id not in members.by_node_id:
        raise SettingsError(
            f"This node ({node_id}) is not among the members of the network: give its card "
            "(`bcdb network card`) to whoever founds it, or have it added to members.toml everywhere."
        )
    if settings.genesis_path.exists() and settings.genesis_path.read_bytes() != content:
        raise SettingsError(f"{settings.home} is of another network already: use a home of its own for each.")
    with locked(settings):
        if not has_chain(settings.cometbft_path):
            _bring_ledger(folder, settings, genesis)
        write_settings(settings, {"engine": "cometbft", "chain_id": genesis.chain_id})
        if not settings.members_path.exists():
            write_private(settings.members_path, (folder / MEMBERS_FILE).read_bytes())
        write_private(settings.genesis_path, content)
    return genesis


def _bring_ledger(folder: Path, settings: Settings, genesis: Genesis) -> None:
    """See to it that the home has the ledger on which the chain begins. What does not fit is not left
    there."""
    path, was_there = settings.ledger_path, settings.ledger_path.exists()
    try:
        if not was_there and genesis.initial_height > 1:
            if not (folder / LEDGER_FOLDER).exists():
                raise SettingsError(
                    f"The chain goes on from a ledger of height {genesis.initial_height - 1}, and {folder} "
                    f"lacks it: get the folder {LEDGER_FOLDER} from whoever founded the network, too."
                )
            export_ledger(folder / LEDGER_FOLDER, path)
        if genesis.initial_height > 1:
            # One that is there already may be a copy whose check was cut short.
            for fault in fsck.check(path):
                raise StoreError(
                    f"The ledger to begin on is not whole ({fault.where}: {fault.what}): get another copy, "
                    f"without {path}."
                )
        ledger = Ledger.open(path, chain_id=genesis.chain_id)
        head = ledger.head
        ledger.close()
        check_app_state(genesis.app_state, genesis.initial_height, head)
    except BaseException:
        if not was_there:
            shutil.rmtree(path, ignore_errors=True)
        raise


def _publish(path: Path, content: bytes) -> None:
    """Write a file that is for others, whole or not at all."""
    write_private(path, content)
    path.chmod(0o644)


def _name(card: Card) -> str:
    return card.name


def _validator_key(card: Card) -> bytes:
    try:
        return base64.b64decode(card.validator, validate=True)
    except ValueError:
        raise SettingsError(f"The validator key on the card of {card.name} is no base64.") from None
