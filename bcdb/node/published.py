"""The published height in a few bytes of memory that all processes of a node share.

A worker learns of a new height from its link, but a request may reach it a moment before the link does.
What one worker has answered for must not be unknown to the next, so a read first looks here, and waits for
its link to say as much.
"""

import mmap
import os
from pathlib import Path

_BYTES = 8


class PublishedHeight:
    """One aligned integer in a mapped file, written by the node process before it answers anybody."""

    def __init__(self, path: Path, *, writes: bool) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC if writes else os.O_RDONLY | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            if writes:
                os.ftruncate(descriptor, _BYTES)
            access = mmap.ACCESS_WRITE if writes else mmap.ACCESS_READ
            self._map = mmap.mmap(descriptor, _BYTES, access=access)
        finally:
            os.close(descriptor)
        self._cells = memoryview(self._map).cast("Q")

    @property
    def value(self) -> int:
        return self._cells[0]

    @value.setter
    def value(self, height: int) -> None:
        self._cells[0] = height


def published_path(socket_path: Path) -> Path:
    """Where the height stands: beside the node's socket."""
    return socket_path.with_suffix(".height")
