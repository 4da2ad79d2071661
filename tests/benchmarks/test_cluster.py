"""The benchmark of a cluster still runs, as a whole and with small numbers; no figure is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN_S_MAX = 300.0


def test_all_of_it_runs(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.cluster", "--quick", "--nodes", "2", "--post-to", "2"]
    command += ["--json", str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_S_MAX, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found = json.loads(report.read_bytes())
    assert found["machine"]
    assert found["cometbft"]
    values = {(each["part"], each["what"], each["unit"]): each["value"] for each in found["figures"]}
    for part in ("projection off", "projection on"):
        # All that was posted is committed at all nodes, and the targets of the project are held against it.
        assert values[part, "transactions", "tx"] == 300
        assert values[part, "refused", "requests"] == 0
        assert values[part, "committed at all nodes", "tx/s"] > 0
        assert 0 < values[part, "finality, idle, p50", "ms"] < 10_000
    targets = {(each["part"], each["at_least"], each["below"]) for each in found["figures"]}
    assert targets >= {
        ("projection off", 1_000, None),
        ("projection on", 600, None),
        ("projection off", None, 2_000),
        ("projection on", None, 2_000),
    }
    assert values["projection on", "lag of the stores, load, max", "ms"] >= 0
    assert ("projection off", "lag of the stores, load, max", "ms") not in values
    # Nobody follows the blocks of a bare node; the others are the same.
    common = {"node", "workers", "cometbft", "supervisor", "generator", "benchmark"}
    assert set(found["cpu_s"]["none"]["load"]) >= common
    assert "projector" not in found["cpu_s"]["none"]["load"]
    assert set(found["cpu_s"]["SQLite"]["load"]) >= {*common, "projector"}
    ordered = [value for (part, _, unit), value in values.items() if part == "ceiling" and unit == "tx/s"]
    assert len(ordered) == 1
    assert ordered[0] > 0


def test_more_targets_than_nodes_are_refused() -> None:
    command = [sys.executable, "-m", "benchmarks.cluster", "--nodes", "2", "--post-to", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_S_MAX, check=False)
    assert done.returncode == 2
    assert "--post-to is 1 to 2" in done.stderr
