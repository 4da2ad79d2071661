"""Worlds for the tests of the HTTP interface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.http.world import World


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A fresh node."""
    async with World(tmp_path / "node") as running:
        yield running
