"""Long readings, and the application of a block, in slices of some milliseconds, so that whoever does them in
an event loop can do other things in between.

Each is a generator that yields nothing but pauses and returns its result. What it reads must not depend on
how long its pauses are, nor on what happens in them.
"""

from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")

Slices = Generator[None, None, Result]

SLICE_ROWS = 4_000
"""Rows of an index that are read between two pauses: some 4 ms."""

SLICE_TRANSACTIONS = 100
"""Transactions of a block that are applied between two pauses: half a ms of CREATE, 2 ms of TRANSFER."""

SLICE_BYTES = 128 * 1024
"""The same in bytes, to which inputs, outputs and keys are in proportion: 2 ms. The longest transaction alone
takes some 15 ms."""


def whole(slices: Slices[Result]) -> Result:
    """The result without any pauses."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            result: Result = end.value
            return result
