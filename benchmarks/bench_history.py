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
from bcdb.ledger import Ledger, SecondaryReader, open_reader
from bcdb.ledger.slices import Slices
from bcdb.model import decode_key, limits
from benchmarks.ledgers import OUTPUTS_EACH, History, add_history

TRANSFERS = 5_000
OUTPUTS = 100_000

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("history")


@pytest.fixture(scope="module")
def history(folder: Path) -> History:
    """An asset that goes to and fro, and what a key has and had, in the same ledger."""
    ledger = Ledger.open(folder / "ledger", chain_id="benchmark")
    made = add_history(ledger, TRANSFERS, OUTPUTS)
    ledger.close()
    return made


@pytest.fixture(scope="module")
def reader(folder: Path, history: History) -> Iterator[SecondaryReader]:
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
def test_provenance(
    benchmark: BenchmarkFixture, reader: SecondaryReader, history: History, form: str
) -> None:
    height, asset_id = reader.head.height, history.asset_id

    def page() -> Slices[tuple[bytes, str | None]]:
        return read_page(reader, asset_id, SHAPES[form](asset_id, height), None, limits.PAGE_ITEMS_MAX)

    body, after = measure(benchmark, TRANSFERS + 1, page)
    assert after is None
    assert body.count(b"TRANSFER") == TRANSFERS * (2 if form == "csv" else 1)


@pytest.mark.parametrize("past", [False, True])
def test_holdings(benchmark: BenchmarkFixture, reader: SecondaryReader, history: History, past: bool) -> None:
    key = decode_key(history.holder)
    # Assets were given away in the last blocks, one in each.
    at_height = reader.head.height - (history.assets - history.left) if past else None
    page = measure(
        benchmark,
        OUTPUTS,
        lambda: reader.read_holdings(key, at_height=at_height, after=None, limit=limits.PAGE_ITEMS_MAX),
    )
    assert len(page.items) == (history.assets if past else history.left)
    assert {item.amount for item in page.items} == {5 * OUTPUTS_EACH}
