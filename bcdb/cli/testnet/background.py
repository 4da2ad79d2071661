"""What goes on after `bcdb testnet up --detach`: `python -m bcdb.cli.testnet.background FOLDER [NUMBER ...]`.

It runs the nodes like the command in the foreground does, and shows nothing; its log is its standard error.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from bcdb.cli.home import locked
from bcdb.cli.testnet.layout import read_layout
from bcdb.cli.testnet.running import Runner
from bcdb.model.errors import BcdbError
from bcdb.node import logs
from consensus.engine import EngineError


def main(arguments: Sequence[str] | None = None) -> int:
    folder, *numbers = sys.argv[1:] if arguments is None else arguments
    try:
        layout = read_layout(Path(folder))
        nodes = layout.chosen([int(number) for number in numbers])
        logs.configure(layout.settings, process="testnet")
        with locked(layout.settings) as lock:
            asyncio.run(Runner(layout, nodes, lock).run(_in_silence))
    except (BcdbError, EngineError) as error:
        print(f"Error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


async def _in_silence(runner: Runner) -> None:
    await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
