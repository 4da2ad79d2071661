"""A block that is applied in slices, accepting in the pauses, does what it does in one go, bit by bit."""

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bcdb.ledger import Invalid, Ledger, Outcome, apply
from bcdb.ledger.records import output_key
from bcdb.ledger.slices import Slices
from bcdb.ledger.view import Writes
from bcdb.model.errors import InvalidSignature
from bcdb.model.transaction import Verified
from tests.ledger.test_determinism import CONSENSUS_FAMILIES, random_blocks, rows
from tests.ledger.world import accept, commit, faults, header, open_ledger, plain
from tests.support.transactions import alice, bob, create, transfer

INVALID = Invalid(bytes(32), InvalidSignature("Transaction signature is invalid."))


def with_pauses(slices: Slices[Outcome], pause: Callable[[], None]) -> tuple[Outcome, int]:
    """The outcome, and how many slices it took."""
    count = 0
    while True:
        count += 1
        try:
            next(slices)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome, count
        pause()


def everything(outcome: Outcome) -> dict[str, object]:
    """All that an outcome says, with the order of what it writes; `settled` is this node's own."""
    fields = {name: getattr(outcome, name) for name in outcome.__struct_fields__ if name != "settled"}
    writes = {name: getattr(outcome.writes, name) for name in Writes.__slots__}
    ordered = {
        name: list(found.items()) if isinstance(found, dict) else found for name, found in writes.items()
    }
    return {**fields, "writes": ordered}


def fates(ledger: Ledger, transaction: Verified) -> int:
    """In how many ways the ledger knows what became of it."""
    return (
        (transaction.id in ledger.pending)
        + ledger.reader.has_transaction(transaction.id)
        + (ledger.rejection(transaction.id) is not None)
    )


def inputs_of(item: Verified) -> set[bytes]:
    return {output_key(spend.transaction_id, spend.output_index) for spend in item.spends}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_slices_and_what_is_accepted_between_them_change_nothing(seed: int) -> None:
    chance = random.Random(seed)
    short = [plain(block) for block in random_blocks(chance)]
    blocks = [[*itertools.chain(*short[at : at + 4]), INVALID] for at in range(0, len(short), 4)]
    known = list({item.id: item for item in itertools.chain(*blocks) if isinstance(item, Verified)}.values())
    accepted: list[Verified] = []
    with TemporaryDirectory() as folder:
        at_once, sliced = open_ledger(Path(folder) / "at-once"), open_ledger(Path(folder) / "sliced")
        for height, block in enumerate(blocks, 1):
            inputs = {key for item in block if isinstance(item, Verified) for key in inputs_of(item)}
            rivals = [item for item in known if inputs & inputs_of(item)]

            def accept_some(block: list[Verified | Invalid] = block, rivals: list[Verified] = rivals) -> None:
                """What the block has, what stands against it, and others."""
                offered = [
                    item for item in chance.sample(block, len(block) // 2) if isinstance(item, Verified)
                ]
                offered += chance.sample(rivals, min(len(rivals), 4)) + chance.sample(known, 1)
                for item, refusal in zip(offered, sliced.accept(offered), strict=True):
                    if refusal is None:
                        accepted.append(item)

            chance.shuffle(block)
            with (
                mock.patch.object(apply, "SLICE_TRANSACTIONS", chance.randint(1, 4)),
                mock.patch.object(apply, "SLICE_BYTES", chance.choice((1, 2_000, 10**6))),
            ):
                outcome, _ = with_pauses(sliced.applying(header(height), block), accept_some)
            expected = at_once.apply(header(height), block)
            assert everything(outcome) == everything(expected)
            at_once.commit(expected)
            sliced.commit(outcome)
            reserved = sliced._pending.reserved
            assert reserved.keys() == sliced._pending.records.keys()
            assert set(reserved.values()) <= sliced.pending.keys()
            for key, record in sliced._pending.records.items():
                assert record == sliced.reader.get_output(key)
            assert all(fates(sliced, item) == 1 for item in accepted)
        at_once.close()
        sliced.close()
        for name in CONSENSUS_FAMILIES:
            assert rows(Path(folder) / "at-once", name) == rows(Path(folder) / "sliced", name)
        assert faults(Path(folder) / "sliced") == []


def test_a_slice_has_so_many_transactions_and_bytes(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [create(asset={"n": number}).verified for number in range(10)]
    block = [INVALID] * 5 + made

    def slices() -> int:
        return with_pauses(ledger.applying(header(1), block), lambda: None)[1]

    assert slices() == 1
    monkeypatch.setattr(apply, "SLICE_TRANSACTIONS", 4)
    assert slices() == 4
    monkeypatch.setattr(apply, "SLICE_BYTES", len(made[0].body) + 1)
    assert slices() == 6, "2 of invalid ones, then two at a time"
    assert with_pauses(ledger.applying(header(1), []), lambda: None)[1] == 1


def test_an_entry_of_the_block_itself_is_not_committed_for_the_rest_of_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepted after its turn and before that of its double and of what spends its output."""
    monkeypatch.setattr(apply, "SLICE_TRANSACTIONS", 1)
    gold = create(alice)
    commit(ledger, gold)
    paid = transfer([(gold, 0)], [([bob.public_key], 1)])
    onward = transfer([(paid, 0)], [([alice.public_key], 1)])
    applying = ledger.applying(header(2), plain([paid, paid, onward]))
    next(applying)
    assert accept(ledger, paid) == [None]
    outcome, _ = with_pauses(applying, lambda: None)
    assert [result.status for result in outcome.results] == ["committed", "duplicate", "committed"]
    ledger.commit(outcome)
    assert outcome.settled == {paid.verified.id: None}
    assert not ledger.pending
    assert not ledger._pending.reserved


def test_a_block_that_is_given_up_has_changed_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "SLICE_TRANSACTIONS", 1)
    made = [create(asset={"n": number}) for number in range(3)]
    applying = ledger.applying(header(1), plain(made))
    next(applying)
    applying.close()
    assert (ledger.mark, ledger.head.height) == (0, 0)
    assert not ledger.reader.has_transaction(made[0].verified.id)
    assert len(commit(ledger, *made).committed) == 3


def test_what_was_committed_in_a_pause_makes_the_outcome_void(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "SLICE_TRANSACTIONS", 1)
    applying = ledger.applying(header(1), plain([create(alice), create(bob)]))
    next(applying)
    commit(ledger)
    outcome, _ = with_pauses(applying, lambda: None)
    with pytest.raises(ValueError, match="block 1 was not applied on block 1, the head"):
        ledger.commit(outcome)
