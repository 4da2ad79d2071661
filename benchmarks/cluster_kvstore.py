"""The ceiling of the engine: CometBFT's own key-value store, ordered by as many validators as a cluster has.

The homes are those that `bcdb` writes, but for the application, which is inside CometBFT and checks nothing.
What is left is what ordering, gossip and CometBFT's own storage cost on this machine.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from bcdb.cli.network import BLOCK_ROOM_BYTES
from bcdb.model import limits
from benchmarks import machine
from consensus.cometbft.channel import Channel, ChannelError
from consensus.cometbft.files import CONFIG, Home, NodeSettings, Peer, config_file, write_home
from consensus.cometbft.genesis import ConsensusParameters, genesis_file
from consensus.cometbft.keys import Key
from consensus.cometbft.process import CometProcess
from consensus.cometbft.rpc import CometRpc
from consensus.engine import Admission, Genesis, Validator
from tests.support.cometbft import program
from tests.support.server import free_ports

CHAIN_ID = "ceiling"
POLL_S = 0.05
READY_S_MAX = 60.0
STANDSTILL_S_MAX = 60.0
SENDERS = 16
"""Transactions that are on their way to one node at a time."""
IN_FLIGHT_BYTES = limits.SUBMITTER_QUOTA_MB * 1024 * 1024 // 2
"""Bytes of one node that wait for a block at a time, as many as bcdb has on their way."""
ANSWER_BYTES_MAX = 64 * 1024
MEMPOOL_TXS_MAX = 20_000
_PREFIX_CHARS = 16


class Ceiling(NamedTuple):
    """What was ordered: transactions of `tx_bytes` each, all committed everywhere within `seconds`."""

    tx_bytes: int
    transactions: int
    seconds: float
    blocks: int
    cometbft_cpu_s: float
    generator_cpu_s: float

    @property
    def rate(self) -> float:
        return self.transactions / self.seconds

    @property
    def bytes_per_s(self) -> float:
        return self.rate * self.tx_bytes


class _Node:
    """One CometBFT, with ways to feed it and to ask what it has committed."""

    def __init__(self, home: Home) -> None:
        self._process = CometProcess(program(), home.path)
        self._rpc = CometRpc(home.settings.rpc)
        socket = home.settings.rpc_socket
        assert socket is not None
        self._channel = Channel(socket)
        self.committed = 0
        """Transactions since the chain began."""
        self.height = 0

    async def start(self) -> None:
        await self._process.start()
        async with asyncio.timeout(READY_S_MAX):
            while True:
                try:
                    return await self.look()
                except ChannelError:
                    await asyncio.sleep(POLL_S)

    async def stop(self) -> None:
        self._rpc.close()
        self._channel.close()
        await self._process.stop()

    def cpu_seconds(self) -> float:
        assert self._process.pid is not None, "it runs"
        return machine.cpu_seconds_of(self._process.pid)

    async def look(self) -> None:
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": "abci_info", "params": {}})
        answer = msgspec.json.decode(await self._channel.post(body, bytes_max=ANSWER_BYTES_MAX))
        told = answer["result"]["response"]
        self.height = int(told.get("last_block_height", 0))
        self.committed = msgspec.json.decode(told["data"])["size"]

    async def send(self, txs: Sequence[bytes], window: asyncio.Semaphore) -> None:
        """Offer these one after the other, each as soon as there is room for it."""
        for tx in txs:
            await window.acquire()
            while await self._rpc.broadcast(tx) is Admission.FULL:
                await asyncio.sleep(POLL_S)


async def measure(
    folder: Path, validators: int, tx_bytes: int, total_bytes: int, changed: Mapping[str, object]
) -> Ceiling:
    """Order `total_bytes` in transactions of `tx_bytes` on a new chain. `changed`: of `NodeSettings`."""
    nodes = [_Node(home) for home in _homes(folder, validators, changed)]
    try:
        await asyncio.gather(*(node.start() for node in nodes))
        # A block before the first that counts: by then all peers are connected.
        await _feed(nodes, [_transactions(1, tx_bytes) for _ in nodes])
        shares = [_transactions(max(1, total_bytes // tx_bytes // validators), tx_bytes) for _ in nodes]
        blocks, used_s = nodes[0].height, sum(node.cpu_seconds() for node in nodes)
        own_s, began_s = machine.cpu_seconds_of(os.getpid()), time.perf_counter()
        await _feed(nodes, shares)
        seconds = time.perf_counter() - began_s
        return Ceiling(
            tx_bytes,
            sum(map(len, shares)),
            seconds,
            nodes[0].height - blocks,
            sum(node.cpu_seconds() for node in nodes) - used_s,
            machine.cpu_seconds_of(os.getpid()) - own_s,
        )
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))


def _homes(folder: Path, validators: int, changed: Mapping[str, object]) -> list[Home]:
    names, keys = ([Key.generate() for _ in range(validators)] for _ in range(2))
    addresses = [f"127.0.0.1:{port}" for port in free_ports(validators)]
    voters = tuple(Validator(key.public, 10) for key in keys)
    genesis = genesis_file(
        Genesis(CHAIN_ID, time.time_ns() - 1_000_000_000, voters, 1, b"{}"),
        ConsensusParameters(limits.BLOCK_BYTES_MAX + BLOCK_ROOM_BYTES),
    )
    homes = []
    for at, (name, key) in enumerate(zip(names, keys, strict=True)):
        path = folder / f"ceiling{at}"
        settings = NodeSettings(
            **{
                "app_socket": path / "abci.sock",
                "rpc": f"unix://{path}/rpc.sock",
                "tx_bytes_max": limits.BUNDLE_BYTES_MAX,
                "p2p_listen": addresses[at],
                "peers": tuple(
                    Peer(other.id, address)
                    for other, address in zip(names, addresses, strict=True)
                    if other is not name
                ),
                "mempool_txs_max": MEMPOOL_TXS_MAX,
                **changed,
            }  # type: ignore[arg-type]
        )
        home = write_home(path, settings, genesis, node_key=name, validator_key=key)
        _use_kvstore(home)
        homes.append(home)
    return homes


def _use_kvstore(home: Home) -> None:
    """The application is another one, and has no opinion on peers."""
    content = config_file(home.settings).decode()
    ours = f'proxy_app = "unix://{home.settings.app_socket}"'
    assert ours in content
    assert "filter_peers = true" in content
    content = content.replace(ours, 'proxy_app = "kvstore"').replace(
        "filter_peers = true", "filter_peers = false"
    )
    (home.path / CONFIG).write_text(content)


def _transactions(count: int, tx_bytes: int) -> list[bytes]:
    """Of the form that the store takes, each with another key, and not to be compressed by much."""
    size = tx_bytes - 2 * _PREFIX_CHARS - 1
    values = base64.b16encode(secrets.token_bytes(size // 2 + 1))[:size]
    return [
        f"{secrets.token_hex(_PREFIX_CHARS // 2)}={secrets.token_hex(_PREFIX_CHARS // 2)}".encode() + values
        for _ in range(count)
    ]


async def _feed(nodes: Sequence[_Node], shares: Sequence[list[bytes]]) -> None:
    """Send each node its share; return when all nodes have committed all of them."""
    goal = nodes[0].committed + sum(map(len, shares))
    tx_bytes = len(shares[0][0])
    window = asyncio.Semaphore(max(1, IN_FLIGHT_BYTES // tx_bytes) * len(nodes))
    sending = [
        asyncio.create_task(node.send(share[start::SENDERS], window))
        for node, share in zip(nodes, shares, strict=True)
        for start in range(min(SENDERS, len(share)))
    ]
    seen, since_s = nodes[0].committed, time.perf_counter()
    try:
        while True:
            await asyncio.gather(*(node.look() for node in nodes))
            have = min(node.committed for node in nodes)
            for _ in range(have - seen):
                window.release()
            if have > seen:
                seen, since_s = have, time.perf_counter()
            if have >= goal:
                await asyncio.gather(*sending)
                return
            if time.perf_counter() - since_s > STANDSTILL_S_MAX or any(
                task.done() and task.exception() for task in sending
            ):
                raise TimeoutError(f"{goal - have} transactions of {tx_bytes} bytes were not committed")
            await asyncio.sleep(POLL_S)
    finally:
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
