"""What the pytest-benchmark suites share: bodies like those of a client, made once."""

from __future__ import annotations

import pytest

from benchmarks.workload import Prepared, prepare


@pytest.fixture(scope="session")
def prepared() -> list[Prepared]:
    """A thousand CREATEs of about 950 bytes, and the TRANSFERs that spend them."""
    return prepare("suite", 1000)
