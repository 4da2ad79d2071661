"""The export of a stopped ledger: a whole ledger with everything that is committed, or nothing at all."""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bcdb.ledger import Head, Ledger, export
from bcdb.ledger.export import NODE_FAMILIES, export_ledger
from bcdb.ledger.store import FAMILIES, Families, open_primary, open_read_only
from bcdb.model.errors import StorageFailed, StoreError
from tests.ledger.promises import ROOT
from tests.ledger.test_determinism import random_blocks
from tests.ledger.world import CHAIN_ID, accept, commit, faults, open_ledger
from tests.support.transactions import alice, bob, create, transfer


@pytest.fixture
def source(path: Path, ledger: Ledger) -> Path:
    """A ledger that was stopped, with spent and unspent outputs, stored subtrees and a rejected entry."""
    gold = create(alice)
    commit(ledger, gold)
    assert accept(ledger, transfer([(gold, 0)], [([bob.public_key], 1)])) == [None]
    commit(ledger, transfer([(gold, 0)], [([alice.public_key], 1)]))
    for block in random_blocks(random.Random(5)):
        commit(ledger, *block)
    commit(ledger, *[create(bob, asset={"n": number}) for number in range(300)])
    ledger.close()
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "copies" / "ledger"


@pytest.fixture(autouse=True)
def copies(target: Path) -> Path:
    target.parent.mkdir()
    return target.parent


def rows(path: Path) -> dict[str, list[tuple[bytes, bytes]]]:
    families = open_read_only(path)
    found = {name: list(families[name].items()) for name in FAMILIES}
    families.close()
    return found


def head(path: Path) -> Head:
    ledger = open_ledger(path)
    found = ledger.head
    ledger.close()
    return found


def test_the_copy_is_the_same_ledger_without_what_is_the_nodes_own(source: Path, target: Path) -> None:
    before = rows(source)
    assert before["status"]
    assert export_ledger(source, target) == head(source) == head(target)
    assert rows(source) == before
    assert rows(target) == {**before, "status": [], "wal": []}
    assert faults(target) == []
    assert os.listdir(target.parent) == [target.name]
    assert target.stat().st_mode & 0o777 == 0o700


def test_both_go_on_from_there_alike(source: Path, target: Path) -> None:
    export_ledger(source, target)
    outcomes = []
    for path in (source, target):
        ledger = open_ledger(path)
        assert ledger.chain_id == CHAIN_ID
        made = create(alice, asset={"is": "later"})
        assert accept(ledger, made) == [None]
        outcomes.append(commit(ledger, made).app_hash)
        ledger.close()
        assert faults(path) == []
    assert outcomes[0] == outcomes[1]


def test_batches_and_progress(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "BATCH_BYTES", 5_000)
    seen: dict[str, list[tuple[int, int]]] = {}
    export_ledger(
        source, target, lambda family, done, total: seen.setdefault(family, []).append((done, total))
    )
    assert seen.keys() == set(FAMILIES) - set(NODE_FAMILIES)
    assert list(seen)[-1] == "meta"
    assert len(seen["transactions"]) > 40
    assert all(done <= total for reports in seen.values() for done, total in reports)
    assert faults(target) == []
    assert rows(target)["transactions"] == rows(source)["transactions"]


def test_an_empty_ledger_and_an_empty_directory(path: Path, target: Path) -> None:
    open_ledger(path).close()
    target.mkdir()
    assert export_ledger(path, target).height == 0
    assert faults(target) == []
    assert head(target) == head(path)


def test_what_waits_for_a_block_is_not_lost_silently(source: Path, target: Path) -> None:
    ledger = open_ledger(source)
    waiting = [create(alice, asset={"w": number}) for number in range(3)]
    accept(ledger, *waiting)
    ledger.close()
    with pytest.raises(StoreError, match=r"wait for a block .*: 3\..*wait until `bcdb status` shows none"):
        export_ledger(source, target)
    assert not os.listdir(target.parent)
    ledger = open_ledger(source)
    commit(ledger, *waiting)
    ledger.close()
    assert export_ledger(source, target).height == head(source).height
    assert faults(target) == []


