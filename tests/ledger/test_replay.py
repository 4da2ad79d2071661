"""Opening again: what was accepted is back with its reservations, after a close, a kill and a power cut."""

from pathlib import Path

import msgspec
import pytest
from rocksdict import WriteBatch

from bcdb.ledger import Ledger
from bcdb.ledger.pending import encode_entry
from bcdb.ledger.records import pack_height, seal
from bcdb.model.errors import StoreError
from bcdb.model.transaction import Verified
from tests.ledger.world import accept, commit, cut, faults, image, log_sizes, open_ledger
from tests.support.transactions import alice, bob, carol, create, transfer


def test_accepted_entries_come_back_in_order_with_their_reservations(ledger: Ledger, path: Path) -> None:
    gold = create(alice, recipients=[([alice.public_key], 10)])
    commit(ledger, gold)
    paid = transfer([(gold, 0)], [([bob.public_key], 10)])
    others = [create(carol, asset={"n": number}) for number in range(3)]
    accept(ledger, others[0], paid, *others[1:])
    before, size = dict(ledger.pending), ledger.pending_bytes
    ledger.close()
    again = open_ledger(path)
    assert dict(again.pending) == before
    assert list(again.pending) == list(before)
    assert again.pending_bytes == size
    assert accept(again, transfer([(gold, 0)], [([carol.public_key], 10)])) == ["DoubleSpend"]
    late = create(bob)
    assert accept(again, late) == [None]
    assert again.pending[late.verified.id].seq == 5
    again.close()
    assert faults(path) == []


def test_a_kill_loses_nothing_that_was_written(ledger: Ledger, tmp_path: Path) -> None:
    made, waiting = create(alice), create(bob)
    commit(ledger, made)
    accept(ledger, waiting)
    survivor = image(ledger, tmp_path / "image")
    again = open_ledger(survivor)
    assert again.head == ledger.head
    assert list(again.pending) == [waiting.verified.id]
    again.close()
    assert faults(survivor) == []


def test_a_power_cut_loses_nothing_that_was_flushed(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    made, flushed, unflushed = create(alice), create(bob), create(carol)
    commit(ledger, made)
    accept(ledger, flushed)
    synced = log_sizes(path)
    ledger.flush()
    accept(ledger, unflushed)
    commit(ledger, unflushed)
    survivor = image(ledger, tmp_path / "image")
    cut(survivor, synced)
    again = open_ledger(survivor)
    assert again.head.height == 1
    assert list(again.pending) == [flushed.verified.id]
    again.close()
    assert faults(survivor) == []


def test_a_power_cut_within_a_record_lands_before_the_block(
    ledger: Ledger, path: Path, tmp_path: Path
) -> None:
    commit(ledger, create(alice))
    start = log_sizes(path)
    commit(ledger, create(bob), create(carol))
    [(name, end)] = log_sizes(path).items()
    for number, size in enumerate(range(start[name], end, (end - start[name]) // 7)):
        survivor = image(ledger, tmp_path / f"image{number}")
        cut(survivor, {name: size})
        again = open_ledger(survivor)
        assert again.head.height == 1
        assert again.reader.block(2) is None
        again.close()
        assert faults(survivor) == []


def write_entry(ledger: Ledger, seq: int, transaction: Verified) -> None:
    batch = WriteBatch(raw_mode=True)
    batch.put(pack_height(seq), encode_entry(transaction), ledger._handles["wal"])
    ledger._database.write(batch)


def test_entries_that_are_committed_already_are_dropped(ledger: Ledger, path: Path) -> None:
    made, waiting = create(alice), create(bob)
    commit(ledger, made)
    write_entry(ledger, 7, made.verified)
    write_entry(ledger, 8, waiting.verified)
    write_entry(ledger, 9, waiting.verified)
    ledger.close()
    assert len(faults(path)) == 2
    again = open_ledger(path)
    assert list(again.pending) == [waiting.verified.id]
    assert again.rejection(made.verified.id) is None
    assert accept(again, create(carol)) == [None]
    assert [entry.seq for entry in again.pending.values()] == [8, 10]
    again.close()
    assert faults(path) == []


def test_entries_that_can_never_be_committed_are_rejected(ledger: Ledger, path: Path) -> None:
    gold = create(alice, recipients=[([alice.public_key], 10)])
    commit(ledger, gold)
    lost = transfer([(gold, 0)], [([bob.public_key], 10)])
    commit(ledger, transfer([(gold, 0)], [([carol.public_key], 10)]))
    write_entry(ledger, 7, lost.verified)
    ledger.close()
    again = open_ledger(path)
    assert not again.pending
    rejection = again.rejection(lost.verified.id)
    assert rejection is not None
    assert rejection.name == "DoubleSpend"
    again.close()
    assert faults(path) == []


def test_the_chain_id_is_kept_and_asked_for(path: Path) -> None:
    made = Ledger.open(path)
    assert made.chain_id.startswith("bcdb-")
    made.close()
    again = Ledger.open(path, chain_id=made.chain_id)
    again.close()
    with pytest.raises(StoreError, match="belongs to the chain"):
        Ledger.open(path, chain_id="another")


def test_another_format_is_refused_with_a_sentence(ledger: Ledger, path: Path) -> None:
    ledger._families["meta"].put(b"format", seal((9).to_bytes(4, "big")))
    ledger.close()
    with pytest.raises(StoreError, match="has format 9; this version of bcdb reads format 1"):
        open_ledger(path)


def test_a_store_without_a_format_is_refused_unless_it_is_empty(ledger: Ledger, path: Path) -> None:
    ledger._families["meta"].delete(b"format")
    ledger.close()
    with pytest.raises(StoreError, match="is not a ledger of bcdb"):
        open_ledger(path)


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no")
    with pytest.raises(StoreError):
        Ledger.open(tmp_path / "file")
    with pytest.raises(StoreError):
        Ledger.open(tmp_path / "file" / "below")


def test_entries_of_other_limits_are_verified_again(ledger: Ledger, path: Path) -> None:
    sound, spoilt = create(alice), create(bob)
    damaged = msgspec.structs.replace(
        spoilt.verified, body=spoilt.verified.body.replace(b"CREATE", b"CREATE ")
    )
    batch = WriteBatch(raw_mode=True)
    for seq, transaction in ((1, sound.verified), (2, damaged)):
        value = b"\x00" + encode_entry(transaction)[1:]
        batch.put(pack_height(seq), value, ledger._handles["wal"])
    ledger._database.write(batch)
    ledger.close()
    again = open_ledger(path)
    assert list(again.pending) == [sound.verified.id]
    assert again.pending[sound.verified.id].verified == sound.verified
    rejection = again.rejection(spoilt.verified.id)
    assert rejection is not None
    assert rejection.name == "InvalidHash"
    again.close()
    assert faults(path) == []
