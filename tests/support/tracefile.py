"""Reads the trace that a node writes when `BCDB_TRACE_FILE` is set, with the byte at which each line ends.

The node appends a line with one write before it goes on, so a reader that finds the file longer than a line's
end knows that the event lies in the past.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Event:
    kind: str
    end: int
    """Offset of the byte behind the line."""
    fields: dict[str, Any]


def read(path: Path) -> list[Event]:
    events, end = [], 0
    for line in path.read_bytes().splitlines(keepends=True):
        end += len(line)
        if line.endswith(b"\n"):
            fields = json.loads(line)
            events.append(Event(fields["event"], end, fields))
    return events


def durable_at(events: list[Event]) -> dict[str, int]:
    """Id → end of the line that tells the end of the first flush covering it. Ids never flushed are left out.

    A flush may end between a write and the line that tells of it, so a mark may be covered already.
    """
    waiting: list[tuple[int, str]] = []
    found: dict[str, int] = {}
    covered = -1
    for event in events:
        if event.kind == "accepted":
            mark, identity = event.fields["mark"], event.fields["id"]
            if mark <= covered:
                found[identity] = event.end
            else:
                waiting.append((mark, identity))
        elif event.kind == "flush-end":
            covered = event.fields["mark"]
            found.update({identity: event.end for mark, identity in waiting if mark <= covered})
            waiting = [(mark, identity) for mark, identity in waiting if mark > covered]
    return found


def last_finished_flush(events: list[Event]) -> tuple[int, dict[str, int]]:
    """Mark of the last flush that ended, and the sizes in bytes of the log files when it began."""
    begun: dict[int, dict[str, int]] = {}
    last: tuple[int, dict[str, int]] = (-1, {})
    for event in events:
        if event.kind == "flush-begin":
            begun[event.fields["mark"]] = event.fields["sizes"]
        elif event.kind == "flush-end":
            last = (event.fields["mark"], begun[event.fields["mark"]])
    return last
