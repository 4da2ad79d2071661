"""The bound on requests of one address: how it counts, over workers together, and for whom."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bcdb.http.rate import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_a_burst_passes_and_then_the_rate(tmp_path: Path, clock: Clock) -> None:
    limit = RateLimit(tmp_path / "rate", 10)
    assert [limit.wait_s("192.0.2.1") for _ in range(12)] == [0] * 10 + [1, 1]
    clock.now += 0.1
    assert [limit.wait_s("192.0.2.1") for _ in range(2)] == [0, 1]
    clock.now += 1000
    assert sum(limit.wait_s("192.0.2.1") == 0 for _ in range(20)) == 10


def test_workers_count_together_and_addresses_apart(tmp_path: Path, clock: Clock) -> None:
    first, second = (RateLimit(tmp_path / "run" / "rate", 4) for _ in range(2))
    assert [worker.wait_s("192.0.2.1") for worker in (first, second) * 3] == [0, 0, 0, 0, 1, 1]
    assert first.wait_s("192.0.2.2") == 0


def test_loopback_is_exempt(tmp_path: Path) -> None:
    limit = RateLimit(tmp_path / "rate", 1)
    for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert {limit.wait_s(address) for _ in range(50)} == {0}


def test_a_network_of_version_6_counts_as_one(tmp_path: Path, clock: Clock) -> None:
    limit = RateLimit(tmp_path / "rate", 2)
    assert [limit.wait_s(f"2001:db8::{n}") for n in range(1, 4)] == [0, 0, 1]
    assert limit.wait_s("2001:db8:0:1::1") == 0
    assert [limit.wait_s(text) for text in ("::ffff:192.0.2.9", "192.0.2.9", "192.0.2.9")] == [0, 0, 1]


def test_no_rate_is_no_bound_and_no_file(tmp_path: Path) -> None:
    limit = RateLimit(tmp_path / "rate", 0)
    assert {limit.wait_s("192.0.2.1") for _ in range(100)} == {0}
    assert not (tmp_path / "rate").exists()
    limit.close()


def test_a_clock_that_began_anew_and_odd_names_do_no_harm(tmp_path: Path, clock: Clock) -> None:
    limit = RateLimit(tmp_path / "rate", 3)
    limit.wait_s("192.0.2.1")
    clock.now = 5.0
    assert [limit.wait_s("192.0.2.1") for _ in range(4)] == [0, 0, 0, 1]
    for odd in ("", "no address", "\udc80", "::1%eth0"):
        limit.wait_s(odd)
    for number in range(10_000):
        limit.wait_s(f"10.{number >> 8 & 255}.{number & 255}.1")
    limit.close()
