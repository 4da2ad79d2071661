"""The file that a node's output goes to: opened by the node itself, bounded by who runs it.

As a program, `python -m bcdb.cli.testnet.logfile LOG PARENT FOLDER PROGRAM ...`, it sends its output to LOG
and becomes what `bcdb.cli.tied` makes of the rest. It must never keep a node from starting.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bcdb.cli import tied

BYTES_MAX = 16 * 1024 * 1024
"""At this size what is in a file goes to `.1`, in place of what was put there before."""
LAST_BYTES = 16 * 1024
LAST_CHARS_MAX = 300
_REASONS = ("Error: ", "bcdb node: ", "bcdb: ")


def main(arguments: Sequence[str] | None = None) -> int:
    log, *rest = sys.argv[1:] if arguments is None else arguments
    with contextlib.suppress(OSError):
        handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.dup2(handle, sys.stdout.fileno())
        os.dup2(handle, sys.stderr.fileno())
        os.close(handle)
    return tied.main(rest)


def bound(log: Path) -> None:
    """Keep the file short. Who writes into it appends, and goes on at its new end; a line may be lost."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > BYTES_MAX:
            shutil.copyfile(log, log.with_name(f"{log.name}.1"))
            os.truncate(log, 0)


def last_words(log: Path) -> str:
    """The last reason that stands in the file, else its last line; "" if there is nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LAST_BYTES))
            lines = file.read(LAST_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return ""
    told = [line.strip() for line in lines if line.strip()]
    reasons = [line for line in told if line.startswith(_REASONS)]
    return (reasons or told or [""])[-1][:LAST_CHARS_MAX]


if __name__ == "__main__":
    sys.exit(main())
