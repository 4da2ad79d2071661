"""The figures of a node for Prometheus: of all its workers together, of the node process and of the
projector.

Counting costs less than a microsecond and never waits. Labels come from the routes, never from what a client
sent, so that nobody can make them grow.
"""

import asyncio
import os
import time
from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from bcdb.http.answer import Answer

if TYPE_CHECKING:
    from bcdb.http.services import Services

SHARED_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
MOVE_PAUSE_S = 1.0
BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

REQUESTS = Counter("bcdb_http_requests", "Requests answered", ("route", "status"))
SECONDS = Histogram(
    "bcdb_http_request_seconds",
    "From the headers of a request to the last byte of its answer",
    ("route",),
    buckets=BUCKETS_S,
)
BATCH_ITEMS = Counter("bcdb_http_batch_items", "Transactions that came in batches")
STREAM_READERS = Gauge("bcdb_stream_readers", "Open WebSocket streams", multiprocess_mode="livesum")
QUESTIONS = Counter("bcdb_questions", "Questions to the query store", ("kind", "outcome"))
QUESTION_SECONDS = Histogram(
    "bcdb_question_seconds",
    "From a question to its end, with the wait for the store to be new enough",
    ("kind",),
    buckets=BUCKETS_S,
)


class Observer:
    """Counts answers in this process, and moves the counts to where all workers' are once a second.

    The files that workers share cost some twenty times as much to write as an integer in memory, which would
    be felt in every answer.
    """

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, int], list[float]] = {}
        """For each route and status: the answers in each bucket, and last the sum of their seconds."""
        self._timer: asyncio.TimerHandle | None = None

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one answer of `route`, a name or a path template."""
        tally = self._tallies.get((route, status))
        if tally is None:
            tally = self._tallies[route, status] = [0] * (len(BUCKETS_S) + 2)
        tally[bisect_left(BUCKETS_S, seconds)] += 1
        tally[-1] += seconds
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MOVE_PAUSE_S, self.move)

    def move(self) -> None:
        """Add what was counted since the last time to the shared figures."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for (route, status), tally in self._tallies.items():
            *counts, seconds = tally
            answers = sum(counts)
            if not answers:
                continue
            tally[:] = [0] * len(tally)
            REQUESTS.labels(route, str(status)).inc(answers)
            histogram = SECONDS.labels(route)
            # The public way takes one observation at a time; these two fields are what it adds to.
            histogram._sum.inc(seconds)
            for bucket, count in zip(histogram._buckets, counts, strict=True):
                if count:
                    bucket.inc(count)


class _NodeFigures(Collector):
    """What only the node process and the store know, asked for when somebody looks."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


async def exposition(services: "Services") -> Answer:
    """All figures in the text format of Prometheus. Raises `Unavailable` when the node does not answer."""
    services.observer.move()
    info = await services.link.info()
    metrics: list[Metric] = [
        GaugeMetricFamily("bcdb_height", "Height of the last published block", info.height),
        GaugeMetricFamily("bcdb_pending_transactions", "Accepted, not settled", info.pending_count),
        GaugeMetricFamily("bcdb_pending_bytes", "Size of the write-ahead log's entries", info.pending_bytes),
        GaugeMetricFamily("bcdb_node_links", "Connections of other processes to the node", info.links),
        GaugeMetricFamily("bcdb_node_uptime_seconds", "Since the node process serves", info.uptime_s),
        CounterMetricFamily("bcdb_node_cpu_seconds", "CPU time of the node process", info.cpu_s),
        GaugeMetricFamily("bcdb_bundles_in_flight", "Bundles that wait for a block", info.in_flight),
        GaugeMetricFamily("bcdb_engine_up", "Whether the engine orders", int(not info.engine_trouble)),
        GaugeMetricFamily("bcdb_engine_catching_up", "Whether it fetches old blocks", int(info.catching_up)),
        GaugeMetricFamily("bcdb_engine_peers", "Nodes that the engine is connected to", info.peers),
        CounterMetricFamily("bcdb_flushes", "Flushes of the write-ahead log", info.flushes),
        CounterMetricFamily("bcdb_transactions_accepted", "Accepted by this node", info.accepted),
        CounterMetricFamily("bcdb_transactions_committed", "Committed since the start", info.committed),
        CounterMetricFamily("bcdb_transactions_rejected", "Rejected since the start", info.rejected),
    ]
    metrics += await _store_figures(services)
    text = await asyncio.to_thread(_render, metrics)
    return Answer(200, text, CONTENT_TYPE_LATEST.encode())


async def _store_figures(services: "Services") -> list[Metric]:
    """How the query store is. While it is away its height, and so the lag, is counted as last seen."""
    seen = await services.questions.look()
    up = GaugeMetricFamily("bcdb_store_up", "Whether the query store answers questions", int(seen.answers))
    if seen.height is None:
        return [up]
    reader = await services.ledger.ready()
    lag_blocks, lag_s = max(reader.head.height - seen.height, 0), 0.0
    if lag_blocks:
        lag_s = max(time.time() - reader.block_time(seen.height + 1) / 1e9, 0.0)
    return [
        up,
        GaugeMetricFamily("bcdb_projected_height", "Height of the query copy", seen.height),
        GaugeMetricFamily("bcdb_projection_lag_blocks", "Blocks the query copy lacks", lag_blocks),
        GaugeMetricFamily("bcdb_projection_lag_seconds", "Age of the oldest block it lacks", lag_s),
    ]


def _render(metrics: list[Metric]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_NodeFigures(metrics))
    if os.environ.get(SHARED_FOLDER_VARIABLE):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
    return generate_latest(REGISTRY) + generate_latest(registry)
