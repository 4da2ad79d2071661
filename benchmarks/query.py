"""`python -m benchmarks.query`: what MongoDB and SQLite take and answer as query stores, in one run.

Four parts, each on data of its own in a temporary folder: projector, search, lag, history. Each figure is
printed beside its target, and all are written to build/query.json. It needs a machine with nothing else to
do, but for `--quick`, which only shows that all of it works.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import structlog
import uvloop

from benchmarks import machine, query_history, query_lag, query_projector, query_search
from benchmarks.figures import Table
from benchmarks.query_stores import STORES, own_mongod

ROOT = Path(__file__).resolve().parents[1]
PARTS = (query_projector.PART, query_search.PART, query_lag.PART, query_history.PART)


class Size(NamedTuple):
    """How much of everything. `searches`: of each kind; `rate`: CREATEs a second, for `seconds`."""

    transactions: int
    rounds: int
    assets: int
    searches: int
    rate: int
    seconds: float
    transfers: int
    outputs: int
    requests: int


FULL = Size(60_000, 3, 100_000, 20, 1_000, 20.0, 5_000, 100_000, 40)
QUICK = Size(300, 1, 2_000, 4, 100, 1.0, 50, 1_000, 3)


async def run(table: Table, parts: list[str], size: Size, folder: Path) -> dict[str, str]:
    """Measure these parts; gives the versions of the databases that took part."""
    versions: dict[str, str] = {}
    if {query_projector.PART, query_search.PART} & set(parts):
        async with own_mongod(folder / "own") as own:
            versions["mongod"] = own.version
            print(f"mongod {own.version}, as `bcdb start --mongo` starts it", flush=True)
            if query_projector.PART in parts:
                await query_projector.measure(table, own, folder, size.transactions, size.rounds)
            if query_search.PART in parts:
                await query_search.measure(table, own, size.assets, size.searches)
    if query_lag.PART in parts:
        for store in STORES:
            await query_lag.measure(table, folder, store, size.rate, size.seconds)
    if query_history.PART in parts:
        await query_history.measure(table, folder, size.transfers, size.outputs, size.requests)
    return versions


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.query", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"which parts, of {', '.join(PARTS)} (all of them)")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that it works")
    parser.add_argument("--rounds", type=int, help="rounds of the projector, of which the median counts (3)")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "build" / "query.json", help="where the figures go"
    )
    options = parser.parse_args()
    parts = options.parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}")
    size = QUICK if options.quick else FULL
    if options.rounds:
        size = size._replace(rounds=options.rounds)
    # That an empty store is built anew, which is said with every round, is no news here.
    logging.getLogger("query").setLevel(logging.ERROR)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    began = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    print(f"machine: {machine.description()}", flush=True)
    table = Table()
    # Sockets have short paths: the folder of temporary files is seldom deep.
    with tempfile.TemporaryDirectory(prefix="bcdb-query-") as folder:
        versions = uvloop.run(run(table, parts, size, Path(folder)))
    about = {"began": began, "machine": machine.description(), "size": size._asdict(), "quick": options.quick}
    table.write(options.json, {**about, "versions": versions, "parts": parts})
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
