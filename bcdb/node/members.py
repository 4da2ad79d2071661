"""The members' file: who may connect to this node, and whose bundles it takes, with a quota for each.

It is this node's own opinion and no part of the consensus: it decides whom the node listens to, never what a
block does. It is read again when it has changed; a file that can't be understood leaves the last good one in
force.
"""

import os
import re
import time
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import structlog

from bcdb.model import limits
from bcdb.model.errors import BcdbError, SettingsError
from bcdb.model.keys import decode_key

MEMBERS_FILE = "members.toml"
LOOK_S = 1.0
"""Between two looks at the file's date."""
MEBIBYTE = 1024 * 1024
_NODE_ID = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[\w.-]{1,40}", re.ASCII)
_ADDRESS = re.compile(r"[^\s/@,\"'\\]{1,255}:\d{1,5}", re.ASCII)

log = structlog.get_logger(__name__)


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One node of the network.

    `node_id`: 40 hex digits, who it is among peers. `key`: base58, signs its bundles; "" if it sends none.
    `address`: `host:port` where it listens for peers; "" if it only dials others. `quota_mb`: MiB of its
    bundles that may wait at this node at a time.
    """

    name: str
    node_id: str
    key: str = ""
    address: str = ""
    quota_mb: int = limits.SUBMITTER_QUOTA_MB

    @property
    def quota_bytes(self) -> int:
        return self.quota_mb * MEBIBYTE


class _File(msgspec.Struct, forbid_unknown_fields=True):
    members: list[Member]


class Members:
    """All members, checked: no two share a name, a node id or a key. Raises `SettingsError`."""

    def __init__(self, members: Iterable[Member]) -> None:
        self.all = tuple(members)
        if len(self.all) > limits.MEMBERS_MAX:
            raise SettingsError(f"A network has at most {limits.MEMBERS_MAX} members, not {len(self.all)}.")
        for member in self.all:
            _check(member)
        self.by_node_id = {member.node_id: member for member in self.all}
        self._by_key = {decode_key(member.key): member for member in self.all if member.key}
        keys = sum(bool(member.key) for member in self.all)
        names = {member.name for member in self.all}
        if len(self.by_node_id) < len(self.all) or len(self._by_key) < keys or len(names) < len(self.all):
            raise SettingsError("Two members share a name, a node_id or a key; each has its own.")

    def may_peer(self, node_id: str) -> bool:
        return node_id in self.by_node_id

    def submitter(self, key: bytes) -> Member | None:
        """The member whose bundles this raw key signs."""
        return self._by_key.get(key)


def read_members(path: Path) -> Members:
    """The members in a file. Raises `SettingsError`."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return Members(msgspec.convert(content, _File).members)
    except FileNotFoundError:
        raise SettingsError(f"The members' file {path} is missing; `bcdb network join` makes it.") from None
    except OSError as error:
        raise SettingsError(f"The members' file {path} can't be read: {error.strerror}.") from None
    except (ValueError, msgspec.ValidationError) as error:
        raise SettingsError(f"The members' file {path} can't be used: {error}.") from None
    except SettingsError as error:
        raise SettingsError(f"The members' file {path} can't be used: {error.text}") from None


def members_file(members: Iterable[Member]) -> str:
    """The text of a members' file."""
    lines = [
        "# Who may connect to this node (node_id), and whose bundles it takes (key), with at most quota_mb",
        "# MiB of each waiting. The node reads it again when it changes; new addresses are dialled from its",
        "# next start on.",
    ]
    for member in members:
        lines += ["", "[[members]]"]
        lines += [f'{name} = "{value}"' for name, value in _texts(member) if value]
        lines.append(f"quota_mb = {member.quota_mb}")
    return "\n".join([*lines, ""])


class MembersFile:
    """The members of the file at `path` as it is now. Raises `SettingsError` if it is no good to begin
    with."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._seen = _version(path)
        self._members = read_members(path)
        self._look_s = clock() + LOOK_S

    @property
    def current(self) -> Members:
        now_s = self._clock()
        if now_s >= self._look_s:
            self._look_s = now_s + LOOK_S
            seen = _version(self._path)
            if seen != self._seen:
                self._seen = seen
                try:
                    self._members = read_members(self._path)
                    log.info("members read again", members=len(self._members.all))
                except BcdbError as error:
                    log.error("the members stay as they were", reason=error.text)
        return self._members


def _version(path: Path) -> tuple[int, int, int]:
    try:
        about = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (about.st_mtime_ns, about.st_ino, about.st_size)


def _texts(member: Member) -> list[tuple[str, str]]:
    return [
        ("name", member.name),
        ("node_id", member.node_id),
        ("key", member.key),
        ("address", member.address),
    ]


def _check(member: Member) -> None:
    if not _NAME.fullmatch(member.name):
        raise SettingsError(
            f"A member's name has 1 to 40 letters, digits, '.', '_' and '-', not {member.name[:80]!r}."
        )
    if not _NODE_ID.fullmatch(member.node_id):
        raise SettingsError(f"The node_id of {member.name} has not 40 hex digits in small letters.")
    if member.address and (
        not _ADDRESS.fullmatch(member.address) or int(member.address.rpartition(":")[2]) > 65_535
    ):
        raise SettingsError(
            f"The address of {member.name} is like example.org:26656, not {member.address[:80]!r}."
        )
    if not limits.SUBMITTER_QUOTA_MB_MIN <= member.quota_mb <= limits.SUBMITTER_QUOTA_MB_MAX:
        raise SettingsError(
            f"The quota_mb of {member.name} is {limits.SUBMITTER_QUOTA_MB_MIN} to "
            f"{limits.SUBMITTER_QUOTA_MB_MAX}, not {member.quota_mb}."
        )
    if member.key:
        try:
            decode_key(member.key)
        except BcdbError as error:
            raise SettingsError(f"The key of {member.name} is no public key: {error.text}") from None
