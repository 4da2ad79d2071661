"""What the query store is given of the ledger: every field that documents need, in bounded pieces."""

import asyncio
import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bcdb.ledger.store import open_primary
from bcdb.model.canonical import Form
from bcdb.model.errors import StoreError
from bcdb.node import blocks
from bcdb.node.blocks import StillLedger, open_still, transaction_of
from query.documents import COLLECTIONS, Spend, Spending, documents
from tests.ledger.world import commit, header, open_ledger
from tests.support.transactions import Signed, alice, bob, carol, create, transfer

ALL = (1_000_000, 1 << 30)


def test_a_create_is_read_whole() -> None:
    made = create(
        [alice, bob],
        recipients=[([carol.public_key, bob.public_key], 7), ([alice.public_key], 9 * 10**17)],
        asset={"text": "café", "n": 1e16, "id": "not this"},
        metadata={"a": [1, None]},
    )
    found = transaction_of(made.verified.id, made.raw)
    assert found.id == found.asset_id == made.verified.id
    assert found.operation == "CREATE"
    assert json.loads(found.asset or b"") == made.tx["asset"]["data"]
    assert found.asset is not None
    assert found.asset in made.raw
    assert json.loads(found.metadata) == made.tx["metadata"]
    assert [(each.owners_before, each.fulfills) for each in found.inputs] == [
        (tuple(made.tx["inputs"][0]["owners_before"]), None)
    ]
    assert [(each.amount, each.public_keys, each.condition) for each in found.outputs] == [
        (each.amount, each.public_keys, each.condition) for each in made.verified.outputs
    ]


def test_a_transfer_is_read_whole() -> None:
    made = create()
    found = transaction_of(made.verified.id, made.raw)
    assert (found.asset, found.metadata) == (b"null", b"null")
    moved = transfer([(made, 0)], [([bob.public_key], 1)], metadata={"m": {}})
    found = transaction_of(moved.verified.id, moved.raw)
    assert (found.id, found.operation, found.asset_id) == (moved.verified.id, "TRANSFER", made.verified.id)
    assert (found.asset, found.metadata) == (None, b'{"m":{}}')
    assert found.inputs[0].owners_before == (alice.public_key,)
    assert found.inputs[0].fulfills == Spend(made.verified.id, 0)


@pytest.mark.parametrize("form", list(Form))
def test_nothing_that_is_committed_fails_as_a_document(form: Form) -> None:
    odd = {
        "": {"a$": 1, "\u2028": "\U0001f600", "text": "\0\x7f\u2028"},
        "numbers": [2**53 - 1, -(2**53) + 1, 0, 1.5, 1e300, 5e-324, -0.5],
        "deep": json.loads('{"a":' * 50 + "null" + "}" * 50),
    }
    made = create(asset=odd, metadata=odd, form=form)
    block = blocks.Block(1, b"mark", "time", b"app", b"", [transaction_of(made.verified.id, made.raw)])
    found = {name: [document for _, document in documents(name, block)] for name in COLLECTIONS}
    assert found["assets"][0]["data"] == odd
    assert found["metadata"][0]["metadata"] == odd
    assert {name: len(some) for name, some in found.items()} == dict.fromkeys(COLLECTIONS, 1)


@pytest.fixture(scope="module")
def chain() -> list[list[Signed]]:
    """Five blocks; the second is empty."""
    made = [create(asset={"n": number}) for number in range(6)]
    moved = transfer([(made[0], 0)], [([bob.public_key], 1)])
    return [made[:3], [], [moved], made[3:], [transfer([(moved, 0)], [([carol.public_key], 1)])]]


@pytest.fixture
def path(tmp_path: Path, chain: list[list[Signed]]) -> Path:
    ledger = open_ledger(tmp_path / "ledger")
    for transactions in chain:
        commit(ledger, *transactions)
    ledger.close()
    return tmp_path / "ledger"


@pytest.fixture
def still(path: Path) -> Iterator[StillLedger]:
    with open_still(path) as opened:
        yield opened


async def test_blocks_come_in_order_within_bounds(still: StillLedger, chain: list[list[Signed]]) -> None:
    found = await still.blocks(0, *ALL)
    assert [block.height for block in found] == [1, 2, 3, 4, 5] == list(range(1, await still.head() + 1))
    assert [[each.id for each in block.transactions] for block in found] == [
        [signed.verified.id for signed in transactions] for transactions in chain
    ]
    assert found[2].mark == header(3).block_hash == await still.mark(3)
    assert found[2].proposer == header(3).proposer
    assert found[2].time == "2023-11-14T22:13:23.000000000Z"
    assert len({block.app_hash for block in found}) == 4, "an empty block changes nothing"
    assert await still.blocks(3, *ALL) == found[3:]
    assert await still.blocks(5, *ALL) == []
    assert await still.blocks(0, found[0].documents + 1, ALL[1]) == found[:2]
    assert await still.blocks(0, ALL[0], 1) == found[:1]
    assert await still.mark(6) is None


async def test_others_get_their_turn_in_a_long_block(
    still: StillLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await still.blocks(0, *ALL)
    monkeypatch.setattr(blocks, "SLICE_TRANSACTIONS", 2)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    assert await still.blocks(0, *ALL) == found
    counting.cancel()
    assert turns >= 3


def test_spending_is_told(still: StillLedger, chain: list[list[Signed]]) -> None:
    made, moved, last = chain[0], chain[2][0].verified.id, chain[4][0].verified.id
    assert still.spending(made[0].verified.id, 0) == Spending(3, moved)
    assert still.spending(moved, 0) == Spending(5, last)
    assert still.spending(last, 0) is None
    assert still.spending(made[0].verified.id, 1) is None
    assert still.spending(bytes(32), 0) is None


def test_a_missing_ledger_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no ledger"), open_still(tmp_path / "none"):
        raise AssertionError


async def test_a_damaged_ledger_is_one_sentence(path: Path, chain: list[list[Signed]]) -> None:
    families = open_primary(path)
    gone, torn = chain[0][1].verified.id, chain[3][0].verified.id
    del families["transactions"][gone]
    families["transactions"][torn] = families["transactions"][torn][:-7]
    families.close()
    with open_still(path) as still:
        with pytest.raises(StoreError, match=f"lacks the transaction {gone.hex()} of block 1"):
            await still.blocks(0, *ALL)
        with pytest.raises(StoreError, match=f"{torn.hex()} in the ledger is damaged"):
            await still.blocks(2, *ALL)


def test_flipped_bytes_never_let_a_foreign_error_out() -> None:
    made = create(asset={"text": "x"})
    chance = random.Random(3)
    for _ in range(3_000):
        body = bytearray(made.raw)
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
        # Errors of msgspec are ValueErrors too.
        with contextlib.suppress(ValueError):
            transaction_of(made.verified.id, bytes(body))
