"""The store that the settings name, for its writer and for readers, whichever database keeps it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bcdb.node.settings import Settings
from bcdb.node.stores import open_reader, open_store
from query.store import StoreUnavailable
from tests.query.documents import chain
from tests.support import mongod

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", "mongodb"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    if request.param == "sqlite":
        yield Settings(home=tmp_path)
        return
    server = mongod.shared()
    with server.database() as name:
        yield Settings(home=tmp_path, mongo_uri=server.uri, mongo_database=name)


@pytest.mark.parametrize("text_search", [True, False])
async def test_one_writes_what_others_read(settings: Settings, text_search: bool) -> None:
    settings = msgspec.structs.replace(settings, text_search=text_search)
    reader = open_reader(settings)
    with pytest.raises(StoreUnavailable):
        await reader.height()
    store = await open_store(settings)
    await store.project(chain(3))
    status = await reader.status()
    assert (status.kind, status.height, status.text_search) == (settings.store_kind, 3, text_search)
    assert status.counts["blocks"] == 3
    await store.close()
    store = await open_store(settings)
    assert (await store.checkpoint()).height == 3
    await store.close()
    await reader.close()


def test_a_node_without_mongodb_does_not_carry_its_driver() -> None:
    script = "import sys, bcdb.node.stores, bcdb.node.projection; sys.exit('pymongo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60).returncode == 0
