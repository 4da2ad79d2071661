"""Servers for the tests that speak to a whole node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A fresh node, ready."""
    with Server(tmp_path / "node") as running:
        yield running
