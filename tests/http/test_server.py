"""The web server itself, byte for byte over a loopback port: status lines, bounds, broken requests, stop."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bcdb.http import server
from bcdb.http.answer import Header
from bcdb.model import limits
from tests.http.world import World
from tests.support.transactions import create


class Wire:
    """A connection that sends what it is told and reads to the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 15)

    async def rest(self) -> bytes:
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(), 15)
        return b""


@contextlib.asynccontextmanager
async def wire(port: int) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def test_reason_phrases_are_those_of_the_reference(world: World) -> None:
    signed = create()
    async with world.serving() as (port, _), wire(port) as connection:
        for sent, line in (
            (request("GET", "/api/v1"), b"HTTP/1.1 200 OK\r\n"),
            (request("POST", "/api/v1/transactions", body=signed.raw), b"HTTP/1.1 202 ACCEPTED\r\n"),
            (request("POST", "/api/v1/transactions", body=b"{}"), b"HTTP/1.1 400 BAD REQUEST\r\n"),
            (request("GET", "/api/v1/transactions/x"), b"HTTP/1.1 404 NOT FOUND\r\n"),
            (request("PUT", "/api/v1"), b"HTTP/1.1 405 METHOD NOT ALLOWED\r\n"),
        ):
            await connection.send(sent)
            head = await connection.head()
            assert head.startswith(line)
            assert b"server:" not in head.lower()
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await connection.reader.readexactly(length)
    assert server.reason_phrase(429) == "TOO MANY REQUESTS"
    assert server.reason_phrase(599) == ""


