"""Becomes another program that dies with its parent: `python -m bcdb.cli.tied PARENT FOLDER PROGRAM ...`.

For a database that knows nothing of our lifelines. The kernel keeps the tie when this process turns into the
program, so the process id stays, and nothing is in between that could be killed alone.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
EXIT_NO_PARENT = 1
EXIT_NOT_EXECUTED = 126


def main(arguments: Sequence[str] | None = None) -> int:
    """Turn into the program, with FOLDER as its current one; returns only if that can't be done.

    PARENT is the process id of who asks for it: when it ends, the program gets SIGKILL. The program is in a
    process group of its own, so that a Ctrl-C in the terminal leaves it to its parent when to stop it. Its
    files are this user's alone, and what it says on standard output is dropped.
    """
    parent, folder, program, *rest = sys.argv[1:] if arguments is None else arguments
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        print(f"bcdb: prctl failed: {os.strerror(ctypes.get_errno())}.", file=sys.stderr)
        return EXIT_NOT_EXECUTED
    if os.getppid() != int(parent):
        # It has ended already, before the tie was made.
        return EXIT_NO_PARENT
    os.setpgid(0, 0)
    os.umask(0o077)
    os.chdir(folder)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    try:
        os.execv(program, [program, *rest])
    except OSError as error:
        print(f"bcdb: {program} can't be run: {error.strerror}.", file=sys.stderr)
        return EXIT_NOT_EXECUTED


if __name__ == "__main__":
    sys.exit(main())
