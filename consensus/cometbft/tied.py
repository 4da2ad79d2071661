"""Becomes another program that dies with its parent: `python -I -S tied.py PARENT PROGRAM ...`.

CometBFT knows nothing of whoever has started it, and must not be left behind alone. The kernel keeps the tie
when this process turns into the program, so the process id stays and nothing is in between that could be
killed by itself. Run as a file: it may import nothing but the standard library.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
EXIT_NO_PARENT = 1
EXIT_NOT_EXECUTED = 126


def main(arguments: list[str]) -> int:
    """Turn into the program; returns only if that can't be done.

    PARENT is the process id of who asks for it: when the thread of it that did so ends, the program gets
    SIGKILL. The program is in a process group of its own, so that a Ctrl-C in the terminal leaves it to its
    parent when to stop it. Its files and sockets are this user's alone.
    """
    parent, program, *rest = arguments
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        print(f"prctl failed: {os.strerror(ctypes.get_errno())}.", file=sys.stderr)
        return EXIT_NOT_EXECUTED
    if os.getppid() != int(parent):
        # It has ended already, before the tie was made.
        return EXIT_NO_PARENT
    os.setpgid(0, 0)
    os.umask(0o077)
    try:
        os.execv(program, [program, *rest])
    except OSError as error:
        print(f"{program} can't be run: {error.strerror}.", file=sys.stderr)
        return EXIT_NOT_EXECUTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
