"""The golden scenarios: stories of a ledger with the expected output beside each step.

`pytest tests/ledger/test_scenarios.py --rewrite-scenarios` writes what is seen into the files; then read the
diff.
"""

from pathlib import Path

import pytest

from tests.ledger.scenario import Runner, join, split

SCENARIOS = sorted((Path(__file__).parents[1] / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_scenario(file: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    steps = split(file.read_text())
    runner = Runner(tmp_path)
    seen = [(comments, step, runner.run(step)) for comments, step, _ in steps]
    runner.finish()
    if request.config.getoption("--rewrite-scenarios"):
        file.write_text(join(seen))
    else:
        assert join(seen) == file.read_text()


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 6
