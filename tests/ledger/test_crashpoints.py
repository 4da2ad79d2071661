"""The process dies at each named point of the ledger; nothing that it had promised is lost."""

import signal
from pathlib import Path

import pytest
from rocksdict import WriteBatch

from bcdb.ledger import crashpoints
from bcdb.ledger.ledger import Ledger
from bcdb.ledger.pending import encode_entry
from bcdb.ledger.records import pack_height
from tests.ledger.promises import check_promises, promised, writer
from tests.ledger.world import commit, open_ledger
from tests.support.transactions import alice, create

LEDGER_POINTS = [name for name in crashpoints.NAMES if not name.startswith("node-")]


def leave_a_settled_entry(path: Path) -> None:
    """An entry of the WAL whose transaction is committed, so that opening has something to write."""
    ledger: Ledger = open_ledger(path)
    made = create(alice, asset={"is": "left"})
    commit(ledger, made)
    batch = WriteBatch(raw_mode=True)
    batch.put(pack_height(1), encode_entry(made.verified), ledger._handles["wal"])
    ledger._database.write(batch)
    ledger.close()


@pytest.mark.parametrize("name", LEDGER_POINTS)
def test_dying_at_a_point_loses_nothing(name: str, path: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    early = name.startswith(("store-", "replay-"))
    if name.startswith("replay-"):
        leave_a_settled_entry(path)
    with writer(path, answers, rounds=5, BCDB_CRASH_AT=name if early else f"{name}:3") as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, output
    assert early or promised(answers)[0], "it had promised something before it died"
    check_promises(path, answers)


def test_a_name_that_is_no_point_is_refused(path: Path, tmp_path: Path) -> None:
    for setting in ("nowhere", "flush-before:x"):
        with writer(path, tmp_path / "answers", rounds=1, BCDB_CRASH_AT=setting) as process:
            output, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "names no crash point" in output


def test_every_point_is_reached_somewhere_in_the_code() -> None:
    here = Path(crashpoints.__file__)
    sources = "".join(file.read_text() for file in here.parents[1].rglob("*.py") if file != here)
    assert [name for name in crashpoints.NAMES if f'"{name}"' not in sources] == []
