"""The history of an asset: what it is and what each transaction moved, told as of every height."""

from __future__ import annotations

import pytest

from bcdb.ledger import Ledger
from bcdb.ledger.history import Given, History, Movement, Taken, asset_of
from bcdb.ledger.records import output_key
from bcdb.model.errors import StoreError
from bcdb.model.transaction import Link
from tests.ledger.world import BLOCK_TIME_NS, FIRST_TIME_NS, commit
from tests.support.transactions import Signed, alice, bob, carol, create, transfer


@pytest.fixture
def story(ledger: Ledger) -> list[Signed]:
    """Ten of alice and bob; split to bob and carol; joined again. One block each."""
    made = create(
        [alice, bob],
        recipients=[([alice.public_key], 7), ([bob.public_key, alice.public_key], 3)],
        asset={"z": 1.0, "a": "ü"},
    )
    split = transfer([(made, 0)], [([bob.public_key], 5), ([carol.public_key], 2)])
    joined = transfer([(split, 1), (made, 1)], [([carol.public_key], 5)])
    for item in (made, split, joined):
        commit(ledger, create(alice, asset={"other": item.tx["id"]}), item)
    return [made, split, joined]


def movements(ledger: Ledger, asset: Signed, at_height: int) -> list[Movement]:
    history = History(ledger.reader, at_height)
    page = ledger.reader.transactions_of(asset.verified.id, at_height=at_height, limit=100)
    assert page.next is None
    return [history.movement(item) for item in page.items]


def link(item: Signed, index: int) -> Link:
    return Link(index, item.tx["id"])


def test_the_whole_graph(ledger: Ledger, story: list[Signed]) -> None:
    made, split, joined = story
    both = tuple(sorted((alice.public_key, bob.public_key)))
    assert movements(ledger, made, 3) == [
        Movement(
            made.verified.id,
            "CREATE",
            1,
            1,
            [Given([alice.public_key, bob.public_key], None, None)],
            [
                Taken(0, (alice.public_key,), 7, 2, split.verified.id),
                Taken(1, both, 3, 3, joined.verified.id),
            ],
        ),
        Movement(
            split.verified.id,
            "TRANSFER",
            2,
            1,
            [Given([alice.public_key], link(made, 0), 7)],
            [
                Taken(0, (bob.public_key,), 5, None, None),
                Taken(1, (carol.public_key,), 2, 3, joined.verified.id),
            ],
        ),
        Movement(
            joined.verified.id,
            "TRANSFER",
            3,
            1,
            [
                Given([carol.public_key], link(split, 1), 2),
                Given(joined.tx["inputs"][1]["owners_before"], link(made, 1), 3),
            ],
            [Taken(0, (carol.public_key,), 5, None, None)],
        ),
    ]


def test_the_past_knows_nothing_of_what_came_later(ledger: Ledger, story: list[Signed]) -> None:
    assert movements(ledger, story[0], 0) == []
    for height in (1, 2):
        found = movements(ledger, story[0], height)
        assert [item.height for item in found] == list(range(1, height + 1))
        spent = [taken.spent_height for item in found for taken in item.outputs]
        assert spent == [[None, None], [2, None, None, None]][height - 1]


def test_a_history_that_begins_in_the_middle_is_the_same(ledger: Ledger, story: list[Signed]) -> None:
    page = ledger.reader.transactions_of(story[0].verified.id, at_height=3, limit=2)
    assert page.next == page.items[-1].cursor
    rest = ledger.reader.transactions_of(story[0].verified.id, at_height=3, after=page.next, limit=2)
    [last] = [History(ledger.reader, 3).movement(item) for item in rest.items]
    assert last == movements(ledger, story[0], 3)[2]


def test_the_asset(ledger: Ledger, story: list[Signed]) -> None:
    made, split, _ = story
    found = asset_of(ledger.reader, made.verified.id, 3)
    assert found is not None
    assert found.data == '{"a":"ü","z":1.0}'.encode()
    assert found.issuers == tuple(sorted((alice.public_key, bob.public_key)))
    assert (found.amount, found.height, found.position) == (10, 1, 1)
    assert asset_of(ledger.reader, made.verified.id, 0) is None
    assert asset_of(ledger.reader, split.verified.id, 3) is None
    assert asset_of(ledger.reader, bytes(32), 3) is None
    nothing = create(alice)
    commit(ledger, nothing)
    found = asset_of(ledger.reader, nothing.verified.id, 4)
    assert found is not None
    assert found.data == b"null"


def test_transactions_of_an_asset_up_to_a_height(ledger: Ledger, story: list[Signed]) -> None:
    asset, ids = story[0].verified.id, [item.verified.id for item in story]

    def found(**options: object) -> list[bytes]:
        page = ledger.reader.transactions_of(asset, limit=9, **options)  # type: ignore[arg-type]
        return [item.id for item in page.items]

    for height in range(4):
        assert found(at_height=height) == ids[:height]
        assert found(at_height=height, newest=True) == ids[:height][::-1]
        assert found(at_height=height, operation="CREATE") == ids[:height][:1]
        assert found(at_height=height, operation="TRANSFER") == ids[1:height]
    first = ledger.reader.transactions_of(asset, newest=True, at_height=2, limit=1)
    assert [item.id for item in first.items] == [ids[1]]
    assert found(at_height=2, newest=True, after=first.next) == ids[:1]


def test_times_of_blocks(ledger: Ledger, story: list[Signed]) -> None:
    for height in (1, 2, 3):
        block = ledger.reader.block(height)
        assert block is not None
        assert ledger.reader.block_time(height) == block.time_ns == FIRST_TIME_NS + height * BLOCK_TIME_NS
    with pytest.raises(StoreError, match="lacks block 4"):
        ledger.reader.block_time(4)


def test_what_the_ledger_lacks_is_told(ledger: Ledger, story: list[Signed]) -> None:
    made, split, joined = story
    families = ledger.reader._families
    families["outputs"].delete(output_key(split.verified.id, 0))
    with pytest.raises(StoreError, match="lacks the output"):
        movements(ledger, made, 3)
    families["outputs"].put(output_key(split.verified.id, 0), b"short")
    with pytest.raises(StoreError, match="bcdb fsck"):
        movements(ledger, made, 3)
    raw = families["transactions"].get(made.verified.id)
    for damaged in (raw[:60], raw[:12] + b"{}", raw[:12] + b"\xff"):
        families["transactions"].put(made.verified.id, damaged)
        with pytest.raises(StoreError, match="is damaged"):
            movements(ledger, made, 3)
        with pytest.raises(StoreError, match="is damaged"):
            asset_of(ledger.reader, made.verified.id, 3)
    families["transactions"].delete(joined.verified.id)
    page = ledger.reader.transactions_of(made.verified.id, newest=True, limit=1)
    with pytest.raises(StoreError, match="lacks the transaction"):
        History(ledger.reader, 3).movement(page.items[0])
