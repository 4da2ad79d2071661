"""What a client waits for the past: provenance of a long-lived asset, holdings of a key with many outputs.

Asked over HTTP of a real worker that has nothing else to do, one request after the other on one connection.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from pathlib import Path
from typing import Any

from bcdb.cli.home import make_home
from bcdb.ledger import Ledger
from benchmarks import ledgers
from benchmarks.figures import Table, spread, step
from tests.support.server import Server

PART = "history"
PROJECTED_S_MAX = 300.0
PROVENANCE_MS_MAX = 300
HOLDINGS_MS_MAX = 200


async def measure(table: Table, folder: Path, transfers: int, outputs: int, requests: int) -> None:
    home = folder / "history"
    with step(f"building a ledger with {transfers:,} transfers of an asset, {outputs:,} outputs of a key"):
        settings, _ = make_home(home, {})
        ledger = Ledger.open(settings.ledger_path, chain_id=settings.chain_id)
        history = ledgers.add_history(ledger, transfers, outputs)
        ledger.close()
    with Server(home, workers=1) as server:
        await asyncio.to_thread(_settle, server)
        path = f"/api/v1/assets/{history.asset_id.hex()}/provenance"
        for form in ("json", "csv", "dot"):
            waits_ms, body = await asyncio.to_thread(_ask, server, f"{path}?format={form}", requests)
            assert body.count(b"TRANSFER") >= transfers, f"{form}: not all transfers are in the answer"
            what = f"provenance over {transfers:,} transfers, {form}"
            below = {"p50": PROVENANCE_MS_MAX, "p95": PROVENANCE_MS_MAX} if form == "json" else None
            table.add(spread(PART, what, "ledger", waits_ms, below)[:2])
        path = f"/api/v1/keys/{history.holder}/holdings"
        waits_ms, body = await asyncio.to_thread(_ask, server, path, requests)
        found: Any = json.loads(body)
        assert len(found["holdings"]) == history.left, found
        below = {"p50": HOLDINGS_MS_MAX, "p95": HOLDINGS_MS_MAX}
        what = f"holdings of a key that had {outputs:,} outputs"
        table.add(spread(PART, what, "ledger", waits_ms, below)[:2])
        assert await asyncio.to_thread(server.stop) == 0, server.tail()


def _settle(server: Server) -> None:
    """Wait until the projector has taken in the ledger, so that it is in nobody's way."""
    deadline = time.monotonic() + PROJECTED_S_MAX
    while True:
        state = server.get("/health/ready")
        if state["projected_height"] == state["height"]:
            return
        assert time.monotonic() < deadline, state
        time.sleep(0.05)


def _ask(server: Server, path: str, requests: int) -> tuple[list[float], bytes]:
    """How long each request waits for its whole answer, in ms, and the last answer."""
    waits_ms = []
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    try:
        # The first one is not counted: the worker's reader opens its files, and the connection is made.
        for _ in range(requests + 1):
            began = time.perf_counter()
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            waits_ms.append((time.perf_counter() - began) * 1000)
            assert answer.status == 200, body
            assert answer.headers.get("Link") is None, f"{path} has a second page"
    finally:
        connection.close()
    return waits_ms[1:], body
