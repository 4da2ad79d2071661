"""Addresses, methods, CORS: what the dispatcher decides before or after any route."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from bcdb.http.framework import make_framework
from bcdb.model.errors import Unavailable
from tests.http.world import TRANSACTIONS, World

ROUTES = (
    "/",
    "/api/v1",
    TRANSACTIONS,
    f"{TRANSACTIONS}/{'0' * 64}",
    f"{TRANSACTIONS}/{'0' * 64}/status",
    "/api/v1/outputs",
    "/api/v1/assets",
    "/api/v1/metadata",
    "/api/v1/blocks",
    "/api/v1/blocks/1",
    "/api/v1/blocks/latest",
    "/api/v1/validators",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/api/v1/query",
    "/openapi.json",
)
TAKES_POSTS = (
    TRANSACTIONS,
    TRANSACTIONS + "/batch",
    "/api/v1/query/assets",
    "/api/v1/query/assets/aggregate",
)


async def test_a_method_that_an_address_lacks(world: World) -> None:
    for path in {*ROUTES, *TAKES_POSTS}:
        takes_posts = path in TAKES_POSTS
        for method in ("PUT", "DELETE", "PATCH", "PROPFIND", *(() if takes_posts else ("POST",))):
            for address in (path, path.rstrip("/") + "/"):
                reply = await world.request(method, address)
                assert reply.status == 405
                assert reply.json() == {"message": "The method is not allowed for the requested URL."}
                assert "OPTIONS" in reply.headers["allow"]
                assert ("POST" in reply.headers["allow"]) == takes_posts
                assert ("HEAD" in reply.headers["allow"]) == ("GET" in reply.headers["allow"])


async def test_a_head_is_a_get_without_body(world: World) -> None:
    for path in ROUTES:
        head, get = await world.request("HEAD", path), await world.get(path)
        assert head.status == get.status
        assert head.headers["content-type"] == get.headers["content-type"]


async def test_an_address_that_is_none_is_html(world: World) -> None:
    for path in (
        *(
            "/nothing",
            "/api",
            "/api/v2",
            "/api/v1/nothing",
            f"{TRANSACTIONS}/a/b",
            "/api/v1/blocks/1/2",
            "/%00",
        ),
        *("/api/v1/outputs/x", "/.", "/..", "/api/v1/../v1", "/favicon.ico", "/\\"),
    ):
        for method in ("GET", "HEAD", "POST", "OPTIONS"):
            reply = await world.request(method, path)
            assert reply.status == 404
            assert reply.headers["content-type"] == "text/html; charset=utf-8"
            assert b"404 Not Found" in reply.body
            assert reply.headers["access-control-allow-origin"] == "*"


async def test_doubled_slashes_are_sent_to_the_single_one(world: World) -> None:
    for path, location in (
        ("/api//v1/transactions///?asset_id=a%20b", "/api/v1/transactions/?asset_id=a%20b"),
        ("//evil.example/", "/evil.example/"),
        ("/\\//evil.example", "/%5C/evil.example"),
        ("/a//%0d%0aset-cookie:x", "/a/%0D%0Aset-cookie%3Ax"),
    ):
        reply = await world.request("GET", path)
        assert (reply.status, reply.headers["location"]) == (308, location)


class TestCors:
    async def test_an_origin_is_echoed(self, world: World) -> None:
        for path in (*ROUTES, "/nothing"):
            reply = await world.request("GET", path, headers={"origin": "https://app.example"})
            assert reply.headers["access-control-allow-origin"] == "https://app.example"
            assert reply.headers["vary"] == "Origin"
            reply = await world.get(path)
            assert reply.headers["access-control-allow-origin"] == "*"

    async def test_every_answer_tells_which_headers_scripts_may_read(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def trouble(*_: object) -> None:
            raise Unavailable("The node is stopping")

        exposed = "Bcdb-Height, Link, Retry-After"
        for headers in ({}, {"origin": "https://app.example"}):
            for path in (*ROUTES, f"{TRANSACTIONS}/{'0' * 64}", "/nothing"):
                reply = await world.request("GET", path, headers=headers)
                assert reply.headers["access-control-expose-headers"] == exposed, path
            with monkeypatch.context() as patch:
                patch.setattr(type(world.services.ledger), "ready", trouble)
                reply = await world.request("GET", f"{TRANSACTIONS}/{'0' * 64}", headers=headers)
                assert (reply.status, reply.headers["retry-after"]) == (503, "1")
                assert reply.headers["access-control-expose-headers"] == exposed
            with monkeypatch.context() as patch:
                patch.setattr(type(world.services.rate), "wait_s", lambda *_: 1)
                reply = await world.request("GET", "/api/v1", headers=headers)
                assert (reply.status, reply.headers["retry-after"]) == (429, "1")
                assert reply.headers["access-control-expose-headers"] == exposed

    async def test_a_preflight(self, world: World) -> None:
        headers = {
            "origin": "https://app.example",
            "access-control-request-method": "post",
            "access-control-request-headers": "content-type, x-app",
        }
        for path in (TRANSACTIONS, TRANSACTIONS + "/"):
            reply = await world.request("OPTIONS", path, headers=headers)
            assert (reply.status, reply.body) == (200, b"")
            allowed = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
            assert reply.headers["access-control-allow-methods"] == allowed
            assert reply.headers["access-control-allow-headers"] == "content-type, x-app"
            assert reply.headers["access-control-allow-origin"] == "https://app.example"
            assert sorted(reply.headers["allow"].split(", ")) == ["GET", "HEAD", "OPTIONS", "POST"]
        reply = await world.request("OPTIONS", TRANSACTIONS)
        assert reply.status == 200
        assert "access-control-allow-methods" not in reply.headers

    async def test_an_odd_origin_is_not_echoed(self, world: World) -> None:
        for origin in (b"a\r\nset-cookie: x", b"\xff", b"\0", b"x" * 5000, b"\x7f"):
            reply = await world.request("GET", "/api/v1", headers=[(b"origin", origin)])
            assert reply.headers["access-control-allow-origin"] == "*"


async def test_a_fault_of_ours_shows_nothing_of_us(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any) -> Any:
        raise RuntimeError("a secret")

    monkeypatch.setattr(type(world.services.ledger), "ready", broken)
    with caplog.at_level(logging.ERROR):
        for path in (f"{TRANSACTIONS}/{'0' * 64}", "/api/v1/blocks/latest"):
            reply = await world.get(path)
            assert (reply.status, reply.json()) == (500, {"message": "Internal Server Error"})
    assert "a secret" in caplog.text


async def test_a_node_that_is_gone_is_503(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*_: Any) -> Any:
        raise Unavailable("The node process is gone")

    monkeypatch.setattr(type(world.services.ledger), "ready", gone)
    for path in (
        f"{TRANSACTIONS}/{'0' * 64}",
        "/api/v1/blocks/latest",
        f"{TRANSACTIONS}?asset_id={'0' * 64}",
    ):
        reply = await world.get(path)
        assert (reply.status, reply.json()) == (503, {"message": "The node process is gone", "status": 503})
        assert reply.headers["retry-after"] == "1"


async def test_a_rate_bound_is_told_with_when_to_come_again(world: World) -> None:
    from bcdb.http.rate import RateLimit

    world.services.rate = RateLimit(world.settings.run_path / "rate-test", 5)
    far = [await world.request("GET", "/health/live", client="192.0.2.7") for _ in range(7)]
    assert [reply.status for reply in far] == [200] * 5 + [429] * 2
    assert far[-1].headers["retry-after"] == "1"
    assert far[-1].json()["status"] == 429
    assert (await world.request("GET", "/health/live", client="192.0.2.8")).status == 200
    assert {(await world.get("/health/live")).status for _ in range(20)} == {200}
    world.services.rate.close()


class TestOpenApi:
    async def test_the_document_names_every_route(self, world: World) -> None:
        reply = await world.get("/openapi.json")
        assert reply.headers["content-type"].startswith("application/json")
        document = reply.json()
        assert document["openapi"].startswith("3.1")
        described = set(document["paths"])
        served = {route.path_format for route in make_framework(None).routes}
        assert described == {path for path in served if not path.startswith("/openapi.json")}
        assert described >= {
            path.replace("0" * 64, "{transaction_id}").replace("/1", "/{height}")
            for path in ROUTES
            if path != "/openapi.json"
        }

    async def test_all_references_lead_somewhere(self, world: World) -> None:
        document = (await world.get("/openapi.json")).json()
        found = list(references(document))
        assert "#/components/schemas/SignedTransaction" in found
        for reference in found:
            node: Any = document
            for part in reference.removeprefix("#/").split("/"):
                node = node[part]

    async def test_arguments_answer_as_described(self, world: World) -> None:
        document = (await world.get("/openapi.json")).json()
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                for argument in operation.get("parameters", []):
                    if argument["in"] != "query":
                        continue
                    bad = f"{path}?{argument['name']}=%00"
                    bad = re.sub(r"\{\w+\}", "x", bad.replace("{collection}", "assets"))
                    reply = await world.request(method.upper(), bad)
                    # There is nothing with the id x.
                    assert reply.status in ((200, 400, 404) if "/x" in bad else (200, 400)), bad
                    if argument["required"]:
                        reply = await world.request(method.upper(), path)
                        assert (reply.status, list(reply.json()["message"])) == (400, [argument["name"]])
                    if "enum" in argument["schema"] or argument["schema"]["type"] in ("boolean", "integer"):
                        reply = await world.request(method.upper(), bad)
                        assert reply.status == 400, bad


def references(node: Any) -> Any:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)
