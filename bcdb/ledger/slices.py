"""Long readings in slices of some milliseconds, so that whoever reads in an event loop can do other things
in between.

A reading is a generator that yields nothing but pauses and returns its result. What it reads must not depend
on how long its pauses are.
"""

from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")

Slices = Generator[None, None, Result]

SLICE_ROWS = 4_000
"""Rows of an index that are read between two pauses: some 4 ms."""


def whole(slices: Slices[Result]) -> Result:
    """The result of a reading without any pauses."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            result: Result = end.value
            return result
