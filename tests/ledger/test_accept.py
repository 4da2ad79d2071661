"""Accepting: every rule with its name and text, reservations, bounds, and what a failed write means."""

from pathlib import Path

import msgspec
import pytest

from bcdb.ledger import Ledger
from bcdb.model import limits
from bcdb.model.errors import StorageFailed, StoreError
from tests.ledger.world import accept, commit, open_ledger
from tests.support.transactions import Signed, alice, bob, carol, create, transfer


def refusal(ledger: Ledger, transaction: Signed) -> tuple[str, str]:
    [error] = ledger.accept([transaction.verified])
    assert error is not None
    return error.name, error.text


@pytest.fixture
def gold(ledger: Ledger) -> Signed:
    """A committed asset: alice has ten of it."""
    made = create(alice, recipients=[([alice.public_key], 10)], asset={"is": "gold"})
    commit(ledger, made)
    return made


def hex_id(transaction: Signed) -> str:
    return transaction.verified.id.hex()


def test_accepted_in_order_and_pending(ledger: Ledger) -> None:
    transactions = [create(alice, asset={"n": number}) for number in range(3)]
    assert accept(ledger, *transactions) == [None, None, None]
    assert list(ledger.pending) == [item.verified.id for item in transactions]
    assert [entry.seq for entry in ledger.pending.values()] == [1, 2, 3]
    assert ledger.pending[transactions[0].verified.id].verified == transactions[0].verified
    assert ledger.pending_bytes == sum(len(item.raw) for item in transactions)
    assert ledger.mark == 1
    assert ledger.flush() == 1


def test_pending_again_is_a_duplicate(ledger: Ledger) -> None:
    made = create(alice)
    assert accept(ledger, made) == [None]
    assert refusal(ledger, made) == ("DuplicateTransaction", f"transaction `{hex_id(made)}` already exists")


def test_twice_in_one_batch_is_a_duplicate(ledger: Ledger) -> None:
    made = create(alice)
    assert accept(ledger, made, made) == [None, "DuplicateTransaction"]
    assert len(ledger.pending) == 1


def test_committed_again_is_a_duplicate_for_a_transfer_too(ledger: Ledger, gold: Signed) -> None:
    paid = transfer([(gold, 0)], [([bob.public_key], 10)])
    commit(ledger, paid)
    for known in (gold, paid):
        assert refusal(ledger, known) == (
            "DuplicateTransaction",
            f"transaction `{hex_id(known)}` already exists",
        )


def test_an_unknown_input(ledger: Ledger) -> None:
    unknown = create(alice)
    paid = transfer([(unknown, 0)], [([bob.public_key], 1)])
    assert refusal(ledger, paid) == ("InputDoesNotExist", f"input `{hex_id(unknown)}` doesn't exist")


def test_a_pending_output_is_not_there_yet_in_one_batch_too(ledger: Ledger) -> None:
    made = create(alice)
    paid = transfer([(made, 0)], [([bob.public_key], 1)])
    assert accept(ledger, made, paid) == [None, "InputDoesNotExist"]
    assert accept(ledger, paid) == ["InputDoesNotExist"]
    commit(ledger, made)
    assert accept(ledger, paid) == [None]


def test_an_output_that_the_transaction_has_not(ledger: Ledger, gold: Signed) -> None:
    paid = transfer([(gold, 0)], [([bob.public_key], 10)]).verified
    beyond = msgspec.structs.replace(paid, spends=(msgspec.structs.replace(paid.spends[0], output_index=1),))
    [error] = ledger.accept([beyond])
    assert error is not None
    assert (error.name, error.text) == ("InputDoesNotExist", f"input `{hex_id(gold)}` has no output 1")


def test_a_spent_output(ledger: Ledger, gold: Signed) -> None:
    commit(ledger, transfer([(gold, 0)], [([bob.public_key], 10)]))
    again = transfer([(gold, 0)], [([carol.public_key], 10)])
    assert refusal(ledger, again) == ("DoubleSpend", f"input `{hex_id(gold)}` was already spent")


def test_a_reserved_output_also_in_one_batch(ledger: Ledger, gold: Signed) -> None:
    first = transfer([(gold, 0)], [([bob.public_key], 10)])
    second = transfer([(gold, 0)], [([carol.public_key], 10)])
    assert accept(ledger, first, second) == [None, "DoubleSpend"]
    name, text = refusal(ledger, second)
    assert name == "DoubleSpend"
    assert text == f"input `{hex_id(gold)}` is already spent by the pending transaction `{hex_id(first)}`"


def test_one_output_twice_in_one_transaction(ledger: Ledger, gold: Signed) -> None:
    paid = transfer([(gold, 0)], [([bob.public_key], 20)]).verified
    twice = msgspec.structs.replace(paid, spends=paid.spends * 2)
    [error] = ledger.accept([twice])
    assert error is not None
    assert (error.name, error.text) == ("DoubleSpend", f'tx "{paid.id.hex()}" spends inputs twice')


