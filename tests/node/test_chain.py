"""What a genesis says to the ledger, and what of it must fit."""

from typing import Any

import msgspec
import pytest

from bcdb.ledger import Head
from bcdb.model import limits
from bcdb.node.chain import GenesisError, app_state, check_app_state, read_app_state

HEAD = Head(7, 1, b"hash", bytes(range(32)), 3)


def changed(**values: Any) -> bytes:
    return msgspec.json.encode({**msgspec.json.decode(app_state(HEAD)), **values})


def test_a_ledger_fits_what_was_made_from_it() -> None:
    check_app_state(app_state(HEAD), 8, HEAD)
    check_app_state(msgspec.json.format(app_state(HEAD)), 8, HEAD)
    assert read_app_state(app_state(HEAD)).height == 7


@pytest.mark.parametrize(
    "values",
    [
        {"height": 6},
        {"app_hash": "00" * 32},
        {"format": 2},
        {"limits": limits.VERSION + 1},
        {"block_bytes_max": 1},
        {"bundle_signatures_max": limits.BUNDLE_SIGNATURES_MAX + 1},
        {"unknown": 1},
        {"height": "7"},
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(GenesisError):
        check_app_state(changed(**values), 8, HEAD)


def test_heights_must_follow() -> None:
    for height in (1, 7, 9):
        with pytest.raises(GenesisError, match="begins with the next"):
            check_app_state(app_state(HEAD), height, HEAD)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"a":1}'])
def test_what_is_no_app_state(content: bytes) -> None:
    with pytest.raises(GenesisError):
        read_app_state(content)
