"""Named points around every durable step at which a test can make the process die.

`BCDB_CRASH_AT=name` (or `name:nth`, counted from 1) makes the process kill itself with SIGKILL when it gets
there: nothing is flushed, no handler runs. Without the variable `reach` does nothing.
"""

import os
import signal

NAMES = (
    "store-before-create",
    "store-after-create",
    "accept-before-write",
    "accept-after-write",
    "flush-before",
    "flush-after",
    "commit-before-write",
    "commit-after-write",
    "replay-before-write",
    "replay-after-write",
    "node-before-answer",
    "node-after-answer",
    "node-before-publish",
    "node-after-publish",
)
"""Every point there is; those of `node-` stand in `bcdb.node`."""


def _armed_from(setting: str) -> tuple[str, int]:
    if not setting:
        return "", 0
    name, _, nth = setting.partition(":")
    if name not in NAMES or not (nth or "1").isdecimal():
        raise ValueError(f"BCDB_CRASH_AT={setting} names no crash point; there are {', '.join(NAMES)}")
    return name, int(nth or "1")


_armed, _passes_left = _armed_from(os.environ.get("BCDB_CRASH_AT", ""))


def reach(name: str) -> None:
    """Die here if this point was named, and this is the nth time."""
    global _passes_left
    if name != _armed:
        return
    _passes_left -= 1
    if _passes_left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
