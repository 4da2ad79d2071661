"""Founding a network and joining it: cards, the folder for all, and homes that fit or do not."""

import base64
import json
from pathlib import Path

import pytest

from bcdb.cli.home import locked, make_home
from bcdb.cli.network import Card, found_network, join_network, make_card, read_card, write_card
from bcdb.ledger import BlockHeader, Ledger
from bcdb.ledger.export import export_ledger
from bcdb.ledger.store import open_primary, rows
from bcdb.model import limits
from bcdb.model.errors import BcdbError, SettingsError, StoreError
from bcdb.node.chain import GenesisError, read_app_state
from bcdb.node.members import read_members
from bcdb.node.settings import Settings, read_settings
from consensus.cometbft.genesis import read_genesis
from consensus.cometbft.keys import HomeError
from tests.support.transactions import create


def home(path: Path) -> Settings:
    flags = {"engine": "cometbft"}
    return make_home(path, flags, kept=flags)[0]


def members(tmp_path: Path, *names: str) -> tuple[list[Settings], list[Card]]:
    homes = [home(tmp_path / name) for name in names]
    cards = [make_card(made, made.home.name, f"{made.home.name}.example.org:26656") for made in homes]
    return homes, cards


def solo(path: Path, *, blocks: int) -> Settings:
    """The home of a stopped solo node with a ledger."""
    settings, _ = make_home(path, {}, kept={})
    ledger = Ledger.open(settings.ledger_path, chain_id=settings.chain_id)
    for height in range(1, blocks + 1):
        header = BlockHeader(height, height * 10**18, b"p" * 20, bytes([height]) * 32)
        ledger.commit(ledger.apply(header, [create(asset={"n": height}).verified]))
    ledger.flush()
    ledger.close()
    return settings


def test_from_cards_to_homes_that_belong_together(tmp_path: Path) -> None:
    homes, cards = members(tmp_path, "bank", "clinic")
    observer = home(tmp_path / "reader")
    cards.append(make_card(observer, "reader", "", votes=False))
    for card in cards:
        write_card(card, tmp_path / f"{card.name}.json")
    read = [read_card(tmp_path / f"{name}.json") for name in ("reader", "clinic", "bank")]
    genesis = found_network(read, tmp_path / "network", chain_id="trade")
    assert (genesis.chain_id, genesis.initial_height, len(genesis.validators)) == ("trade", 1, 2)
    for settings in (*homes, observer):
        join_network(tmp_path / "network", read_settings(settings.home))
        joined = read_settings(settings.home)
        assert (joined.engine, joined.chain_id) == ("cometbft", "trade")
        found_genesis = read_genesis(joined.genesis_path.read_bytes())
        assert set(found_genesis.validators) == set(genesis.validators)
        assert read_app_state(found_genesis.app_state) == read_app_state(genesis.app_state)
        found = read_members(joined.members_path)
        assert [(member.name, member.address) for member in found.all] == [
            ("bank", "bank.example.org:26656"),
            ("clinic", "clinic.example.org:26656"),
            ("reader", ""),
        ]
    join_network(tmp_path / "network", read_settings(homes[0].home))


def test_a_card_has_no_secret(tmp_path: Path) -> None:
    (settings,), (card,) = members(tmp_path, "bank")
    write_card(card, tmp_path / "card.json")
    text = (tmp_path / "card.json").read_text()
    for file in settings.home.rglob("*key*.json"):
        for secret in (
            value for value in json.loads(file.read_text()).values() if isinstance(value, str | dict)
        ):
            value = secret.get("value") if isinstance(secret, dict) else secret
            assert value in (card.key, card.validator, None) or value not in text
    assert len(base64.b64decode(card.validator)) == 32


def test_the_bounds_of_the_chain_stand_in_its_genesis(tmp_path: Path) -> None:
    _, cards = members(tmp_path, "bank")
    genesis = found_network(cards, tmp_path / "network")
    state = read_app_state(genesis.app_state)
    assert (state.height, state.block_bytes_max) == (0, limits.BLOCK_BYTES_MAX)
    parameters = json.loads((tmp_path / "network" / "genesis.json").read_bytes())["consensus_params"]
    assert int(parameters["block"]["max_bytes"]) > limits.BLOCK_BYTES_MAX + 1024 * 1024


def test_who_has_no_vote_founds_nothing(tmp_path: Path) -> None:
    settings = home(tmp_path / "reader")
    with pytest.raises(SettingsError, match="that votes"):
        found_network([make_card(settings, "reader", "", votes=False)], tmp_path / "network")
    assert not (tmp_path / "network" / "genesis.json").exists()


def test_two_cards_of_one_node(tmp_path: Path) -> None:
    (settings,), cards = members(tmp_path, "bank")
    with pytest.raises(SettingsError, match="share"):
        found_network([*cards, make_card(settings, "again", "")], tmp_path / "network")


def test_a_genesis_is_not_overwritten(tmp_path: Path) -> None:
    _, cards = members(tmp_path, "bank")
    found_network(cards, tmp_path / "network")
    with pytest.raises(SettingsError, match="not overwritten"):
        found_network(cards, tmp_path / "network")


def test_only_members_join(tmp_path: Path) -> None:
    _, cards = members(tmp_path, "bank")
    found_network(cards, tmp_path / "network")
    with pytest.raises(SettingsError, match="not among the members"):
        join_network(tmp_path / "network", home(tmp_path / "stranger"))


