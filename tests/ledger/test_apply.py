"""Applying and committing blocks: conflicts in order, results, what a block settles, and purity."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bcdb.ledger
from bcdb.ledger import Invalid, Ledger, Rejection
from bcdb.ledger.apphash import app_hash
from bcdb.ledger.merkle import append, leaf_hash, root
from bcdb.model.errors import InvalidSignature
from tests.ledger.world import accept, apply, commit, faults, header
from tests.support.transactions import Signed, alice, bob, carol, create, transfer


@pytest.fixture
def gold(ledger: Ledger) -> Signed:
    made = create(alice, recipients=[([alice.public_key], 10)], asset={"is": "gold"})
    commit(ledger, made)
    return made


def test_a_block_may_spend_what_it_makes(ledger: Ledger, path: Path) -> None:
    made = create(alice)
    first = transfer([(made, 0)], [([bob.public_key], 1)])
    second = transfer([(first, 0)], [([carol.public_key], 1)])
    outcome = commit(ledger, made, first, second)
    assert [(result.status, result.position) for result in outcome.results] == [
        ("committed", 0),
        ("committed", 1),
        ("committed", 2),
    ]
    output = ledger.reader.output(first.verified.id, 0)
    assert output is not None
    assert (output.spent_height, output.spent_by) == (1, second.verified.id)
    ledger.close()
    assert faults(path) == []


def test_the_order_of_the_block_decides(ledger: Ledger, gold: Signed) -> None:
    to_bob = transfer([(gold, 0)], [([bob.public_key], 10)])
    to_carol = transfer([(gold, 0)], [([carol.public_key], 10)])
    outcome = apply(ledger, to_carol, to_bob)
    assert [result.status for result in outcome.results] == ["committed", "rejected"]
    assert outcome.results[1].name == "DoubleSpend"
    outcome = apply(ledger, to_bob, to_carol)
    assert [result.id for result in outcome.results if result.status == "committed"] == [to_bob.verified.id]


def test_positions_count_the_committed_only(ledger: Ledger, gold: Signed) -> None:
    invalid = Invalid(b"\0" * 32, InvalidSignature("Transaction signature is invalid."))
    unknown = transfer([(create(bob), 0)], [([bob.public_key], 1)])
    made = create(carol)
    outcome = commit(ledger, invalid, gold, unknown, made)
    assert [(result.status, result.position, result.name) for result in outcome.results] == [
        ("rejected", -1, "InvalidSignature"),
        ("duplicate", -1, ""),
        ("rejected", -1, "InputDoesNotExist"),
        ("committed", 0, ""),
    ]
    block = ledger.reader.block(2)
    assert block is not None
    assert block.ids == (made.verified.id,)
    assert block.first_leaf == 1
    stored = ledger.reader.transaction(made.verified.id)
    assert stored is not None
    assert (stored.height, stored.position, stored.body) == (2, 0, made.raw)


def test_applying_changes_nothing(ledger: Ledger, gold: Signed) -> None:
    mark, head = ledger.mark, ledger.head
    paid = transfer([(gold, 0)], [([bob.public_key], 10)])
    assert apply(ledger, paid).app_hash == apply(ledger, paid).app_hash
    assert (ledger.mark, ledger.head) == (mark, head)
    assert ledger.reader.transaction(paid.verified.id) is None


def test_the_app_hash_is_that_of_the_log(ledger: Ledger, gold: Signed) -> None:
    time_ns = header(1).time_ns
    frontier, _ = append(0, (), [leaf_hash(1, 0, time_ns, gold.verified.id)])
    assert ledger.head.app_hash == app_hash(root(frontier))
    before = ledger.head.app_hash
    commit(ledger)
    commit(ledger, gold)
    assert ledger.head.app_hash == before, "a block that changes nothing leaves the app hash"
    assert ledger.head.height == 3


def test_a_block_goes_on_its_parent_only(ledger: Ledger, gold: Signed) -> None:
    with pytest.raises(ValueError, match="block 3 can't follow block 1"):
        ledger.apply(header(3), [])
    first, second = apply(ledger), apply(ledger, create(bob))
    ledger.commit(second)
    with pytest.raises(ValueError, match="block 2 was not applied on block 2"):
        ledger.commit(first)


def test_a_block_settles_what_is_pending_by_id_whoever_sent_it(ledger: Ledger) -> None:
    ours, later = create(alice), create(bob)
    accept(ledger, ours, later)
    outcome = commit(ledger, create(carol), ours)
    assert outcome.settled == {ours.verified.id: None}
    assert list(ledger.pending) == [later.verified.id]


def test_a_block_rejects_the_pending_entry_whose_input_it_spends(ledger: Ledger, gold: Signed) -> None:
    ours = transfer([(gold, 0)], [([bob.public_key], 10)])
    theirs = transfer([(gold, 0)], [([carol.public_key], 10)])
    accept(ledger, ours)
    outcome = commit(ledger, theirs)
    lost = Rejection(2, "DoubleSpend", f"input `{gold.verified.id.hex()}` was already spent")
    assert outcome.settled == {ours.verified.id: lost}
    assert ledger.rejection(ours.verified.id) == lost
    assert not ledger.pending
    assert not ledger._pending.reserved
    assert accept(ledger, ours) == ["DoubleSpend"]


def test_what_is_accepted_while_a_block_is_applied_is_settled_by_it(ledger: Ledger, gold: Signed) -> None:
    theirs = transfer([(gold, 0)], [([carol.public_key], 10)])
    outcome = apply(ledger, theirs)
    ours = transfer([(gold, 0)], [([bob.public_key], 10)])
    assert accept(ledger, ours) == [None]
    ledger.commit(outcome)
    assert [rejection is not None for rejection in outcome.settled.values()] == [True]
    assert list(outcome.settled) == [ours.verified.id]


def test_a_pending_entry_that_a_block_rejects_is_settled(ledger: Ledger, gold: Signed) -> None:
    ours = transfer([(gold, 0)], [([bob.public_key], 10)])
    theirs = transfer([(gold, 0)], [([carol.public_key], 10)])
    accept(ledger, ours)
    outcome = commit(ledger, theirs, ours)
    assert [result.status for result in outcome.results] == ["committed", "rejected"]
    assert list(outcome.settled) == [ours.verified.id]
    assert not ledger.pending


def test_rejected_then_committed_in_one_block_is_committed(ledger: Ledger, gold: Signed) -> None:
    middle = transfer([(gold, 0)], [([bob.public_key], 10)])
    last = transfer([(middle, 0)], [([carol.public_key], 10)])
    accept(ledger, middle)
    outcome = commit(ledger, last, middle, last)
    assert [result.status for result in outcome.results] == ["rejected", "committed", "committed"]
    assert outcome.settled == {middle.verified.id: None}


def test_a_claimed_id_settles_nothing(ledger: Ledger) -> None:
    ours = create(alice)
    accept(ledger, ours)
    outcome = commit(ledger, Invalid(ours.verified.id, InvalidSignature("Transaction signature is invalid.")))
    assert outcome.results[0].status == "rejected"
    assert outcome.settled == {}
    assert ours.verified.id in ledger.pending
    assert ledger.rejection(ours.verified.id) is None


def test_rejections_are_forgotten_after_their_heights(
    ledger: Ledger, path: Path, gold: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bcdb.model.limits.REJECTED_HEIGHTS_KEPT", 3)
    ours = transfer([(gold, 0)], [([bob.public_key], 10)])
    accept(ledger, ours)
    commit(ledger, transfer([(gold, 0)], [([carol.public_key], 10)]))
    for _ in range(3):
        commit(ledger)
        assert ledger.rejection(ours.verified.id) is not None
    commit(ledger)
    assert ledger.rejection(ours.verified.id) is None
    ledger.close()
    assert faults(path) == []


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports; of a package also the lower-case names, which may be its modules."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_core_is_pure() -> None:
    """Whatever decides a block imports, directly or not, nothing that does I/O or tells the time."""
    folder = Path(bcdb.ledger.__file__).parent
    files = {
        "bcdb.ledger."
        + ".".join(file.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): file
        for file in folder.rglob("*.py")
    }
    allowed = {"bcdb.model", "collections", "functools", "hashlib", "msgspec", "struct", "typing", "zlib"}
    todo, seen = ["bcdb.ledger.apply"], set()
    while todo:
        name = todo.pop()
        seen.add(name)
        for module in imported(files[name]):
            if module in files:
                todo += {module} - seen
            elif not module.startswith("bcdb.ledger."):
                assert any(f"{module}.".startswith(f"{known}.") for known in allowed), (name, module)
    short = {name.removeprefix("bcdb.ledger.") for name in seen}
    assert {"apply", "view", "merkle", "apphash", "records", "operations.transfer"} <= short
    assert not short & {"store", "reader", "ledger", "pending", "trace", "crashpoints"}
