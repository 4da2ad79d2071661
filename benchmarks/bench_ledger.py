"""The ledger's part of a write, in blocks of 500 on a real store: accept, apply, commit, flush; long lists.

Times are those of a whole block; `extra_info` says how many transactions stand in it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bcdb.ledger import BlockHeader, Ledger, Outcome
from bcdb.model import KeyPair, Verified, decode_key, prepare_create, verify
from benchmarks.workload import Prepared, prepare
from tests.support.transactions import signed

BLOCK = 500
BLOCKS = 12
OUTPUTS_OF_ONE_KEY = 1_000_000
OUTPUTS_EACH = 1_000
Block = list[Verified]


@pytest.fixture(scope="module")
def items() -> list[Prepared]:
    return prepare("ledger", BLOCK * BLOCKS)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path / "ledger", chain_id="benchmark")
    yield opened
    opened.close()


def creates(items: Sequence[Prepared]) -> list[Block]:
    return _blocks([verify(item.create) for item in items])


def transfers(items: Sequence[Prepared]) -> list[Block]:
    return _blocks([verify(item.transfer) for item in items])


def _blocks(transactions: list[Verified]) -> list[Block]:
    return [transactions[at : at + BLOCK] for at in range(0, len(transactions), BLOCK)]


def header(height: int) -> BlockHeader:
    return BlockHeader(height, time.time_ns(), bytes(32), height.to_bytes(32, "big"))


def apply(ledger: Ledger, block: Block) -> Outcome:
    return ledger.apply(header(ledger.head.height + 1), block)


def accept_all(ledger: Ledger, block: Block) -> None:
    assert not any(ledger.accept(block))


def store(ledger: Ledger, block: Block) -> None:
    accept_all(ledger, block)
    ledger.commit(apply(ledger, block))


@pytest.mark.parametrize("operation", ["create", "transfer"])
def test_accept(benchmark: BenchmarkFixture, ledger: Ledger, items: list[Prepared], operation: str) -> None:
    blocks = creates(items)
    if operation == "transfer":
        for block in blocks:
            store(ledger, block)
        blocks = transfers(items)
    waiting = iter(blocks)
    benchmark.extra_info["transactions"] = BLOCK
    benchmark.pedantic(accept_all, setup=lambda: ((ledger, next(waiting)), {}), rounds=len(blocks))
    assert len(ledger.pending) == len(items)


@pytest.mark.parametrize("operation", ["create", "transfer"])
def test_apply(benchmark: BenchmarkFixture, ledger: Ledger, items: list[Prepared], operation: str) -> None:
    blocks = creates(items)
    if operation == "transfer":
        for block in blocks:
            store(ledger, block)
        blocks = transfers(items)
    for block in blocks:
        accept_all(ledger, block)
    endless = itertools.cycle(blocks)
    benchmark.extra_info["transactions"] = BLOCK
    outcome = benchmark.pedantic(apply, setup=lambda: ((ledger, next(endless)), {}), rounds=40)
    assert len(outcome.results) == BLOCK


@pytest.mark.parametrize("operation", ["create", "transfer"])
def test_commit(benchmark: BenchmarkFixture, ledger: Ledger, items: list[Prepared], operation: str) -> None:
    blocks = creates(items)
    if operation == "transfer":
        for block in blocks:
            store(ledger, block)
        blocks = transfers(items)
    waiting = iter(blocks)

    def applied() -> tuple[tuple[Outcome], dict[str, object]]:
        block = next(waiting)
        accept_all(ledger, block)
        return (apply(ledger, block),), {}

    benchmark.extra_info["transactions"] = BLOCK
    benchmark.pedantic(ledger.commit, setup=applied, rounds=len(blocks))
    assert not ledger.pending


def test_flush(benchmark: BenchmarkFixture, ledger: Ledger, items: list[Prepared]) -> None:
    waiting = iter(creates(items))
    benchmark.extra_info["transactions"] = BLOCK

    def written() -> None:
        accept_all(ledger, next(waiting))

    benchmark.pedantic(ledger.flush, setup=written, rounds=BLOCKS)


def test_first_page_of_a_million_outputs(benchmark: BenchmarkFixture, ledger: Ledger) -> None:
    owner = KeyPair.from_seed(bytes([7]) * 32)
    recipients = [([owner.public_key], 1)] * OUTPUTS_EACH
    for serial in range(OUTPUTS_OF_ONE_KEY // OUTPUTS_EACH):
        prepared = prepare_create(issuers=[owner.public_key], recipients=recipients, asset={"serial": serial})
        store(ledger, [signed(prepared, [owner]).verified])
    key = decode_key(owner.public_key)
    page = benchmark(lambda: ledger.reader.outputs_of(key, spent=None, after=None, limit=1000))
    assert len(page.items) == 1000
    assert page.next is not None
