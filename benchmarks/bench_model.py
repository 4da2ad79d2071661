"""Stateless validation, its parts, and bare Ed25519 beside them as the yardstick."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bcdb.model import KeyPair, decode_key, verify
from bcdb.model.canonical import encode_javascript, encode_python
from bcdb.model.conditions import decode_fulfillment
from bcdb.model.keys import verify_signature
from benchmarks.workload import Prepared

ROUNDS = 5000


def over(step: Callable[[Any], object], items: list[Any]) -> Callable[[], object]:
    """A call that takes the next of `items` each time, so that no cache sees the same one again soon."""
    endless = itertools.cycle(items)
    return lambda: step(next(endless))


def test_ed25519(benchmark: BenchmarkFixture) -> None:
    pair, message = KeyPair.from_seed(bytes([7]) * 32), b"m" * 32
    key, signature = decode_key(pair.public_key), pair.sign(message)
    assert benchmark.pedantic(verify_signature, (key, message, signature), rounds=ROUNDS)


@pytest.mark.parametrize("operation", ["create", "transfer"])
def test_stateless_validation(benchmark: BenchmarkFixture, prepared: list[Prepared], operation: str) -> None:
    bodies = [getattr(item, operation) for item in prepared]
    assert benchmark.pedantic(over(verify, bodies), rounds=ROUNDS, warmup_rounds=100)


def test_canonical_python_form(benchmark: BenchmarkFixture, prepared: list[Prepared]) -> None:
    documents = [msgspec.json.decode(item.create) for item in prepared]
    assert benchmark.pedantic(over(encode_python, documents), rounds=ROUNDS, warmup_rounds=100)


def test_canonical_python_form_with_floats(benchmark: BenchmarkFixture, prepared: list[Prepared]) -> None:
    documents = [{**msgspec.json.decode(item.create), "metadata": {"degrees": 21.5e-7}} for item in prepared]
    assert benchmark.pedantic(over(encode_python, documents), rounds=ROUNDS, warmup_rounds=100)


def test_canonical_javascript_form(benchmark: BenchmarkFixture, prepared: list[Prepared]) -> None:
    documents = [{**msgspec.json.decode(item.create), "metadata": {"degrees": 21.5e-7}} for item in prepared]
    assert benchmark.pedantic(over(encode_javascript, documents), rounds=ROUNDS, warmup_rounds=100)


def test_fulfillment(benchmark: BenchmarkFixture, prepared: list[Prepared]) -> None:
    texts = [msgspec.json.decode(item.create)["inputs"][0]["fulfillment"] for item in prepared]
    assert benchmark.pedantic(over(decode_fulfillment, texts), rounds=ROUNDS, warmup_rounds=100)
