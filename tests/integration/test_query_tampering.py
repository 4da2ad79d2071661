"""Whatever is changed in a query store behind the node's back is found by `bcdb fsck --store`, and named.

One byte of one document in each collection, a document gone, one too many; then a rebuild makes it right.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.collection import Collection

from bcdb.node.settings import Settings
from query.documents import COLLECTIONS
from tests.support import transactions as make
from tests.support.server import BCDB, Server
from tests.support.transactions import bob

FAULTY = 1
TEXTS = {
    "transactions": "CREATE",
    "assets": "a bicycle",
    "metadata": "a remark",
    "outputs": "ni:///sha-256;",
    "blocks": "-",
}
"""A piece of text in some document of each collection; of a block, one in its time."""


def fill(server: Server) -> None:
    """Three blocks: an asset with metadata, one that is sold, and its sale."""
    first = make.create(asset={"what": "a bicycle"}, metadata={"note": "a remark"})
    second = make.create(asset={"what": "a boat"})
    sale = make.transfer([(second, 0)], [([bob.public_key], 1)])
    for signed in (first, second, sale):
        assert server.post(signed.raw)[0] == 202
    assert server.get("/api/v1/assets?search=boat")


def faults(server: Server) -> list[dict[str, str]]:
    """What `bcdb fsck --store` finds in a server that does not run."""
    done = server.fsck("--store", "--json")
    assert done.returncode in (0, FAULTY), f"{done.stdout}{done.stderr}"
    found = json.loads(done.stdout)
    assert found["clean"] is (done.returncode == 0) is (not found["faults"])
    listed: list[dict[str, str]] = found["faults"]
    return listed


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "node", workers=1, environment={"BCDB_MONGO": "true"}) as running:
        yield running


def flip(collection: Collection[Any], text: str) -> str:
    """Change one bit of one document that has `text` in it; where it stands, as fsck names it."""
    raw = collection.with_options(collection.codec_options.with_options(document_class=RawBSONDocument))
    for document in raw.find():
        at = document.raw.find(text.encode(), document.raw.find(b"_id") + 20)
        if at >= 0:
            changed = bytearray(document.raw)
            changed[at] ^= 1
            done = raw.replace_one({"_id": document["_id"]}, RawBSONDocument(bytes(changed)))
            assert done.modified_count == 1
            return f"{collection.name}/{document['height']}"
    raise AssertionError(f"no document of {collection.name} has {text!r}")


def test_what_is_changed_in_mongodb_is_found_and_a_rebuild_mends_it(server: Server) -> None:
    fill(server)
    settings = Settings(home=server.home, mongo=True)
    with MongoClient[dict[str, Any]](settings.mongo_connection) as client:
        database = client[settings.mongo_database]
        flipped = [flip(database[name], TEXTS[name]) for name in COLLECTIONS]
        gone = database["metadata"].find_one_and_delete({"height": 3})
        assert gone is not None
        extra = dict(database["assets"].find_one({"height": 2}) or {})
        database["assets"].insert_one({**extra, "_id": "smuggled in"})
    assert server.stop() == 0, server.tail()
    found = faults(server)
    changed = [each["where"] for each in found if each["kind"] == "different"]
    assert len(changed) == len(flipped)
    assert all(any(where.startswith(place) for where in changed) for place in flipped), (changed, flipped)
    assert [each["where"] for each in found if each["kind"] == "missing"] == ["metadata/3/0"]
    assert [each["where"] for each in found if each["kind"] == "extra"] == ["assets/?"]
    assert len(found) == len(COLLECTIONS) + 2, found

    server.start()
    done = subprocess.run(
        [str(BCDB), "query", "rebuild", "--home", str(server.home), "--yes"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{server.tail()}"
    assert "is at block 3" in done.stdout
    assert server.get("/api/v1/query")["counts"]["assets"] == 2
    assert server.stop() == 0
    assert faults(server) == []


def test_one_byte_of_the_file_of_sqlite(tmp_path: Path) -> None:
    with Server(tmp_path / "node", workers=1) as server:
        fill(server)
        newest = server.get("/api/v1/blocks/latest")
        assert server.stop() == 0
        assert faults(server) == []
        file = server.home / "query.sqlite"
        with contextlib.closing(sqlite3.connect(file)) as database:
            # What is still in its log is moved into the file that the bytes are flipped in.
            assert database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        whole = file.read_bytes()
        for what in (b"a bicycle", b"a remark", b"ni:///sha-256;", bytes.fromhex(newest["hash"])):
            at = whole.find(what)
            assert at > 0, what
            changed = bytearray(whole)
            changed[at] ^= 1
            file.write_bytes(changed)
            assert faults(server), f"a changed byte in {what!r} was not found"
        file.write_bytes(whole)
        assert faults(server) == []
