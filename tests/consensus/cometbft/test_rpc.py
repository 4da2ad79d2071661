"""The RPC client against a server that answers anything: every answer is a value or a named error."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from consensus.cometbft import rpc
from consensus.cometbft.files import Peer
from consensus.cometbft.rpc import CometRpc, NoSuchHeight, RpcError, RpcUnavailable, TooLarge
from consensus.engine import Admission, Refused, Validator

KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


class Server:
    """Speaks HTTP/1.1 on a Unix socket: `answer` is the body of the next answers, `asked` what came in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer: bytes = b"{}"
        self.asked: list[dict[str, Any]] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.connections = 0
        self.open: list[asyncio.StreamWriter] = []

    def result(self, value: object) -> None:
        self.answer = json.dumps({"jsonrpc": "2.0", "id": 1, "result": value}).encode()

    def error(self, data: str) -> None:
        error = {"code": -32603, "message": "Internal error", "data": data}
        self.answer = json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length:")[2].split()[0])
                self.asked.append(json.loads(await reader.readexactly(size)))
                await self.hold.wait()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.answer) + self.answer
                )
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path / "rpc.sock")
    listening = await asyncio.start_unix_server(made.serve, str(made.path), limit=2**24)
    yield made
    made.hold.set()
    listening.close()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[CometRpc]:
    made = CometRpc(f"unix://{server.path}")
    yield made
    made.close()


async def test_what_becomes_of_a_transaction(server: Server, client: CometRpc) -> None:
    """The words are those of CometBFT's mempool/errors.go."""
    server.result({"code": 0, "data": "", "log": "", "codespace": "", "hash": "AB"})
    assert await client.broadcast(b"\0\xff") is Admission.ADMITTED
    assert server.asked[-1]["method"] == "broadcast_tx_sync"
    assert server.asked[-1]["params"] == {"tx": "AP8="}
    told = {
        "tx already exists in cache": Admission.KNOWN,
        "mempool is full: number of txs 3 (max: 3), total txs bytes 9 (max: 99)": Admission.FULL,
        "mempool is still rechecking after a new committed block, so it is considered full": Admission.FULL,
    }
    for text, admission in told.items():
        server.error(text)
        assert await client.broadcast(b"x") is admission
    server.result({"code": 4, "log": "no " * 1_000})
    with pytest.raises(Refused, match="no no") as refused:
        await client.broadcast(b"x")
    assert (refused.value.code, len(refused.value.text)) == (4, 500)
    for text in ("Tx too large. Max size is 1, but got 2", "error reading: http: request body too large"):
        server.error(text)
        with pytest.raises(TooLarge, match="no transaction of 2 bytes"):
            await client.broadcast(b"xx")
    for text in ("appConn mempool: EOF", "endpoint is closed while node is catching up"):
        server.error(text)
        with pytest.raises(RpcUnavailable, match=f"no transactions now: {text}"):
            await client.broadcast(b"x")
    server.error("something new")
    with pytest.raises(RpcError, match="can't answer broadcast_tx_sync: something new"):
        await client.broadcast(b"x")


async def test_validators_of_many_pages(server: Server, client: CometRpc) -> None:
    one = {"address": "", "pub_key": {"type": "tendermint/PubKeyEd25519", "value": KEY}, "voting_power": "3"}
    server.result({"block_height": "7", "validators": [one] * 100, "count": "100", "total": "250"})
    found = await client.validators()
    assert found == (Validator(bytes(32), 3),) * 300
    asked = [each["params"] for each in server.asked]
    assert asked == [
        {"page": "1", "per_page": "100"},
        {"page": "2", "per_page": "100", "height": "7"},
        {"page": "3", "per_page": "100", "height": "7"},
    ]
    one["pub_key"] = {"type": "tendermint/PubKeySecp256k1", "value": KEY}
    server.result({"block_height": "7", "validators": [one], "count": "1", "total": "1"})
    with pytest.raises(RpcError, match="a key of type"):
        await client.validators()