def test_a_home_is_of_one_network(tmp_path: Path) -> None:
    (settings,), cards = members(tmp_path, "bank")
    for name in ("first", "second"):
        found_network(cards, tmp_path / name)
    join_network(tmp_path / "first", settings)
    with pytest.raises(SettingsError, match="another network"):
        join_network(tmp_path / "second", read_settings(settings.home))


def test_a_solo_home_has_no_card(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="orders alone"):
        make_card(solo(tmp_path / "alone", blocks=0), "alone", "")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"name": 1}', "\xff"])
def test_what_is_no_card(tmp_path: Path, content: str) -> None:
    (tmp_path / "card.json").write_text(content)
    with pytest.raises(SettingsError, match="no card"):
        read_card(tmp_path / "card.json")
    with pytest.raises(SettingsError, match="can't be read"):
        read_card(tmp_path / "missing.json")


def test_a_chain_goes_on_from_a_solo_ledger(tmp_path: Path) -> None:
    source = solo(tmp_path / "alone", blocks=3)
    homes, cards = members(tmp_path, "bank", "clinic")
    genesis = found_network(cards, tmp_path / "network", source=source)
    assert (genesis.chain_id, genesis.initial_height) == (source.chain_id, 4)
    assert genesis.time_ns > 3 * 10**18
    for settings in homes:
        join_network(tmp_path / "network", settings)
        ledger = Ledger.open(settings.ledger_path, chain_id=source.chain_id)
        assert (ledger.head.height, ledger.head.app_hash.hex()) == (
            3,
            read_app_state(genesis.app_state).app_hash,
        )
        ledger.close()


def test_a_folder_without_the_ledger_is_told_and_spoils_nothing(tmp_path: Path) -> None:
    source = solo(tmp_path / "alone", blocks=2)
    (settings,), cards = members(tmp_path, "bank")
    found_network(cards, tmp_path / "network", source=source)
    (tmp_path / "network" / "ledger").rename(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="get the folder ledger"):
        join_network(tmp_path / "network", settings)
    assert not settings.ledger_path.exists()
    (tmp_path / "elsewhere").rename(tmp_path / "network" / "ledger")
    join_network(tmp_path / "network", settings)


def test_a_copy_with_an_output_missing_is_not_believed(tmp_path: Path) -> None:
    source = solo(tmp_path / "alone", blocks=2)
    (settings,), cards = members(tmp_path, "bank")
    found_network(cards, tmp_path / "network", source=source)
    families = open_primary(tmp_path / "network" / "ledger")
    row = next(iter(rows(families["outputs"])))[0]
    families["outputs"].delete(row)
    families.close()
    with pytest.raises(StoreError, match="not whole"):
        join_network(tmp_path / "network", settings)
    assert not settings.ledger_path.exists()
    assert not settings.genesis_path.exists()


def test_a_copy_whose_check_was_cut_short_is_checked_at_the_next_try(tmp_path: Path) -> None:
    source = solo(tmp_path / "alone", blocks=2)
    (settings,), cards = members(tmp_path, "bank")
    found_network(cards, tmp_path / "network", source=source)
    export_ledger(tmp_path / "network" / "ledger", settings.ledger_path)
    families = open_primary(settings.ledger_path)
    families["outputs"].delete(next(iter(rows(families["outputs"])))[0])
    families.close()
    with pytest.raises(StoreError, match="not whole"):
        join_network(tmp_path / "network", settings)
    assert not settings.genesis_path.exists()


def test_joining_again_keeps_the_members_file(tmp_path: Path) -> None:
    (settings,), cards = members(tmp_path, "bank")
    found_network(cards, tmp_path / "network")
    join_network(tmp_path / "network", settings)
    edited = settings.members_path.read_text().replace("quota_mb = 8", "quota_mb = 64")
    settings.members_path.write_text(edited)
    join_network(tmp_path / "network", read_settings(settings.home))
    assert settings.members_path.read_text() == edited


def test_the_solo_node_itself_may_join(tmp_path: Path) -> None:
    source = solo(tmp_path / "alone", blocks=2)
    settings = make_home(tmp_path / "alone", {"engine": "cometbft"})[0]
    genesis = found_network([make_card(settings, "alone", "")], tmp_path / "network", source=source)
    join_network(tmp_path / "network", settings)
    assert read_settings(settings.home).chain_id == genesis.chain_id


def test_another_ledger_does_not_join(tmp_path: Path) -> None:
    source = solo(tmp_path / "alone", blocks=2)
    (settings,), cards = members(tmp_path, "bank")
    found_network(cards, tmp_path / "network", source=source)
    other = solo(tmp_path / "other", blocks=1)
    ledger = Ledger.open(settings.ledger_path, chain_id=source.chain_id)
    ledger.close()
    with pytest.raises(GenesisError, match="another, or it went on"):
        join_network(tmp_path / "network", settings)
    with pytest.raises(BcdbError):
        join_network(tmp_path / "network", other)


def test_a_network_of_a_running_node_is_not_founded(tmp_path: Path) -> None:
    source = solo(tmp_path / "alone", blocks=1)
    _, cards = members(tmp_path, "bank")
    with locked(source), pytest.raises(SettingsError, match="is using"):
        found_network(cards, tmp_path / "network", source=source)
    assert not (tmp_path / "network" / "genesis.json").exists()


def test_the_lost_keys_of_a_home_are_told(tmp_path: Path) -> None:
    (settings,), _ = members(tmp_path, "bank")
    (settings.cometbft_path / "config" / "node_key.json").write_text("{}")
    with pytest.raises(HomeError):
        make_card(settings, "bank", "")
