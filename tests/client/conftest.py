"""Both clients, so that one test holds for either."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.client.answers import Caller


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def client(request: pytest.FixtureRequest) -> Callable[..., Caller]:
    """Makes a `Caller` of a script or a network."""
    return lambda script, *urls, **more: Caller(script, *urls, is_async=request.param, **more)
