"""What all questions to the SQLite file share: one snapshot, one bound on their time, one look at the height.

Nothing here may run longer than `SEARCH_S_MAX`, nor answer from a store that is still being built.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from query.sqlite.writing import read_checkpoint
from query.store import SEARCH_S_MAX, SearchTimeout, StoreUnavailable

STEPS_BETWEEN_LOOKS = 20_000
"""Steps of SQLite's machine between two looks at the clock."""
TURN_S = 0.002
"""Python works so long on a question before it lets the other threads of its process have a turn."""
PAUSE_S = 0.00005


class Snapshot(msgspec.Struct, gc=False):
    """What a question reads: the state of the store at `height`, until the clock shows `deadline`."""

    deadline: float
    height: int = 0
    _turn_ends: float = 0.0

    def look(self) -> None:
        """To be called between rows. Raises `SearchTimeout` when the time is over."""
        now = time.monotonic()
        if now > self._turn_ends:
            if now > self.deadline:
                raise too_broad()
            # Without a pause this thread would get the interpreter back before any other has noticed.
            time.sleep(PAUSE_S)
            self._turn_ends = time.monotonic() + TURN_S

    def hurry(self, seconds: float) -> None:
        """From now on there is no more time than that."""
        self.deadline = min(self.deadline, time.monotonic() + seconds)
        self._turn_ends = 0.0


@contextmanager
def snapshot(connection: sqlite3.Connection, steps_between_looks: int | None = None) -> Iterator[Snapshot]:
    """Everything that is read within is of one state of the store.

    Raises `StoreUnavailable` while the store is being built, `SearchTimeout` when what is done within takes
    too long.
    """
    state = Snapshot(time.monotonic() + SEARCH_S_MAX)
    connection.execute("BEGIN")
    connection.set_progress_handler(
        lambda: time.monotonic() > state.deadline, steps_between_looks or STEPS_BETWEEN_LOOKS
    )
    try:
        checkpoint = read_checkpoint(connection)
        require_built(checkpoint.height, checkpoint.target)
        state.height = checkpoint.height
        yield state
    except sqlite3.OperationalError as error:
        if is_interrupt(error):
            raise too_broad() from None
        raise
    finally:
        connection.set_progress_handler(None, 0)
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def is_interrupt(error: sqlite3.OperationalError) -> bool:
    """Whether SQLite stopped because the time was over."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT


def require_built(height: int, target: int) -> None:
    """Raises `StoreUnavailable` below the height up to which a store is being built."""
    if height < target:
        raise StoreUnavailable(f"The query store is being built: it is at block {height} of {target}")


def too_broad() -> SearchTimeout:
    return SearchTimeout(
        f"The search is too broad: it was not done after {SEARCH_S_MAX:g} s;"
        " name rarer words or narrower bounds"
    )
