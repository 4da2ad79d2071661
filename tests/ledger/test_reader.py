"""Reading: lists in pages that nothing falls out of, cursors from outside, and a follower of the writer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bcdb.ledger import Ledger, open_reader
from bcdb.ledger.cursors import decode_cursor, encode_cursor
from bcdb.ledger.reader import OwnedOutput, Reader
from bcdb.ledger.records import asset_key
from bcdb.model import decode_key
from bcdb.model.errors import InvalidCursor, StoreError
from tests.ledger.world import accept, commit
from tests.support.transactions import Signed, alice, bob, carol, create, transfer

ALICE, BOB, CAROL = (decode_key(pair.public_key) for pair in (alice, bob, carol))


def pages(reader: Reader, key: bytes, *, spent: bool | None, limit: int) -> Iterator[list[OwnedOutput]]:
    after = None
    while True:
        page = reader.outputs_of(key, spent=spent, after=after, limit=limit)
        yield page.items
        if page.next is None:
            return
        after = page.next


def named(rows: list[OwnedOutput]) -> list[tuple[bytes, int, bool]]:
    return [(row.transaction_id, row.output_index, row.spent) for row in rows]


@pytest.fixture
def shares(ledger: Ledger) -> Signed:
    """Seven outputs of alice in one transaction; the second and the fifth are spent."""
    made = create(alice, recipients=[([alice.public_key], 1)] * 7)
    commit(ledger, made)
    commit(ledger, transfer([(made, 1), (made, 4)], [([bob.public_key], 2)]))
    return made


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_outputs_of_a_key_page_by_page(ledger: Ledger, shares: Signed, limit: int) -> None:
    expected = [(shares.verified.id, index, index in (1, 4)) for index in range(7)]
    for spent, wanted in (
        (None, expected),
        (True, [row for row in expected if row[2]]),
        (False, [row for row in expected if not row[2]]),
    ):
        found = list(pages(ledger.reader, ALICE, spent=spent, limit=limit))
        assert all(len(page) <= limit for page in found)
        assert [row for page in found for row in named(page)] == wanted
    assert named(ledger.reader.outputs_of(CAROL, limit=limit).items) == []


def test_spending_while_someone_pages(ledger: Ledger) -> None:
    made = create(alice, recipients=[([alice.public_key], 1)] * 6)
    commit(ledger, made)
    walk = pages(ledger.reader, ALICE, spent=None, limit=2)
    seen = named(next(walk))
    commit(ledger, transfer([(made, 0), (made, 3)], [([bob.public_key], 2)]))
    seen += [row for page in walk for row in named(page)]
    assert [index for _, index, _ in seen] == [0, 1, 2, 3, 4, 5]
    assert [index for _, index, spent in seen if spent] == [3]


def test_all_owners_of_an_output_find_it(ledger: Ledger) -> None:
    made = create(alice, recipients=[([bob.public_key, carol.public_key], 1)])
    commit(ledger, made)
    for key in (BOB, CAROL):
        assert named(ledger.reader.outputs_of(key, limit=9).items) == [(made.verified.id, 0, False)]
    record = ledger.reader.output(made.verified.id, 0)
    assert record is not None
    assert record.public_keys == tuple(sorted((bob.public_key, carol.public_key)))
    assert ledger.reader.output(made.verified.id, 1) is None
    assert ledger.reader.output(made.verified.id, -1) is None
    assert ledger.reader.output(made.verified.id, 2**40) is None


def test_transactions_of_an_asset(ledger: Ledger) -> None:
    made = create(alice)
    chain = [made]
    for owner in (bob, carol, alice, bob):
        chain.append(transfer([(chain[-1], 0)], [([owner.public_key], 1)]))
    commit(ledger, *chain[:2])
    for item in chain[2:]:
        commit(ledger, item)
    ids = [item.verified.id for item in chain]
    asset = made.verified.id

    def walk(**options: object) -> list[bytes]:
        found: list[bytes] = []
        after = None
        while True:
            page = ledger.reader.transactions_of(asset, after=after, limit=2, **options)  # type: ignore[arg-type]
            assert len(page.items) <= 2
            found += [item.id for item in page.items]
            if page.next is None:
                return found
            after = page.next

    assert walk() == ids
    assert walk(newest=True) == ids[::-1]
    assert walk(operation="CREATE") == ids[:1]
    assert walk(operation="CREATE", newest=True) == ids[:1]
    assert walk(operation="TRANSFER") == ids[1:]
    assert walk(operation="TRANSFER", newest=True) == ids[:0:-1]
    [newest] = ledger.reader.transactions_of(asset, newest=True, limit=1).items
    assert (newest.id, newest.operation, newest.height, newest.position) == (ids[-1], "TRANSFER", 4, 0)
    assert ledger.reader.transactions_of(ids[1], limit=9).items == []
    assert ledger.reader.transactions_of(ids[1], operation="CREATE", limit=9).items == []
    assert ledger.reader.transactions_of(bytes(32), operation="CREATE", limit=9).items == []
    assert ledger.reader.transactions_of(b"\xff" * 32, newest=True, limit=9).items == []


def test_blocks(ledger: Ledger) -> None:
    for number in range(5):
        commit(ledger, create(alice, asset={"n": number}))
    assert [block.height for block in ledger.reader.blocks_from(2, 3)] == [2, 3, 4]
    assert [block.height for block in ledger.reader.blocks_from(-5, 2)] == [1, 2]
    assert ledger.reader.blocks_from(6, 10) == []
    assert ledger.reader.blocks_from(2**70, 10) == []
    second = ledger.reader.block(2)
    assert second is not None
    assert second.previous_hash == (1).to_bytes(32, "big")
    for height in (0, -1, 6, 2**63, 2**64):
        assert ledger.reader.block(height) is None


@given(st.text(max_size=40))
def test_a_cursor_from_outside_is_refused_or_is_one(text: str) -> None:
    try:
        place = decode_cursor(text, 16)
    except InvalidCursor:
        return
    assert encode_cursor(place) == text


@given(st.binary(min_size=12, max_size=12))
def test_a_cursor_has_one_spelling(place: bytes) -> None:
    text = encode_cursor(place)
    assert decode_cursor(text, 12) == place
    for wrong in (text + "=", text + "A", text[:-1], " " + text, text + "\n"):
        with pytest.raises(InvalidCursor):
            decode_cursor(wrong, 12)


def test_any_place_is_a_harmless_cursor(ledger: Ledger, shares: Signed) -> None:
    for place in (b"\xff" * 16, b"\0" * 16):
        page = ledger.reader.outputs_of(ALICE, after=encode_cursor(place), limit=9)
        assert len(page.items) in (0, 7)
    for place in (b"\xff" * 12, b"\0" * 12):
        for newest in (False, True):
            cursor = encode_cursor(place)
            page = ledger.reader.transactions_of(shares.verified.id, newest=newest, after=cursor, limit=9)
            assert len(page.items) in (0, 2)
    with pytest.raises(InvalidCursor):
        ledger.reader.outputs_of(ALICE, after="", limit=9)


def test_a_follower_sees_what_is_written_once_it_catches_up(
    ledger: Ledger, path: Path, tmp_path: Path
) -> None:
    made = create(alice)
    follower = open_reader(path, tmp_path / "scratch")
    assert follower.head.height == 0
    assert follower.chain_id == ledger.chain_id
    commit(ledger, made)
    assert follower.head.height == 0
    assert follower.catch_up() == ledger.head
    stored = follower.transaction(made.verified.id)
    assert stored is not None
    assert stored.body == made.raw
    for number in range(20):
        commit(ledger, create(bob, asset={"n": number}))
        assert follower.catch_up() == ledger.head
        assert len(follower.outputs_of(BOB, limit=100).items) == number + 1
    ledger._database.flush()
    commit(ledger, create(carol))
    assert follower.catch_up() == ledger.head
    assert len(follower.outputs_of(BOB, limit=100).items) == 20
    follower.close()


def test_a_follower_reads_rejections(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    gold = create(alice, recipients=[([alice.public_key], 10)])
    commit(ledger, gold)
    lost = transfer([(gold, 0)], [([bob.public_key], 10)])
    accept(ledger, lost)
    commit(ledger, transfer([(gold, 0)], [([carol.public_key], 10)]))
    follower = open_reader(path, tmp_path / "scratch")
    assert follower.rejection(lost.verified.id) == ledger.rejection(lost.verified.id) is not None
    follower.close()


def test_there_is_nothing_to_follow(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no ledger at"):
        open_reader(tmp_path / "nothing", tmp_path / "scratch")
    assert not (tmp_path / "nothing").exists()


def test_damaged_rows_are_told_as_such(ledger: Ledger, shares: Signed) -> None:
    families = ledger.reader._families
    whole = families["transactions"][shares.verified.id]
    for damaged in (b"", whole[:11]):
        families["transactions"][shares.verified.id] = damaged
        with pytest.raises(StoreError, match="damaged; run `bcdb fsck`"):
            ledger.reader.transaction(shares.verified.id)
    asset = shares.verified.id
    first = asset_key(asset, 1, 0)
    for key, value in ((first, b"?" + asset), (first + b"\0", b"")):
        families["assets"][key] = value
        with pytest.raises(StoreError, match="damaged; run `bcdb fsck`"):
            ledger.reader.transactions_of(asset, limit=10)
