"""Outputs and holdings of a key now and at every height, against a plain retelling of what was committed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bcdb.ledger import Holding, Ledger, OwnedOutput, Page, open_reader, owners
from bcdb.ledger.cursors import encode_cursor
from bcdb.ledger.slices import Slices, whole
from bcdb.model import decode_key, limits
from bcdb.model.errors import InvalidCursor, StoreError
from tests.ledger.world import commit, open_ledger
from tests.support.transactions import Signed, alice, bob, carol, create, everyone, transfer

BLOCKS = 12
ALICE = decode_key(alice.public_key)


class Share(NamedTuple):
    """An output as somebody with pen and paper would keep it; `spent` is 0 while it is not."""

    made_by: bytes
    index: int
    asset: bytes
    amount: int
    keys: frozenset[str]
    height: int
    position: int
    spent: int


class Told:
    """A ledger with a random story, and the story."""

    def __init__(self, path: Path) -> None:
        self.ledger = open_ledger(path)
        self.shares: list[Share] = []
        self._sources: dict[bytes, Signed] = {}
        chance = random.Random(4)
        for height in range(1, BLOCKS + 1):
            chosen = [self._create(chance) for _ in range(chance.randint(1, 3))]
            chosen += self._transfers(chance)
            outcome = commit(self.ledger, *chosen)
            assert all(result.status == "committed" for result in outcome.results)
            self._note(height, chosen)

    @staticmethod
    def _recipients(chance: random.Random, amount: int) -> list[tuple[list[str], int]]:
        found = []
        while amount:
            part = chance.randint(1, amount)
            owners = chance.sample(everyone, chance.choice((1, 1, 2)))
            found.append(([pair.public_key for pair in owners], part))
            amount -= part
        return found

    def _create(self, chance: random.Random) -> Signed:
        amount = chance.randint(1, 20)
        return create(recipients=self._recipients(chance, amount), asset={"n": chance.random()})

    def _transfers(self, chance: random.Random) -> list[Signed]:
        unspent = defaultdict(list)
        for share in self.shares:
            if not share.spent:
                unspent[share.asset].append(share)
        made = []
        for asset, shares in list(unspent.items())[:4]:
            used = chance.sample(shares, min(len(shares), chance.randint(1, 3)))
            made.append(
                transfer(
                    [(self._sources[share.made_by], share.index) for share in used],
                    self._recipients(chance, sum(share.amount for share in used)),
                    asset_id=asset.hex(),
                )
            )
        return made

    def _note(self, height: int, transactions: list[Signed]) -> None:
        for position, item in enumerate(transactions):
            verified = item.verified
            self._sources[verified.id] = item
            spent = {(spend.transaction_id, spend.output_index) for spend in verified.spends}
            self.shares = [
                share._replace(spent=height) if (share.made_by, share.index) in spent else share
                for share in self.shares
            ]
            self.shares += [
                Share(
                    verified.id,
                    index,
                    verified.asset_id,
                    output.amount,
                    frozenset(output.public_keys),
                    height,
                    position,
                    0,
                )
                for index, output in enumerate(verified.outputs)
            ]

    def outputs(self, key: str, height: int, spent: bool | None) -> list[tuple[bytes, int, bool, int, int]]:
        found = [share for share in self.shares if key in share.keys and share.height <= height]
        rows = [
            (share.made_by, share.index, 0 < share.spent <= height, share.height, share.position)
            for share in sorted(found, key=lambda share: (share.height, share.position, share.index))
        ]
        return [row for row in rows if spent is None or row[2] == spent]

    def holdings(self, key: str, height: int) -> list[Holding]:
        sums: dict[bytes, list[int]] = defaultdict(list)
        for share in self.shares:
            if key in share.keys and share.height <= height and not 0 < share.spent <= height:
                sums[share.asset].append(share.amount)
        return [Holding(asset, sum(amounts), len(amounts)) for asset, amounts in sorted(sums.items())]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    story = Told(tmp_path_factory.mktemp("told") / "ledger")
    yield story
    story.ledger.close()


def walk(page_after: Callable[[str | None], Page]) -> list:  # type: ignore[type-arg]
    """The items of all pages."""
    items, after = [], None
    while True:
        page = page_after(after)
        items += page.items
        if page.next is None:
            return items
        after = page.next


def plain(items: list[OwnedOutput]) -> list[tuple[bytes, int, bool, int, int]]:
    return [
        (item.transaction_id, item.output_index, item.spent, item.height, item.position) for item in items
    ]


def test_the_story_is_worth_telling(told: Told) -> None:
    assert len(told.shares) > 60
    assert len([share for share in told.shares if share.spent]) > 20
    assert len([share for share in told.shares if len(share.keys) > 1]) > 10


@pytest.mark.parametrize("limit", [1, 3, 10_000])
@pytest.mark.parametrize("spent", [None, True, False])
def test_outputs_at_every_height(told: Told, spent: bool | None, limit: int) -> None:
    reader = told.ledger.reader
    for pair in everyone:
        key = decode_key(pair.public_key)
        for height in range(BLOCKS + 1):
            found = walk(
                lambda after, key=key, height=height: reader.outputs_of(  # type: ignore[misc]
                    key, spent=spent, at_height=height, after=after, limit=limit
                )
            )
            assert plain(found) == told.outputs(pair.public_key, height, spent)
        now = walk(
            lambda after, key=key: reader.outputs_of(  # type: ignore[misc]
                key, spent=spent, after=after, limit=limit
            )
        )
        assert plain(now) == told.outputs(pair.public_key, BLOCKS, spent)


@pytest.mark.parametrize("limit", [1, 2, 10_000])
def test_holdings_at_every_height(told: Told, limit: int) -> None:
    reader = told.ledger.reader
    for pair in everyone:
        key = decode_key(pair.public_key)
        for height in (None, *range(BLOCKS + 1)):
            found = walk(
                lambda after, key=key, height=height: whole(  # type: ignore[misc]
                    reader.read_holdings(key, at_height=height, after=after, limit=limit)
                )
            )
            assert found == told.holdings(pair.public_key, BLOCKS if height is None else height)


def test_a_page_of_the_past_ends_early_when_it_is_long(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PAGE_ROWS_MAX", 4)
    asked: list[int] = []

    def page(after: str | None) -> Page[OwnedOutput]:
        found = told.ledger.reader.outputs_of(ALICE, spent=True, at_height=4, after=after, limit=3)
        asked.append(len(found.items))
        return found

    assert plain(walk(page)) == told.outputs(alice.public_key, 4, True)
    assert 0 in asked, "a page may have nothing on it and yet not be the last"
    assert len(asked) < 20, "nothing above the height is looked at"


def test_the_past_does_not_read_what_came_later(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def counting(*arguments: bytes) -> Iterator[tuple[bytes, bytes]]:
        for row in original(*arguments):
            read.append(row)
            yield row

    original = owners.rows
    monkeypatch.setattr(owners, "rows", counting)
    told.ledger.reader.outputs_of(ALICE, at_height=1, limit=1_000)
    assert len(read) == len(told.outputs(alice.public_key, 1, None))


class TestSlices:
    """A key with more rows than are read between two pauses."""

    @pytest.fixture
    def rich(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> list[Signed]:
        """Three slices and more of outputs of alice, a hundred in a transaction."""
        monkeypatch.setattr(owners, "SLICE_ROWS", 90)
        made = [
            create(recipients=[([alice.public_key], 2)] * 100, asset={"n": number}) for number in range(3)
        ]
        commit(ledger, *made)
        return made

    def spend(self, ledger: Ledger, item: Signed) -> None:
        inputs = [(item, index) for index in range(100)]
        commit(ledger, transfer(inputs, [([bob.public_key], 200)]))

    def test_what_is_spent_in_a_pause_is_neither_missed_nor_doubled(
        self, ledger: Ledger, path: Path, tmp_path: Path, rich: list[Signed]
    ) -> None:
        follower = open_reader(path, tmp_path / "scratch")
        self.spend(ledger, rich[0])
        follower.catch_up()
        then = ledger.head.height
        readings: list[Slices[Page[Holding]]] = [
            follower.read_holdings(ALICE, at_height=height, after=None, limit=100)
            for height in (None, then, then - 1)
        ]
        lists = [
            follower.read_outputs(ALICE, spent=spent, at_height=then, after=None, limit=100_000)
            for spent in (True, False, None)
        ]
        for reading in (*readings, *lists):
            next(reading)
        for item in rich[1:]:
            self.spend(ledger, item)
        ledger._database.flush()
        follower.catch_up()
        now = follower.read_holdings(ALICE, at_height=None, after=None, limit=100)
        assert whole(now).items == []
        expected = {item.verified.id: (200, 100) for item in rich}
        before = whole(readings[2])
        assert {item.asset_id: (item.amount, item.outputs) for item in before.items} == expected
        del expected[rich[0].verified.id]
        for reading in readings[:2]:
            page = whole(reading)
            assert {item.asset_id: (item.amount, item.outputs) for item in page.items} == expected
        spent, unspent, both = (whole(reading) for reading in lists)
        assert {item.transaction_id for item in spent.items} == {rich[0].verified.id}
        assert len(unspent.items) == 100 * (len(rich) - 1)
        assert [item.spent for item in both.items].count(True) == len(spent.items) == 100
        assert len(both.items) == 100 * len(rich)
        follower.close()

    def test_what_is_short_has_no_pause(self, ledger: Ledger) -> None:
        made = create(recipients=[([alice.public_key], 1)] * 3)
        commit(ledger, made)
        commit(ledger, transfer([(made, 0)], [([bob.public_key], 1)]))
        for height, amount in ((None, 2), (1, 3)):
            with pytest.raises(StopIteration) as end:
                next(ledger.reader.read_holdings(ALICE, at_height=height, after=None, limit=5))
            assert end.value.value.items == [Holding(made.verified.id, amount, amount)]

    def test_many_sums_are_made_a_page_in_a_turn_of_their_own(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(owners, "SLICE_ROWS", 2)
        commit(ledger, *[create(asset={"n": number}) for number in range(3)])
        reading = ledger.reader.read_holdings(ALICE, at_height=None, after=None, limit=5)
        next(reading)
        next(reading)
        assert len(whole(reading).items) == 3

    def test_memory_holds_two_pages_of_sums(self, monkeypatch: pytest.MonkeyPatch) -> None:
        chance = random.Random(1)
        ids = [chance.randbytes(32) for _ in range(2_000)]
        expected = {asset: (3 * number, 3) for number, asset in enumerate(ids, 1)}
        sums = owners._Sums(b"", 10)
        shares = [(asset, number) for number, asset in enumerate(ids, 1)] * 3
        chance.shuffle(shares)
        for start in range(0, len(shares), 50):
            sums.add(shares[start : start + 50])
            assert len(sums._sums) <= 22
        page = sums.page()
        assert [item.asset_id for item in page.items] == sorted(ids)[:10]
        assert all(expected[item.asset_id] == (item.amount, item.outputs) for item in page.items)
        assert page.next == encode_cursor(page.items[-1].asset_id)


def test_cursors_and_rows_of_another_shape(ledger: Ledger) -> None:
    commit(ledger, create(recipients=[([alice.public_key], 1)]))
    for after in ("", "x", encode_cursor(bytes(16))):
        with pytest.raises(InvalidCursor):
            whole(ledger.reader.read_holdings(ALICE, at_height=None, after=after, limit=1))
    page = whole(
        ledger.reader.read_holdings(ALICE, at_height=None, after=encode_cursor(b"\xff" * 32), limit=1)
    )
    assert page.items == []
    with pytest.raises(ValueError, match="32 bytes"):
        whole(ledger.reader.read_holdings(b"short", at_height=None, after=None, limit=1))
    family = ledger.reader._families["owned"]
    family.put(ALICE + b"U" + bytes(15) + b"\x01", b"short")
    family.put(ALICE + b"S" + bytes(15) + b"\x01", b"short")
    with pytest.raises(StoreError, match="bcdb fsck"):
        whole(ledger.reader.read_holdings(ALICE, at_height=None, after=None, limit=1))
    with pytest.raises(StoreError, match="bcdb fsck"):
        ledger.reader.outputs_of(ALICE, spent=True, at_height=1, limit=1)


def test_nobody_has_nothing(ledger: Ledger) -> None:
    commit(ledger, create(alice))
    key = decode_key(carol.public_key)
    for height in (None, 0, 1):
        assert whole(ledger.reader.read_holdings(key, at_height=height, after=None, limit=5)) == Page(
            [], None
        )
        assert ledger.reader.outputs_of(key, at_height=height, limit=5) == Page([], None)
