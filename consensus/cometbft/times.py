"""Times as CometBFT writes them in JSON: RFC 3339 with up to nine digits of a second.

Python's own dates stop at microseconds, so the fraction is handled as the digits that it is.
"""

import re
from datetime import UTC, datetime

_NS = 1_000_000_000
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


def to_text(time_ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC, without zeros at the end of the fraction."""
    seconds, ns = divmod(time_ns, _NS)
    whole = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    fraction = f".{ns:09d}".rstrip("0") if ns else ""
    return f"{whole}{fraction}Z"


def from_text(text: str) -> int:
    """Nanoseconds since the epoch; negative before it. Raises `ValueError` for any other text."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:64]!r} is no time of RFC 3339")
    whole, fraction, offset = found.groups()
    seconds = int(datetime.fromisoformat(whole + ("+00:00" if offset == "Z" else offset)).timestamp())
    return seconds * _NS + int((fraction or "").ljust(9, "0"))
