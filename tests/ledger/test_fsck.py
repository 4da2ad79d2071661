"""fsck finds every single damage: a flipped byte in any value, rows missing, rows too many, wrong heights and
roots.
"""

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rocksdict import Rdict

from bcdb.ledger import Ledger, merkle, records
from bcdb.ledger.fsck import check
from bcdb.ledger.store import FAMILIES, META_HEAD, Families, open_primary
from bcdb.model import decode_key
from bcdb.model.errors import StorageFailed, StoreError
from tests.ledger.world import accept, commit, faults, open_ledger
from tests.support.transactions import alice, bob, carol, create, transfer


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with rows in every family: spent and unspent outputs, shared ones, a rejection, two entries
    pending, an empty block, and enough leaves for a stored subtree."""
    path = tmp_path_factory.mktemp("sound") / "ledger"
    ledger = open_ledger(path)
    gold = create(alice, recipients=[([alice.public_key], 10), ([alice.public_key, bob.public_key], 5)])
    commit(ledger, gold)
    paid = transfer([(gold, 0)], [([bob.public_key], 4), ([carol.public_key], 6)])
    lost = transfer([(gold, 0)], [([carol.public_key], 10)])
    accept(ledger, lost)
    commit(ledger, paid, create(bob))
    commit(ledger)
    many = [create(carol, asset={"n": number}) for number in range(2**merkle.STORED_LEVEL_MIN)]
    commit(ledger, *many)
    accept(ledger, transfer([(paid, 0)], [([alice.public_key], 4)]), create(alice, asset={"is": "late"}))
    ledger.close()
    assert faults(path) == []
    return path


@pytest.fixture
def damaged(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "ledger")
    return tmp_path / "ledger"


def change(path: Path, damage: Callable[[Families], None]) -> None:
    families = open_primary(path)
    damage(families)
    families.close()


def pairs(family: Rdict) -> list[tuple[bytes, bytes]]:
    return list(family.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_flipped_byte_in_a_value_is_found(damaged: Path, family: str) -> None:
    """Of up to six values of the family one byte each is flipped, one at a time, anywhere in the value."""
    chance = random.Random(family)
    rows = []

    def look(families: Families) -> None:
        rows.extend((key, value) for key, value in pairs(families[family]) if value)

    change(damaged, look)
    assert rows
    for key, value in chance.sample(rows, min(6, len(rows))):
        position = chance.randrange(len(value))
        flipped = bytearray(value)
        flipped[position] ^= 1 << chance.randrange(8)
        change(damaged, lambda families, key=key, flipped=flipped: families[family].put(key, bytes(flipped)))
        found = faults(damaged)
        assert found, f"{family}: byte {position} of the value of {key.hex()}"
        change(damaged, lambda families, key=key, value=value: families[family].put(key, value))
    assert faults(damaged) == []


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("wal", "meta")])
def test_a_missing_row_is_found_and_named(damaged: Path, family: str) -> None:
    """An entry of `wal` may be gone (nobody else knows of it); a row of `meta` refuses the whole ledger."""
    chance = random.Random(family)
    gone: list[bytes] = []

    def remove(families: Families) -> None:
        gone.append(chance.choice(pairs(families[family]))[0])
        families[family].delete(gone[0])

    change(damaged, remove)
    found = faults(damaged)
    assert found
    assert any(fault.where.startswith(family) for fault in found)


@pytest.mark.parametrize("name", [b"head", b"format", b"chain_id"])
def test_a_missing_row_of_meta_is_found(damaged: Path, name: bytes) -> None:
    change(damaged, lambda families: families["meta"].delete(name))
    assert [fault.where for fault in faults(damaged)] == ["meta"]


EXTRA = {
    "transactions": lambda row: (b"\x11" * 32, row[1]),
    "outputs": lambda row: (row[0][:-1] + b"\x09", row[1]),
    "owned": lambda row: (row[0][:-1] + b"\x09", row[1]),
    "assets": lambda row: (b"\x11" * 32 + row[0][32:], row[1]),
    "blocks": lambda row: ((99).to_bytes(8, "big"), row[1]),
    "log": lambda row: (merkle.pack_node_key(9, 0), row[1]),
    "wal": lambda row: ((99).to_bytes(8, "big"), row[1]),
    "status": lambda row: (row[0][:1] + b"\x11" * (len(row[0]) - 1), row[1]),
    "meta": lambda row: (b"surprise", row[1]),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_extra_row_is_found_and_named(damaged: Path, family: str) -> None:
    added: list[bytes] = []

    def add(families: Families) -> None:
        key, value = EXTRA[family](pairs(families[family])[0])
        added.append(key)
        families[family].put(key, value)

    change(damaged, add)
    assert f"{family}/{added[0].hex()}" in [fault.where for fault in faults(damaged)]


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_no_known_shape_are_found(damaged: Path, family: str) -> None:
    def add(families: Families) -> None:
        for key in (b"", b"x", b"I" * 33, b"\xff" * 60):
            families[family].put(key, b"what")

    change(damaged, add)
    assert len([fault for fault in faults(damaged) if fault.where.startswith(f"{family}/")]) >= 4


def test_a_wrong_height_is_found(damaged: Path) -> None:
    def move(families: Families) -> None:
        key, value = pairs(families["transactions"])[0]
        height, position = records.unpack_place(value)
        families["transactions"].put(key, records.pack_place(height + 1, position) + value[12:])

    change(damaged, move)
    assert any("is not stored as number" in fault.what for fault in faults(damaged))


def test_a_wrong_head_and_a_wrong_frontier_are_found(damaged: Path) -> None:
    original: list[bytes] = []
    change(damaged, lambda families: original.append(families["meta"].get(META_HEAD)))
    head, frontier = records.decode_head(original[0])
    wrong = [
        records.encode_head(head, (*frontier[:-1], bytes(32))),
        records.encode_head(
            records.Head(head.height, head.time_ns, b"", head.app_hash, head.log_size), frontier
        ),
        records.encode_head(
            records.Head(head.height, head.time_ns, head.block_hash, bytes(32), head.log_size), frontier
        ),
    ]
    for value in wrong:
        change(damaged, lambda families, value=value: families["meta"].put(META_HEAD, value))
        assert [fault.where for fault in faults(damaged)] == ["meta/head"]


def test_a_root_that_was_forged_with_its_checksum_is_found(damaged: Path) -> None:
    def forge(families: Families) -> None:
        block = records.decode_block(2, families["blocks"].get(records.pack_height(2)))
        forged = records.BlockRecord(
            block.height,
            block.time_ns,
            block.proposer,
            block.block_hash,
            block.previous_hash,
            bytes(32),
            block.first_leaf,
            block.ids,
        )
        families["blocks"].put(records.pack_height(2), records.encode_block(forged))

    change(damaged, forge)
    assert [fault.where for fault in faults(damaged)] == ["blocks/2"]


def test_a_time_that_was_forged_with_its_checksum_is_found(damaged: Path) -> None:
    def forge(families: Families) -> None:
        block = records.decode_block(1, families["blocks"].get(records.pack_height(1)))
        forged = records.BlockRecord(
            block.height,
            block.time_ns + 1,
            block.proposer,
            block.block_hash,
            block.previous_hash,
            block.app_hash,
            block.first_leaf,
            block.ids,
        )
        families["blocks"].put(records.pack_height(1), records.encode_block(forged))

    change(damaged, forge)
    assert any(fault.where == "blocks/1" and "app hash" in fault.what for fault in faults(damaged))


def test_a_forged_spend_is_found(damaged: Path) -> None:
    """An unspent output made to look spent by a transaction that exists, with its row moved to match."""
    spender: list[bytes] = []

    def forge(families: Families) -> None:
        block = records.decode_block(2, families["blocks"].get(records.pack_height(2)))
        victim, spender_id = block.ids[1], block.ids[0]
        spender.append(spender_id)
        key = records.output_key(victim, 0)
        families["outputs"].put(key, records.spend_output(families["outputs"].get(key), 2, spender_id))
        owner = decode_key(bob.public_key)
        unspent = records.owned_key(owner, records.UNSPENT, 2, 1, 0)
        value = families["owned"].get(unspent)
        assert value[:32] == victim
        families["owned"].delete(unspent)
        spent = records.owned_key(owner, records.SPENT, 2, 1, 0)
        families["owned"].put(spent, value + records.pack_height(2))

    change(damaged, forge)
    assert any("by a transaction that does not do so" in fault.what for fault in faults(damaged))


@pytest.mark.parametrize("state", [records.UNSPENT, records.SPENT])
@pytest.mark.parametrize("part", [32, 71, 79])
def test_a_row_of_a_key_with_another_asset_amount_or_height_is_found(
    damaged: Path, state: bytes, part: int
) -> None:
    """Byte 32 begins the asset, 71 ends the amount, 79 ends the height, which unspent rows have not."""
    changed: list[bytes] = []

    def forge(families: Families) -> None:
        key, value = next(row for row in pairs(families["owned"]) if row[0][32:33] == state)
        changed.append(key)
        forged = bytearray(value.ljust(part + 1, b"\0"))
        forged[part] ^= 1
        families["owned"].put(key, bytes(forged))

    change(damaged, forge)
    found = [fault.where for fault in faults(damaged)]
    # Both ways see it: what the block writes, and what the row says of its output.
    assert found.count(f"owned/{changed[0].hex()}") == 2


def test_damaged_files_are_reported_not_raised(damaged: Path) -> None:
    change(damaged, lambda families: families["transactions"].flush())
    largest = max(damaged.glob("*.sst"), key=lambda file: file.stat().st_size)
    raw = bytearray(largest.read_bytes())
    for position in range(0, len(raw) // 2, 500):
        raw[position] ^= 0xFF
    largest.write_bytes(bytes(raw))
    assert faults(damaged)
    ledger = open_ledger(damaged)
    with pytest.raises(StorageFailed, match="can't be read"):
        [ledger.reader.transaction(key) for block in ledger.reader.blocks_from(1, 9) for key in block.ids]
    ledger.close()


def test_progress_names_every_family(sound: Path) -> None:
    seen: dict[str, tuple[int, int]] = {}
    assert list(check(sound, lambda family, done, total: seen.update({family: (done, total)}))) == []
    assert set(seen) == set(FAMILIES)
    assert seen["transactions"] == (259, 259)


def test_a_ledger_that_is_in_use_or_not_there_is_refused(path: Path) -> None:
    with pytest.raises(StoreError, match="There is no ledger"):
        faults(path)
    Ledger.open(path).close()
    holder = (
        "import sys, pathlib; from bcdb.ledger import Ledger; "
        "ledger = Ledger.open(pathlib.Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(StoreError, match="in use by another process"):
            faults(path)
        process.kill()
    assert faults(path) == []
