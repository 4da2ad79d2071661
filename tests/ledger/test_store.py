"""Rows that RocksDB can't read are never passed over: a list ends with its last row or with an error."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bcdb.ledger import Ledger, open_reader
from bcdb.ledger.store import Families, locked, open_read_only, rows, rows_backwards
from bcdb.model import decode_key
from bcdb.model.errors import StorageFailed, StoreError
from tests.ledger.world import CHAIN_ID, accept, commit, open_ledger
from tests.support.transactions import alice, bob, create

COUNT = 400


def close_damaged(ledger: Ledger, family: str) -> None:
    """Turn a bit in the middle of the only file of a family."""
    before = set(ledger.path.glob("*.sst"))
    ledger._families[family].flush()
    [file] = set(ledger.path.glob("*.sst")) - before
    ledger.close()
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 3] ^= 1
    file.write_bytes(bytes(raw))


def forwards(families: Families) -> int:
    return sum(1 for _ in rows(families["owned"]))


def backwards(families: Families) -> int:
    return sum(1 for _ in rows_backwards(families["owned"], b"", b"\xff" * 100))


@pytest.mark.parametrize("count", [forwards, backwards])
def test_rows_end_with_an_error_at_a_damaged_block(
    ledger: Ledger, path: Path, count: Callable[[Families], int]
) -> None:
    commit(ledger, *[create(alice, asset={"n": number}) for number in range(COUNT)])
    assert count(ledger._families) == COUNT
    close_damaged(ledger, "owned")
    families = open_read_only(path)
    with pytest.raises(StorageFailed, match="can't be read: Corruption"):
        count(families)
    families.close()


def test_a_list_of_outputs_is_never_short(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    commit(ledger, *[create(alice, asset={"n": number}) for number in range(COUNT)])
    close_damaged(ledger, "owned")
    reader = open_reader(path, tmp_path / "scratch")
    with pytest.raises(StorageFailed, match="can't be read"):
        reader.outputs_of(decode_key(alice.public_key), limit=COUNT)
    assert reader.outputs_of(decode_key(bob.public_key), limit=COUNT).items == []
    reader.close()


def test_what_was_accepted_is_never_left_out_of_a_start(ledger: Ledger, path: Path) -> None:
    assert not any(accept(ledger, *[create(alice, asset={"n": number}) for number in range(COUNT)]))
    close_damaged(ledger, "wal")
    with pytest.raises(StorageFailed, match="can't be read"):
        Ledger.open(path, chain_id=CHAIN_ID)


def test_a_lock_that_can_not_be_made_is_named(path: Path) -> None:
    open_ledger(path).close()
    (path / "LOCK").unlink()
    (path / "LOCK").mkdir()
    with pytest.raises(StoreError, match="can't be locked: Is a directory"), locked(path):
        pass
