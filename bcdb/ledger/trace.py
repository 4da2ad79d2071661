"""A trace of what was accepted, flushed, answered and published, from which tests prove the order of these.

`BCDB_TRACE_FILE=path` switches it on: one JSON object a line, appended by one `write` each, so that lines of
several threads and processes never mix and all survive a SIGKILL. Nothing but tests may ever need it.
"""

import json
import os
import time

_path = os.environ.get("BCDB_TRACE_FILE", "")
enabled = bool(_path)
"""Whether anything is traced. Ask before gathering what is only for the trace."""

_descriptor = -1


def emit(event: str, **fields: object) -> None:
    """Append one line: the event, the monotonic time in ns, and the fields (ids as hex)."""
    global _descriptor
    if not enabled:
        return
    if _descriptor < 0:
        _descriptor = os.open(_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    line = json.dumps({"event": event, "time_ns": time.monotonic_ns(), **fields})
    os.write(_descriptor, line.encode() + b"\n")


def answered(transaction_id: bytes) -> None:
    """The node has answered that this transaction is durable."""
    if enabled:
        emit("answered", id=transaction_id.hex())


def published(height: int) -> None:
    """The node has published this height to its workers."""
    if enabled:
        emit("published", height=height)
