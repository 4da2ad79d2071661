"""What can't be committed any more: told by the ledger, and kept up to date from the outcomes of blocks."""

import random

import pytest

from bcdb.ledger import Ledger
from bcdb.ledger.records import output_key
from bcdb.model.transaction import Verified
from tests.ledger.test_determinism import random_blocks
from tests.ledger.world import accept, commit
from tests.support.transactions import Signed, alice, bob, carol, create, transfer


@pytest.fixture
def gold(ledger: Ledger) -> Signed:
    """A committed asset: alice has five of it, twice."""
    made = create(alice, recipients=[([alice.public_key], 5)] * 2, asset={"is": "gold"})
    commit(ledger, made)
    return made


def inputs_of(item: Verified) -> list[bytes]:
    return [output_key(spend.transaction_id, spend.output_index) for spend in item.spends]


def test_what_is_committed_is_dead(ledger: Ledger, gold: Signed) -> None:
    assert ledger.is_dead(gold.verified)
    assert not ledger.is_dead(create(bob).verified)


def test_one_spent_input_is_enough(ledger: Ledger, gold: Signed) -> None:
    both = transfer([(gold, 0), (gold, 1)], [([bob.public_key], 10)]).verified
    assert not ledger.is_dead(both)
    commit(ledger, transfer([(gold, 1)], [([carol.public_key], 5)]))
    assert ledger.is_dead(both)


def test_an_input_that_is_not_there_yet_leaves_it_alive(ledger: Ledger, gold: Signed) -> None:
    paid = transfer([(gold, 0)], [([bob.public_key], 5)])
    onward = transfer([(paid, 0)], [([carol.public_key], 5)])
    mixed = transfer([(paid, 0), (gold, 1)], [([carol.public_key], 10)])
    assert not ledger.is_dead(onward.verified)
    commit(ledger, paid)
    assert not ledger.is_dead(onward.verified)
    commit(ledger, transfer([(gold, 1)], [([carol.public_key], 5)]))
    assert ledger.is_dead(mixed.verified), "one input was made, the other is spent"
    assert not ledger.is_dead(onward.verified)


def test_what_is_only_pending_kills_nothing(ledger: Ledger, gold: Signed) -> None:
    """Consensus may order it differently."""
    ours = transfer([(gold, 0)], [([bob.public_key], 5)])
    theirs = transfer([(gold, 0)], [([carol.public_key], 5)])
    assert accept(ledger, ours) == [None]
    assert not ledger.is_dead(ours.verified)
    assert not ledger.is_dead(theirs.verified)
    commit(ledger, theirs)
    assert ledger.is_dead(ours.verified)
    assert ledger.is_dead(theirs.verified)


def test_an_output_that_is_made_and_spent_in_one_block_is_among_the_spent(ledger: Ledger) -> None:
    made = create(alice)
    paid = transfer([(made, 0)], [([bob.public_key], 1)])
    outcome = commit(ledger, made, paid)
    assert outcome.spent == {output_key(made.verified.id, 0): paid.verified.id}
    assert ledger.is_dead(transfer([(made, 0)], [([carol.public_key], 1)]).verified)


@pytest.mark.parametrize("seed", range(5))
def test_outcomes_tell_all_that_a_block_kills(ledger: Ledger, seed: int) -> None:
    """Dead after a block is exactly: dead before, or committed by it, or with an input that it spends."""
    blocks = random_blocks(random.Random(seed))
    known = {item.verified.id: item.verified for block in blocks for item in block}
    dead: set[bytes] = set()
    for block in blocks:
        outcome = commit(ledger, *block)
        dead |= {item.id for item in outcome.committed}
        dead |= {item.id for item in known.values() if outcome.spent.keys() & set(inputs_of(item))}
        assert dead == {item.id for item in known.values() if ledger.is_dead(item)}
    assert dead
