"""What an API worker reads of the past: the provenance of an asset, and what a key holds, as whole answers.

Read as a worker reads: by a follower of the ledger, in slices. `extra_info` says how many rows an answer is
made of, and the longest slice in ms, for which others of the worker's event loop wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bcdb.http.provenance import SHAPES, read_page
from bcdb.ledger import BlockHeader, Ledger, SecondaryReader, open_reader
from bcdb.ledger.slices import Slices
from bcdb.model import KeyPair, decode_key, limits, prepare_create, prepare_transfer
from tests.support.transactions import Signed, signed

TRANSFERS = 5_000
TRANSFERS_A_BLOCK = 10
OUTPUTS = 100_000
OUTPUTS_EACH = 1_000
ASSETS = OUTPUTS // OUTPUTS_EACH
PAIRS = [KeyPair.from_seed(bytes([number]) * 32) for number in (1, 2)]

Result = TypeVar("Result")


class Longest:
    """The longest slice of all readings."""

    def __init__(self) -> None:
        self.slice_s = 0.0

    def whole(self, slices: Slices[Result]) -> Result:
        while True:
            started_s = time.perf_counter()
            try:
                next(slices)
            except StopIteration as end:
                result: Result = end.value
                return result
            finally:
                self.slice_s = max(self.slice_s, time.perf_counter() - started_s)


def store(ledger: Ledger, transactions: list[Signed]) -> None:
    height = ledger.head.height + 1
    header = BlockHeader(height, time.time_ns(), bytes(32), height.to_bytes(32, "big"))
    ledger.commit(ledger.apply(header, [item.verified for item in transactions]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("history")


@pytest.fixture(scope="module")
def asset_id(folder: Path) -> bytes:
    """An asset that goes to and fro, one half at a time; and what a key has and had, in the same ledger."""
    ledger = Ledger.open(folder / "ledger", chain_id="benchmark")
    one = PAIRS[0]
    made = signed(prepare_create(issuers=[one.public_key], recipients=[([one.public_key], 2)]), [one])
    store(ledger, [made])
    held, owner = made, one
    chain: list[Signed] = []
    for number in range(TRANSFERS):
        receiver = PAIRS[(number + 1) % 2]
        prepared = prepare_transfer(
            inputs=[(held.tx, 0)] if number == 0 else [(held.tx, 0), (held.tx, 1)],
            recipients=[([receiver.public_key], 1), ([receiver.public_key], 1)],
            asset_id=made.tx["id"],
        )
        held, owner = signed(prepared, [owner]), receiver
        chain.append(held)
        if len(chain) == TRANSFERS_A_BLOCK:
            store(ledger, chain)
            chain = []
    holder = KeyPair.from_seed(bytes([7]) * 32)
    shares = [([holder.public_key], 5)] * OUTPUTS_EACH
    sources = []
    for serial in range(ASSETS):
        prepared = prepare_create(issuers=[holder.public_key], recipients=shares, asset={"serial": serial})
        sources.append(signed(prepared, [holder]))
        store(ledger, sources[-1:])
    # Ten of the hundred assets are given away, so that the past is not the present.
    for source in sources[::10]:
        inputs = [(source.tx, index) for index in range(OUTPUTS_EACH)]
        prepared = prepare_transfer(inputs=inputs, recipients=[([one.public_key], 5 * OUTPUTS_EACH)])
        store(ledger, [signed(prepared, [holder])])
    ledger.close()
    return made.verified.id


@pytest.fixture(scope="module")
def reader(folder: Path, asset_id: bytes) -> Iterator[SecondaryReader]:
    opened = open_reader(folder / "ledger", folder / "scratch")
    yield opened
    opened.close()


def measure(benchmark: BenchmarkFixture, rows: int, make: Callable[[], Slices[Result]]) -> Result:
    longest = Longest()
    result = benchmark.pedantic(lambda: longest.whole(make()), rounds=7, warmup_rounds=1)
    benchmark.extra_info["rows"] = rows
    benchmark.extra_info["longest_slice_ms"] = round(longest.slice_s * 1000, 1)
    return result


@pytest.mark.parametrize("form", list(SHAPES))
def test_provenance(benchmark: BenchmarkFixture, reader: SecondaryReader, asset_id: bytes, form: str) -> None:
    height = reader.head.height

    def page() -> Slices[tuple[bytes, str | None]]:
        return read_page(reader, asset_id, SHAPES[form](asset_id, height), None, limits.PAGE_ITEMS_MAX)

    body, after = measure(benchmark, TRANSFERS + 1, page)
    assert after is None
    assert body.count(b"TRANSFER") == TRANSFERS * (2 if form == "csv" else 1)


@pytest.mark.parametrize("past", [False, True])
def test_holdings(benchmark: BenchmarkFixture, reader: SecondaryReader, past: bool) -> None:
    key = decode_key(KeyPair.from_seed(bytes([7]) * 32).public_key)
    at_height = reader.head.height - ASSETS // 10 if past else None
    page = measure(
        benchmark,
        OUTPUTS,
        lambda: reader.read_holdings(key, at_height=at_height, after=None, limit=limits.PAGE_ITEMS_MAX),
    )
    assert len(page.items) == ASSETS * (10 if past else 9) // 10
    assert {item.amount for item in page.items} == {5 * OUTPUTS_EACH}
