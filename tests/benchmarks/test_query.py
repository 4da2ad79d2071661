"""The query benchmarks still run, as a whole and with small numbers; what they measure is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.figures import Figure, Table, at, spread
from benchmarks.query import PARTS

ROOT = Path(__file__).resolve().parents[2]
RUN_S_MAX = 180.0


def test_all_parts_run(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.query", "--quick", "--json", str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_S_MAX, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found = json.loads(report.read_bytes())
    figures = found["figures"]
    assert [part for part in PARTS if any(each["part"] == part for each in figures)] == list(PARTS)
    assert found["machine"]
    assert found["versions"]["mongod"]
    # Every target of the project is held against something.
    targets = {
        (each["part"], each["store"], each["at_least"], each["below"])
        for each in figures
        if each["at_least"] is not None or each["below"] is not None
    }
    assert targets >= {
        ("projector", "MongoDB", 5_000, None),
        ("projector", "MongoDB", 12_000, None),
        ("search", "MongoDB", None, 50),
        ("lag", "MongoDB", None, 500),
        ("lag", "SQLite", None, 500),
        ("history", "ledger", None, 300),
        ("history", "ledger", None, 200),
    }
    for each in figures:
        assert each["what"] in done.stdout
        assert each["value"] >= 0
    # Nothing was refused and nothing got lost: the node kept up with what it was offered.
    refused = [each["value"] for each in figures if each["what"] == "refused"]
    assert refused == [0, 0]


def test_a_part_that_is_not_there_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.query", "--quick", "lags"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_S_MAX, check=False)
    assert done.returncode == 2
    assert "there is no part lags; the parts are projector, search, lag, history" in done.stderr


def test_a_figure_is_held_against_its_target() -> None:
    assert Figure("p", "w", "", 11_999.0, "tx/s", at_least=12_000).target == "≥ 12,000 (missed)"
    assert Figure("p", "w", "", 12_000.0, "tx/s", at_least=12_000).target == "≥ 12,000"
    assert Figure("p", "w", "", 50.0, "ms", below=50).target == "< 50 (missed)"
    assert Figure("p", "w", "", 49.9, "ms", below=50).target == "< 50"
    assert Figure("p", "w", "", 1.0, "ms").target == ""


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert (at(values, 0.5), at(values, 0.95), at(values, 1.0)) == (50.0, 95.0, 100.0)
    assert at([7.0], 0.95) == 7.0
    found = spread("p", "waits", "", values, {"p95": 90.0})
    assert [(each.what, each.value, each.missed) for each in found] == [
        ("waits, p50", 50.5, False),
        ("waits, p95", 95.0, True),
        ("waits, max", 100.0, False),
    ]


def test_a_table_is_written_with_what_was_missed(tmp_path: Path) -> None:
    table = Table()
    table.add([Figure("p", "w", "", 1.0, "tx/s", at_least=2)])
    table.write(tmp_path / "below" / "table.json", {"machine": "m"})
    found = json.loads((tmp_path / "below" / "table.json").read_bytes())
    assert found["machine"] == "m"
    assert [(each["value"], each["missed"]) for each in found["figures"]] == [(1.0, True)]
