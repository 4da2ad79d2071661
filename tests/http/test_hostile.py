"""No request makes the server answer 500, whatever its path, arguments, headers and body."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.http.world import TRANSACTIONS, Reply, World
from tests.support.transactions import alice, create, transfer

KNOWN_PATHS = (
    "/",
    "/api/v1",
    TRANSACTIONS,
    TRANSACTIONS + "/batch",
    f"{TRANSACTIONS}/{'0' * 64}",
    f"{TRANSACTIONS}/{'0' * 64}/status",
    "/api/v1/outputs",
    "/api/v1/assets",
    "/api/v1/metadata",
    "/api/v1/blocks",
    "/api/v1/blocks/1",
    "/api/v1/validators",
    "/api/v1/streams/valid_blocks",
    "/health/ready",
)
ARGUMENTS = (
    *("asset_id", "operation", "last_tx", "public_key", "spent", "search", "limit", "after"),
    *("transaction_id", "mode", "from_height", "unknown"),
)
VALUES = (
    *("", "0", "-1", "true", "CREATE", "commit", "0" * 64, alice.public_key, "\0", "%", "%zz", "%ff", "%00"),
    *("9" * 30, "AAAAAAAAAAEAAAAA", "AAAAAAAAAAEAAAAAAAAAAA", '"', "a b", "&", "=", "é"),
)
SIGNED = create(asset={"a": 1}, recipients=[([alice.public_key], 5)])
MOVED = transfer([(SIGNED, 0)], [([alice.public_key], 5)])

many = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Shared:
    """One world for all examples, on a loop of its own."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._runner = asyncio.Runner()
        self.world = self._runner.run(self._open())

    async def _open(self) -> World:
        world = World(Path(self._folder.name) / "node")
        await world.__aenter__()
        await world.commit(SIGNED)
        return world

    def request(self, *arguments: Any, **named: Any) -> Reply:
        reply = self._runner.run(self.world.request(*arguments, **named))
        assert reply.status < 500, reply
        assert "access-control-allow-origin" in reply.headers
        if reply.status >= 400 and reply.headers["content-type"].startswith("application/json"):
            assert reply.json()["message"]
        return reply

    def close(self) -> None:
        self._runner.run(self.world.__aexit__(None, None, None))
        self._runner.close()
        self._folder.cleanup()


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    opened = Shared()
    yield opened
    opened.close()


methods = st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "X-ODD", ""])
paths = st.one_of(
    st.sampled_from(KNOWN_PATHS),
    st.tuples(st.sampled_from(KNOWN_PATHS), st.text(max_size=8)).map(lambda parts: "/".join(parts)),
    st.text(max_size=40).map(lambda text: "/" + text),
)
queries = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.tuples(st.sampled_from(ARGUMENTS), st.one_of(st.sampled_from(VALUES), st.text(max_size=10))),
        max_size=5,
    ).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs).encode("utf-8", "replace")),
)
headers = st.lists(
    st.tuples(
        st.sampled_from(
            [
                b"origin",
                b"host",
                b"content-type",
                b"content-length",
                b"content-encoding",
                b"accept",
                b"cookie",
            ]
        ),
        st.binary(max_size=30),
    ),
    max_size=3,
)
bodies = st.one_of(
    st.binary(max_size=200), st.sampled_from([SIGNED.raw, MOVED.raw, b"{}", b"[]", b"null\n1"])
)


@many
@given(methods, paths, queries, headers, bodies)
@example("GET", "/api/v1/outputs", b"&".join(b"a=%d" % n for n in range(200)), [], b"")
@example("POST", TRANSACTIONS, b"mode=commit", [(b"content-type", b"multipart/form-data")], b"--x\r\n")
def test_any_request(
    shared: Shared, method: str, path: str, query: bytes, lines: list[tuple[bytes, bytes]], body: bytes
) -> None:
    plain = path.replace("%", "%25").replace("?", "%3F")
    shared.request(method, plain.encode("utf-8", "replace").decode(), [body], lines, query=query)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a JSON value."""
    yield path
    if isinstance(node, dict):
        for name in node:
            yield from places(node[name], (*path, name))
    elif isinstance(node, list):
        for index in range(len(node)):
            yield from places(node[index], (*path, index))


@many
@given(st.sampled_from([SIGNED, MOVED]), st.data(), json_values, st.booleans())
def test_any_value_anywhere_in_a_transaction(
    shared: Shared, signed: Any, data: Any, value: Any, in_batch: bool
) -> None:
    tx = json.loads(signed.raw)
    place = data.draw(st.sampled_from(list(places(tx))))
    if place:
        node = tx
        for part in place[:-1]:
            node = node[part]
        node[place[-1]] = value
    else:
        tx = value
    raw = json.dumps(tx).encode()
    reply = shared.request("POST", TRANSACTIONS + ("/batch" if in_batch else ""), raw)
    assert reply.status in (200, 202, 400)


@many
@given(st.sampled_from([SIGNED, MOVED]), st.data())
def test_any_damage_to_the_bytes_of_a_transaction(shared: Shared, signed: Any, data: Any) -> None:
    start = data.draw(st.integers(0, len(signed.raw)))
    stop = data.draw(st.integers(start, min(len(signed.raw), start + 20)))
    raw = signed.raw[:start] + data.draw(st.binary(max_size=6)) + signed.raw[stop:]
    reply = shared.request("POST", TRANSACTIONS, [raw])
    assert reply.status in (202, 400)