async def test_heights_that_are_not_there(server: Server, client: CometRpc) -> None:
    for text in (
        "height 9 must be less than or equal to the current blockchain height 3",
        "height 1 is not available, lowest height is 3",
    ):
        server.error(text)
        for call in (client.header, client.commit, client.validators):
            with pytest.raises(NoSuchHeight, match=text):
                await call(9)
    server.result(None)
    with pytest.raises(NoSuchHeight, match="no votes on a block 9"):
        await client.commit(9)
    server.result({"header": None})
    with pytest.raises(NoSuchHeight, match="no block 9"):
        await client.header(9)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"null",
        b"<html>",
        b"\xff\xfe",
        b'{"result": 5}',
        b'{"result": {"code": "0"}}',
        b"[" * 9_999,
    ],
)
async def test_answers_that_are_none(server: Server, client: CometRpc, answer: bytes) -> None:
    server.answer = answer
    for call in (client.status(), client.peers(), client.validators(), client.broadcast(b"x")):
        with pytest.raises(RpcError, match="not as expected"):
            await call


async def test_values_that_are_not_as_they_should(server: Server, client: CometRpc) -> None:
    node = {"id": "a", "network": "n", "version": "v", "moniker": "m"}
    good = {
        "latest_block_hash": "AB",
        "latest_app_hash": "",
        "latest_block_height": "5",
        "latest_block_time": "2026-01-01T00:00:00Z",
        "earliest_block_height": "1",
        "catching_up": False,
    }
    server.result({"node_info": node, "sync_info": good, "validator_info": {"voting_power": "0"}})
    assert (await client.status()).height == 5
    for name, value in (
        ("latest_block_hash", "XY"),
        ("latest_block_height", "five"),
        ("latest_block_time", "now"),
    ):
        bad = {**good, name: value}
        server.result({"node_info": node, "sync_info": bad, "validator_info": {"voting_power": "0"}})
        with pytest.raises(RpcError, match="not as expected"):
            await client.status()


async def test_bounds(server: Server, client: CometRpc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "ANSWER_BYTES_MAX", 1_000)
    server.answer = b" " * 1_001
    with pytest.raises(RpcError, match="longer than 1000 bytes"):
        await client.status()
    monkeypatch.setattr(rpc, "CALL_S_MAX", 0.1)
    server.hold.clear()
    with pytest.raises(RpcUnavailable, match="did not answer status"):
        await client.status()


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "closed"),
        (b"", "closed"),
    ],
)
async def test_other_servers(tmp_path: Path, said: bytes, what: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    async with await asyncio.start_unix_server(serve, str(tmp_path / "other.sock")):
        client = CometRpc(f"unix://{tmp_path}/other.sock")
        with pytest.raises(RpcUnavailable, match=what):
            await client.status()


async def test_headers_without_end(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 50_000)
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(serve, str(tmp_path / "other.sock")):
        client = CometRpc(f"unix://{tmp_path}/other.sock")
        with pytest.raises(RpcError, match=r"longer than|no HTTP"):
            await client.status()


async def test_connections_are_used_again(server: Server, client: CometRpc) -> None:
    server.result({"peers": []})
    for _ in range(3):
        await asyncio.gather(*(client.peers() for _ in range(50)))
    assert (len(server.asked), server.connections) == (150, 32)
    for writer in server.open:
        writer.close()
    await asyncio.sleep(0.05)
    assert await client.peers() == ()
    assert server.connections == 33


async def test_nobody_is_there(tmp_path: Path) -> None:
    for address in (f"unix://{tmp_path}/none.sock", "tcp://127.0.0.1:1", "tcp://[::1]:1"):
        client = CometRpc(address)
        with pytest.raises(RpcUnavailable, match=r"can't be reached"):
            await client.status()
        client.close()


async def test_peers_to_dial_are_told_as_cometbft_reads_them(client: CometRpc, server: Server) -> None:
    server.result({"log": "Dialing peers in progress"})
    await client.dial([Peer("a" * 40, "one.example.org:26656"), Peer("b" * 40, "127.0.0.1:1")])
    (asked,) = server.asked
    assert asked["method"] == "dial_peers"
    assert asked["params"] == {
        "peers": [f"{'a' * 40}@one.example.org:26656", f"{'b' * 40}@127.0.0.1:1"],
        "persistent": True,
    }
