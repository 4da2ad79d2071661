"""What a benchmark found, with the target it is held against, and how that is shown.

A figure is a plain number with a unit. It never carries what was left out to get it.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple


class Figure(NamedTuple):
    """One measured number. `store`: which database it is of, "" for none; at most one bound is a target."""

    part: str
    what: str
    store: str
    value: float
    unit: str
    at_least: float | None = None
    below: float | None = None

    @property
    def missed(self) -> bool:
        return (self.at_least is not None and self.value < self.at_least) or (
            self.below is not None and self.value >= self.below
        )

    @property
    def target(self) -> str:
        bound = self.at_least if self.at_least is not None else self.below
        if bound is None:
            return ""
        return f"{'≥' if self.at_least is not None else '<'} {bound:,.0f}{' (missed)' if self.missed else ''}"


def at(values: Sequence[float], part: float) -> float:
    """The value that `part` of all values do not pass, e.g. 0.95 of them."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def spread(
    part: str, what: str, store: str, values_ms: Sequence[float], below: Mapping[str, float] | None = None
) -> list[Figure]:
    """p50, p95 and the longest of some waits. `below`: targets by these names."""
    below = below or {}
    found = {"p50": statistics.median(values_ms), "p95": at(values_ms, 0.95), "max": max(values_ms)}
    return [
        Figure(part, f"{what}, {name}", store, value, "ms", below=below.get(name))
        for name, value in found.items()
    ]


class Table:
    """Figures as lines of one table, each printed as soon as it is known."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def add(self, figures: Sequence[Figure]) -> None:
        if not self.figures:
            print(_line("", "", "measured", "target"))
        for figure in figures:
            digits = 1 if figure.value < 100 else 0
            value = f"{figure.value:,.{digits}f} {figure.unit}"
            print(_line(figure.what, figure.store, value, figure.target), flush=True)
        self.figures += figures

    def write(self, path: Path, about: Mapping[str, Any]) -> None:
        figures = [figure._asdict() | {"missed": figure.missed} for figure in self.figures]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**about, "figures": figures}, indent=2, ensure_ascii=False) + "\n")


def _line(what: str, store: str, value: str, target: str) -> str:
    return f"{what:54} {store:8} {value:>16}   {target}".rstrip()


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what is being prepared, for whoever waits, and how long that took."""
    began = time.perf_counter()
    yield
    print(f"({text}: {time.perf_counter() - began:.1f} s)", flush=True)
