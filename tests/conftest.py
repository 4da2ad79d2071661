"""Options of the whole test suite. Fixtures live with the tests that use them."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long",
        action="store_true",
        help="hours of kills and partitions instead of minutes, and containers (tests/docker)",
    )
    parser.addoption(
        "--rewrite-scenarios", action="store_true", help="write what is seen into tests/scenarios"
    )