def test_a_ledger_that_is_in_use_is_refused(source: Path, target: Path) -> None:
    holder = (
        "import sys, pathlib; from bcdb.ledger import Ledger; "
        "ledger = Ledger.open(pathlib.Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(source)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(StoreError, match="in use by another process"):
            export_ledger(source, target)
        process.kill()
    assert not os.listdir(target.parent)


def test_no_node_starts_on_it_meanwhile(source: Path, target: Path) -> None:
    said: list[str] = []

    def start(family: str, done: int, total: int) -> None:
        command = (
            "import sys, pathlib; from bcdb.ledger import Ledger; Ledger.open(pathlib.Path(sys.argv[1]))"
        )
        if not said:
            ran = subprocess.run(
                [sys.executable, "-c", command, str(source)], capture_output=True, text=True, check=False
            )
            said.append(ran.stderr)

    export_ledger(source, target, start)
    assert "in use by another process" in said[0]


def test_a_target_that_will_not_do(source: Path, target: Path, tmp_path: Path) -> None:
    for taken in (source, source.parent):
        with pytest.raises(StoreError, match=r"something at .* already"):
            export_ledger(source, taken)
    target.write_text("a file")
    with pytest.raises(StoreError, match=r"something at .* already"):
        export_ledger(source, target)
    with pytest.raises(StoreError, match="within the ledger"):
        export_ledger(source, source / "copy")
    with pytest.raises(StoreError, match="can't be made: No such file or directory"):
        export_ledger(source, tmp_path / "nowhere" / "ledger")
    with pytest.raises(StoreError, match="There is no ledger"):
        export_ledger(target.parent, target.parent / "other")
    assert faults(source) == []


def interrupt(_: str, done: int, __: int) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_copy_leaves_nothing(source: Path, target: Path) -> None:
    before = rows(source)
    with pytest.raises(KeyboardInterrupt):
        export_ledger(source, target, interrupt)
    assert not os.listdir(target.parent)
    assert rows(source) == before
    export_ledger(source, target)
    assert faults(target) == []


def test_a_killed_copy_is_named_and_never_taken_for_a_ledger(source: Path, target: Path) -> None:
    killed = (
        "import os, signal, sys, pathlib; from bcdb.ledger.export import export_ledger\n"
        "def end(family, done, total):\n"
        "    if family == 'log': os.kill(os.getpid(), signal.SIGKILL)\n"
        "export_ledger(*map(pathlib.Path, sys.argv[1:]), end)"
    )
    command = [sys.executable, "-c", killed, str(source), str(target)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert not target.exists()
    [left] = target.parent.iterdir()
    [fault] = faults(left)
    assert "not a ledger of bcdb, or its making was cut short" in fault.what
    with pytest.raises(StoreError, match=r"ledger\.partial.*remove it and try again"):
        export_ledger(source, target)
    shutil.rmtree(left)
    export_ledger(source, target)
    assert faults(target) == []


class Full:
    """Stands before the database of the copy: the disk is full."""

    def write(self, batch: object, options: object) -> None:
        raise Exception("IO error: No space left on device")

    def close(self) -> None: ...


class Unflushed:
    """A family of the copy that can't be written to its file."""

    def flush(self) -> None:
        raise Exception("IO error: fsync: Input/output error")

    def close(self) -> None: ...


def full(families: Families) -> None:
    families.database.close()
    families.database = Full()  # type: ignore[assignment]


def unflushed(families: Families) -> None:
    families.by_name["meta"] = Unflushed()  # type: ignore[assignment]


@pytest.mark.parametrize(("fail", "what"), [(full, "No space left"), (unflushed, "Input/output error")])
def test_a_disk_that_fails_leaves_nothing(
    source: Path,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    fail: Callable[[Families], None],
    what: str,
) -> None:
    def failing(path: Path) -> Families:
        families = open_primary(path)
        fail(families)
        return families

    monkeypatch.setattr(export, "open_primary", failing)
    with pytest.raises(StorageFailed, match=f"{what}.*then export again"):
        export_ledger(source, target)
    assert not os.listdir(target.parent)


def change(path: Path, step: Callable[[Families], None]) -> None:
    families = open_primary(path)
    step(families)
    families.close()


def test_a_damaged_ledger_is_not_passed_on(source: Path, target: Path) -> None:
    """Whole blocks that are missing by the count; what can't be read by RocksDB's checksums."""
    change(source, lambda families: families["blocks"].delete((1).to_bytes(8, "big")))
    with pytest.raises(StoreError, match="Run `bcdb fsck` on it"):
        export_ledger(source, target)
    change(source, lambda families: families["transactions"].flush())
    largest = max(source.glob("*.sst"), key=lambda file: file.stat().st_size)
    raw = bytearray(largest.read_bytes())
    raw[len(raw) // 3] ^= 0xFF
    largest.write_bytes(bytes(raw))
    with pytest.raises(StorageFailed, match="can't be read"):
        export_ledger(source, target)
    assert not os.listdir(target.parent)
