"""How many requests a second one client address may make, counted over all workers of the node together.

The counts lie in one small file that every worker maps into its memory, so the bound holds whichever worker a
connection reaches. Its size never changes; two addresses that fall into one slot share its bound. A lost
update between two workers forgives a request and does no harm. Nothing here may block.
"""

import fcntl
import hashlib
import ipaddress
import math
import mmap
import os
import time
from pathlib import Path

from bcdb.model import limits

_KEY_BYTES = 16
_HEADER_BYTES = 64
_SLOT_BYTES = 16
_FILE_BYTES = _HEADER_BYTES + limits.RATE_SLOTS * _SLOT_BYTES
_CACHED_ADDRESSES_MAX = 4_096


class RateLimit:
    """A token bucket for each client address: `rate` requests a second, bursts of as many.

    `path` is the file that the workers share; it is made when it is missing. `rate` 0 lets everybody through.
    Loopback addresses are exempt, since a reverse proxy in front of the node stands there. Times are those of
    the system's monotonic clock, which all processes of a machine share.
    """

    def __init__(self, path: Path, rate: int) -> None:
        self._rate = float(rate)
        self._places: dict[str, int] = {}
        self._map: mmap.mmap | None = None
        if rate:
            self._map = _map_file(path)
            view = memoryview(self._map)
            self._key = bytes(view[:_KEY_BYTES])
            self._slots = view[_HEADER_BYTES:].cast("d")

    def wait_s(self, address: str) -> int:
        """Count one request; 0 if it may pass, else the whole seconds after which to try again."""
        if self._map is None:
            return 0
        place = self._places.get(address)
        if place is None:
            place = self._place(address)
        if place < 0:
            return 0
        slots, now, rate = self._slots, time.monotonic(), self._rate
        tokens, seen = slots[place], slots[place + 1]
        # A slot that was never used, or was written before the machine started anew, is full.
        tokens = rate if not 0.0 < seen <= now else min(rate, tokens + (now - seen) * rate)
        slots[place + 1] = now
        if tokens < 1.0:
            slots[place] = tokens
            return max(1, math.ceil((1.0 - tokens) / rate))
        slots[place] = tokens - 1.0
        return 0

    def close(self) -> None:
        if self._map is not None:
            self._slots.release()
            self._map = None

    def _place(self, address: str) -> int:
        """Index of the slot, -1 if the address is exempt. An IPv6 network of 64 bits has one slot."""
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            identity = address.encode("utf-8", "replace")
        else:
            if isinstance(ip, ipaddress.IPv6Address):
                ip = ip.ipv4_mapped or ip
            network = ip.packed if ip.version == 4 else ip.packed[:8]
            identity = b"" if ip.is_loopback else network
        place = -1
        if identity:
            digest = hashlib.blake2b(identity, key=self._key, digest_size=8).digest()
            place = int.from_bytes(digest, "big") % limits.RATE_SLOTS * 2
        if len(self._places) >= _CACHED_ADDRESSES_MAX:
            self._places.clear()
        self._places[address] = place
        return place


def _map_file(path: Path) -> mmap.mmap:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_size != _FILE_BYTES:
            # The secret keeps strangers from choosing addresses that share somebody's slot.
            os.ftruncate(handle, 0)
            os.ftruncate(handle, _FILE_BYTES)
            os.pwrite(handle, os.urandom(_KEY_BYTES), 0)
        mapped = mmap.mmap(handle, _FILE_BYTES)
        # The map holds a copy of the descriptor, with which the lock would live on.
        fcntl.flock(handle, fcntl.LOCK_UN)
        return mapped
    finally:
        os.close(handle)
