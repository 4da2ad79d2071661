"""Changes one node's own members' file while it may be running, as its operator would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bcdb.node.members import MEMBERS_FILE, Member, members_file, read_members


def members_of(home: Path) -> tuple[Member, ...]:
    return read_members(home / MEMBERS_FILE).all


def write_members(home: Path, *members: Member) -> None:
    """The file is replaced as a whole: no one ever reads a part of it."""
    fresh = home / f".{MEMBERS_FILE}.new"
    fresh.write_text(members_file(members))
    fresh.rename(home / MEMBERS_FILE)


def change_members(home: Path, change: Callable[[Member], Member | None]) -> None:
    """Each member becomes what `change` makes of it; it goes where that is None."""
    changed = [change(member) for member in members_of(home)]
    write_members(home, *[member for member in changed if member is not None])