def test_inputs_of_two_assets(ledger: Ledger, gold: Signed) -> None:
    silver = create(alice, recipients=[([alice.public_key], 5)], asset={"is": "silver"})
    commit(ledger, silver)
    mixed = transfer([(gold, 0), (silver, 0)], [([bob.public_key], 15)], asset_id=hex_id(gold))
    other = transfer([(silver, 0)], [([bob.public_key], 5)], asset_id=hex_id(gold))
    for wrong in (mixed, other):
        name, text = refusal(ledger, wrong)
        assert name == "AssetIdMismatch"
        assert text == "The asset id of the input does not match the asset id of the transaction"


@pytest.mark.parametrize("amount", [9, 11])
def test_amounts_that_do_not_balance(ledger: Ledger, gold: Signed, amount: int) -> None:
    paid = transfer([(gold, 0)], [([bob.public_key], amount)])
    assert refusal(ledger, paid) == (
        "AmountError",
        f"The amount used in the inputs `10` needs to be same as the amount used in the outputs `{amount}`",
    )


def test_a_fulfillment_of_another_condition(ledger: Ledger, gold: Signed) -> None:
    stolen = dict(gold.tx)
    stolen["outputs"] = create(bob, recipients=[([bob.public_key], 10)]).tx["outputs"]
    paid = transfer([(stolen, 0)], [([bob.public_key], 10)], keypairs=[bob])
    assert refusal(ledger, paid) == ("InvalidSignature", "Transaction signature is invalid.")


def test_owners_before_other_than_the_owners(ledger: Ledger, gold: Signed) -> None:
    paid = transfer([(gold, 0)], [([bob.public_key], 10)]).verified
    spend = msgspec.structs.replace(paid.spends[0], owners=(bob.public_key,))
    [error] = ledger.accept([msgspec.structs.replace(paid, spends=(spend,))])
    assert error is not None
    assert error.name == "TransactionOwnerError"
    assert alice.public_key in error.text


def test_an_operation_without_rules(ledger: Ledger) -> None:
    vote = msgspec.structs.replace(create(alice).verified, operation="VOTE")
    [error] = ledger.accept([vote])
    assert error is not None
    assert error.name == "OperationNotSupported"


def test_a_refused_one_does_not_hold_up_the_others(ledger: Ledger, gold: Signed) -> None:
    good = [create(bob, asset={"n": number}) for number in range(2)]
    assert accept(ledger, good[0], gold, good[1]) == [None, "DuplicateTransaction", None]
    assert accept(ledger) == []


def test_a_full_log_is_back_pressure(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    transactions = [create(alice, asset={"n": number}) for number in range(4)]
    monkeypatch.setattr(limits, "WAL_ENTRIES_MAX", 2)
    assert accept(ledger, *transactions[:3]) == [None, None, "Overloaded"]
    assert accept(ledger, transactions[0]) == ["DuplicateTransaction"]
    monkeypatch.setattr(limits, "WAL_ENTRIES_MAX", 10)
    monkeypatch.setattr(limits, "WAL_BYTES_MAX", ledger.pending_bytes + len(transactions[2].raw))
    assert accept(ledger, *transactions[2:]) == [None, "Overloaded"]
    commit(ledger, *transactions[:2])
    assert accept(ledger, transactions[3]) == [None]
    assert ledger.pending_bytes == len(transactions[2].raw) + len(transactions[3].raw)


class Broken:
    """Stands before the database and fails as a full disk or a dying one does."""

    def __init__(self, database: object, *, write: bool = False, flush: bool = False) -> None:
        self._database = database
        self._write, self._flush = write, flush
        self.calls = 0

    def write(self, batch: object) -> None:
        self.calls += 1
        if self._write:
            raise Exception("IO error: No space left on device")
        self._database.write(batch)  # type: ignore[attr-defined]

    def flush_wal(self, sync: bool) -> None:
        self.calls += 1
        if self._flush:
            raise Exception("IO error: fsync: Input/output error")
        self._database.flush_wal(sync)  # type: ignore[attr-defined]


def test_after_a_failed_write_nothing_is_taken(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Broken(ledger._database, write=True)
    monkeypatch.setattr(ledger, "_database", broken)
    with pytest.raises(StorageFailed, match="No space left"):
        accept(ledger, create(alice))
    assert ledger.failed
    for step in (ledger.flush, lambda: accept(ledger, create(bob)), lambda: commit(ledger)):
        with pytest.raises(StorageFailed):
            step()
    assert broken.calls == 1, "nothing is tried again"


def test_a_failed_flush_is_never_tried_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Broken(ledger._database, flush=True)
    monkeypatch.setattr(ledger, "_database", broken)
    assert accept(ledger, create(alice)) == [None]
    with pytest.raises(StorageFailed, match="Input/output error"):
        ledger.flush()
    with pytest.raises(StorageFailed):
        ledger.flush()
    with pytest.raises(StorageFailed):
        commit(ledger)
    assert ledger.failed
    assert broken.calls == 2


def test_a_new_ledger_is_the_only_one_on_its_directory(ledger: Ledger, path: Path) -> None:
    with pytest.raises(StoreError, match="in use by another process"):
        open_ledger(path)