async def test_a_head_has_a_length_and_no_body(world: World) -> None:
    async with world.serving() as (port, _), wire(port) as connection:
        for path in ("/api/v1", f"/api/v1/transactions/{'0' * 64}", "/nothing"):
            await connection.send(request("HEAD", path))
            assert b"content-length: " in await connection.head()
        await connection.send(request("GET", "/health/live", "Connection: close"))
        assert (await connection.rest()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_requests_may_follow_each_other_unanswered(world: World) -> None:
    async with world.serving() as (port, _), wire(port) as connection:
        await connection.send(request("GET", "/health/live") * 20 + request("GET", "/", "Connection: close"))
        assert (await connection.rest()).count(b"HTTP/1.1 200 OK") == 21


async def test_a_body_that_is_too_long_is_answered_at_once_and_read_past(world: World) -> None:
    size = limits.TRANSACTION_BYTES_MAX * 3
    head = f"POST /api/v1/transactions HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n".encode()
    async with world.serving() as (port, _):
        async with wire(port) as connection:
            await connection.send(head + b"Expect: 100-continue\r\n\r\n")
            assert (await connection.head()).startswith(b"HTTP/1.1 413 ")
        async with wire(port) as connection:
            await connection.send(head + b"\r\n" + b"x" * size)
            assert (await connection.head()).startswith(b"HTTP/1.1 413 ")
            await connection.reader.readuntil(b"}")
            await connection.send(request("GET", "/health/live"))
            assert (await connection.head()).startswith(b"HTTP/1.1 200 ")


BIG = 20_000_000


async def fill_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A request whose answer is too big for the buffers of the system."""
    original = server.WholeAnswer.__call__

    async def big(self: server.WholeAnswer, status: int, headers: list[Header], body: bytes) -> None:
        kept = [header for header in headers if header[0] != b"content-length"]
        await original(self, status, [*kept, (b"content-length", b"%d" % BIG)], b"x" * BIG)

    monkeypatch.setattr(server.WholeAnswer, "__call__", big)
    return request("GET", "/api/v1")


async def send_for_ever(connection: Wire, piece: bytes) -> None:
    for _ in range(10_000):
        await connection.send(piece)


async def test_a_refused_body_is_not_read_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REQUEST_DISCARD_BYTES_MAX", 200_000)
    async with world.serving() as (port, _), wire(port) as connection:
        await connection.send(
            b"POST /api/v1/transactions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        with pytest.raises(ConnectionError):
            await send_for_ever(connection, b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


@pytest.mark.parametrize("kind", ["header", "line"])
async def test_endless_headers_are_refused(world: World, kind: str) -> None:
    start = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " if kind == "header" else b"GET /"
    async with world.serving() as (port, _), wire(port) as connection:
        await connection.send(start + b"a" * (limits.REQUEST_HEAD_BYTES_MAX + 10))
        answer = await connection.rest()
        assert answer.startswith(b"HTTP/1.1 431 REQUEST HEADER FIELDS TOO LARGE\r\n")
        assert b'"status":431' in answer
        assert b"\r\naccess-control-allow-origin: *\r\n" in answer


async def test_long_headers_are_refused_though_they_come_at_once(world: World) -> None:
    long = "X: " + "a" * (limits.REQUEST_HEAD_BYTES_MAX + 10)
    many = [f"X{n}: {'a' * 1000}" for n in range(100)]
    async with world.serving() as (port, _):
        for headers in ([long], many):
            async with wire(port) as connection:
                await connection.send(request("GET", "/health/live", *headers))
                assert (await connection.rest()).startswith(b"HTTP/1.1 431 ")


CHUNKED = b"POST /api/v1/transactions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (CHUNKED + b"0\r\n", b"Trailer: " + b"v" * 1000 + b"\r\n"),
        (CHUNKED + b"0\r\nTrailer: ", b"v" * 1000),
        (CHUNKED + b"2;", b"v" * 1000),
        (b"", b"\r\n" * 500),
    ],
    ids=["trailers", "trailer", "chunk-extension", "empty-lines"],
)
async def test_what_is_no_body_has_an_end(world: World, start: bytes, piece: bytes) -> None:
    async with world.serving() as (port, _), wire(port) as connection:
        await connection.send(start)
        with pytest.raises(ConnectionError):
            await send_for_ever(connection, piece * 20)


async def test_small_chunks_and_short_trailers_are_read(world: World) -> None:
    signed = create()
    pieces = b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in signed.raw)
    head = b"POST /api/v1/transactions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with world.serving() as (port, _), wire(port) as connection:
        await connection.send(head + pieces + b"0\r\nA: b\r\n\r\n")
        await connection.send(request("GET", "/health/live", "Connection: close"))
        assert (await connection.head()).startswith(b"HTTP/1.1 202 ")
        assert b"HTTP/1.1 200 OK" in await connection.rest()


UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", ["Content-Length: 9"], 400),
        ("GET", ["Transfer-Encoding: chunked"], 400),
        ("GET", ["A: " + "b" * 9000], 431),
        ("GET", [f"A{n}: b" for n in range(200)], 431),
        ("POST", [], 405),
    ],
)
async def test_wishes_for_a_stream_that_cannot_be_are_answered(
    world: World, method: str, headers: list[str], status: int
) -> None:
    sent = request(method, "/api/v1/streams/valid_blocks", *UPGRADE, *headers)
    async with world.serving() as (port, _), wire(port) as connection:
        await connection.send(request("GET", "/health/live"))
        await connection.head()
        await connection.reader.readuntil(b"}")
        await connection.send(sent)
        assert (await connection.rest()).startswith(b"HTTP/1.1 %d " % status)


async def test_streams_are_closed_with_a_reason_when_the_server_stops(world: World) -> None:
    async with contextlib.AsyncExitStack() as connections, contextlib.AsyncExitStack() as serving:
        port, _ = await serving.enter_async_context(world.serving())
        quiet = await connections.enter_async_context(wire(port))
        await quiet.send(request("GET", "/api/v1/streams/valid_blocks", *UPGRADE))
        assert (await quiet.head()).startswith(b"HTTP/1.1 101 ")
        told = await connections.enter_async_context(wire(port))
        await told.send(request("GET", "/api/v1/streams/valid_blocks", *UPGRADE))
        assert (await told.head()).startswith(b"HTTP/1.1 101 ")
        asked = await connections.enter_async_context(wire(port))
        await asked.send(request("GET", "/api/v1/streams/valid_blocks?from_height=7", *UPGRADE))
        assert (await asked.head()).startswith(b"HTTP/1.1 101 ")
        await world.commit(create())
        await told.reader.readuntil(b"}")
        await serving.aclose()
        reason = b"\x03\xe9the node is stopping: go on with ?from_height="
        assert (await told.rest()).endswith(reason + b"1")
        assert (await asked.rest()).endswith(reason + b"7")


async def test_clients_that_hang_up_unanswered_leave_no_trace(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent = await fill_answers(world, monkeypatch)
    async with world.serving() as (port, _):
        for _ in range(3):
            async with wire(port) as connection:
                connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
                await connection.send(sent * 4)
                await asyncio.sleep(0.3)
                connection.writer.transport.abort()
            await asyncio.sleep(0.1)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_clients_that_read_nothing_are_dropped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWER_PAUSE_S_MAX", 0.3)
    monkeypatch.setattr(server, "SWEEP_S", 0.05)
    sent = await fill_answers(world, monkeypatch)
    async with world.serving() as (port, _), wire(port) as connection:
        connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await connection.send(sent * 2)
        await asyncio.sleep(1.5)
        connection.reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await connection.rest()) < 2 * BIG


async def test_a_byte_does_not_keep_an_idle_connection(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEEP_ALIVE_S", 1)
    monkeypatch.setattr(server, "SWEEP_S", 0.05)
    async with world.serving() as (port, _), wire(port) as connection:
        await connection.send(request("GET", "/health/live"))
        await connection.head()
        await connection.reader.readuntil(b"}")
        await connection.send(b"\r\n")
        assert await connection.rest() == b""


async def test_what_is_no_http_is_refused_with_a_sentence(world: World) -> None:
    websocket = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    async with world.serving() as (port, _):
        for sent in (
            b"nonsense\r\n\r\n",
            b"\0\0\0\0",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n: empty\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"GET /\xff HTTP/1.1\r\nHost: x\r\n" + websocket + key,
            b"GET /api/v1/streams/valid_blocks HTTP/1.1\r\nHost: x\r\n" + websocket + b"\r\n",
            b"CONNECT example:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            async with wire(port) as connection:
                await connection.send(sent)
                connection.writer.write_eof()
                answer = await connection.rest()
                assert answer.startswith(b"HTTP/1.1 4"), (sent, answer)
                assert answer.partition(b"\r\n\r\n")[2], sent


async def test_clients_that_are_slow_are_dropped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REQUEST_HEAD_S_MAX", 0.2)
    monkeypatch.setattr(limits, "REQUEST_BODY_PAUSE_S_MAX", 0.2)
    monkeypatch.setattr(server, "SWEEP_S", 0.05)
    async with world.serving() as (port, _):
        for sent in (
            b"",
            b"GET / HTTP/1.1\r\nHo",
            b"POST /api/v1/transactions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{",
        ):
            async with wire(port) as connection:
                await connection.send(sent)
                assert await connection.rest() == b""
        async with wire(port) as connection:
            await connection.send(request("GET", "/health/live"))
            assert (await connection.head()).startswith(b"HTTP/1.1 200 ")
            await connection.reader.readuntil(b"}")
            await asyncio.sleep(0.5)
            await connection.send(request("GET", "/health/live"))
            assert (await connection.head()).startswith(b"HTTP/1.1 200 ")


async def test_what_is_being_answered_is_finished_before_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = asyncio.Event(), asyncio.Event()
    fetch = world.services.ledger.ready

    async def ready() -> object:
        entered.set()
        await release.wait()
        return await fetch()

    monkeypatch.setattr(world.services.ledger, "ready", ready)
    async with contextlib.AsyncExitStack() as connections, contextlib.AsyncExitStack() as serving:
        port, _ = await serving.enter_async_context(world.serving())
        connection = await connections.enter_async_context(wire(port))
        await connection.send(request("GET", f"/api/v1/transactions/{'0' * 64}"))
        await entered.wait()
        ending = asyncio.create_task(serving.aclose())
        await asyncio.sleep(0.3)
        release.set()
        assert (await connection.head()).startswith(b"HTTP/1.1 404 NOT FOUND")
        await ending


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "cert.pem", folder / "key.pem"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate_path, key_path


async def test_it_speaks_tls(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.create_default_context(cafile=str(certificate))
    async with (
        World(tmp_path / "node", tls_cert=certificate, tls_key=key) as world,
        world.serving() as (port, _),
    ):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost"
        )
        writer.write(request("GET", "/api/v1", "Connection: close"))
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b'"wss://x/api/v1/streams/valid_transactions"' in answer
        writer.close()
