"""`python -m benchmarks.bare_node HOME`: a node as `bcdb start` runs it, but without its projector.

For measurements of what the projection costs. Searches are never answered by such a node; it is no way to run
one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from bcdb.cli.children import Child
from bcdb.cli.home import locked
from bcdb.cli.start import tell_ready
from bcdb.cli.supervisor import Supervisor
from bcdb.node import logs
from bcdb.node.settings import read_settings


class Absent(Child):
    """A child that is never started: everybody may wait for it, and nobody meets it."""

    async def keep(
        self, ended: Callable[[int], None], *, lasting: Callable[[int], bool] = lambda code: True
    ) -> int:
        await asyncio.Event().wait()
        return 0


def main() -> None:
    settings = read_settings(Path(sys.argv[1]))
    with locked(settings) as lock:
        supervisor = Supervisor(settings, lock)
        supervisor.projector = Absent("projector", "", [], descriptors=(), environment={})
        logs.configure(settings, process="supervisor")
        asyncio.run(supervisor.run(tell_ready))


if __name__ == "__main__":
    main()
