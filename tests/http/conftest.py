"""Worlds for the tests of the HTTP interface, with either query store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.http.world import World
from tests.support import mongod


@pytest_asyncio.fixture
async def sqlite_world(tmp_path: Path) -> AsyncIterator[World]:
    """A fresh node with the embedded store."""
    async with World(tmp_path / "node") as running:
        yield running


@pytest.fixture
def world(sqlite_world: World) -> World:
    """A fresh node as it is by default."""
    return sqlite_world


@pytest_asyncio.fixture
async def mongo_world(tmp_path: Path) -> AsyncIterator[World]:
    """A fresh node with MongoDB."""
    server = mongod.shared()
    with server.database() as name:
        async with World(tmp_path / "node", mongo_uri=server.uri, mongo_database=name) as running:
            yield running


@pytest.fixture(params=["sqlite_world", "mongo_world"])
def either_world(request: pytest.FixtureRequest) -> World:
    """One of the two: what a test with this asks must be answered alike."""
    running: World = request.getfixturevalue(request.param)
    return running
