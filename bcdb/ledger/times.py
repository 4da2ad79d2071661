"""How the times of blocks are written as text. Nothing here reads a clock."""

import time


def rfc3339(time_ns: int) -> str:
    """UTC with nine decimals, e.g. `2025-01-31T12:00:00.000000001Z`, from ns since the epoch (RFC 3339)."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"
