"""What keeps a node from having its part in a network is told before anything is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bcdb.cli.testnet.layout import make_testnet, plan
from bcdb.ledger import BlockHeader, Ledger
from bcdb.model.errors import SettingsError
from bcdb.model.keys import KeyPair
from bcdb.node.identity import NodeSigner
from bcdb.node.ordering import chain_id_of, make_ordering
from bcdb.node.settings import Settings, read_settings
from tests.support.transactions import create

signer = NodeSigner(KeyPair.from_seed(b"o" * 32))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Those of the only node of a network."""
    layout = make_testnet(tmp_path / "net", plan(1))
    return read_settings(layout.home(layout.nodes[0]))


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    """Its ledger, with one block."""
    opened = Ledger.open(settings.ledger_path, chain_id=chain_id_of(settings))
    opened.commit(opened.apply(BlockHeader(1, 1, b"", b"block"), [create().verified]))
    yield opened
    opened.close()


@pytest.mark.parametrize("lost", ["data", "data/state.db", "data/blockstore.db"])
def test_a_ledger_without_the_blocks_of_its_cometbft(settings: Settings, ledger: Ledger, lost: str) -> None:
    data = settings.cometbft_path / "data"
    for part in ("state.db", "blockstore.db"):
        if lost not in ("data", f"data/{part}"):
            (data / part).mkdir()
    with pytest.raises(SettingsError, match=r"at height 1, and CometBFT's blocks are missing in .*/data: "):
        make_ordering(settings, ledger, signer)
