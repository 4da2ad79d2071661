"""The tests of docker/: those that need an engine run with `--long` only; a missing engine then fails them.

The engine, the images and the composed node are made once for all of them and taken down at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker import images
from tests.docker.composed import Composed
from tests.docker.engine import Engine, engine_at_hand

NEEDS_ENGINE = {"test_image.py", "test_compose.py"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    here = Path(__file__).parent
    left_out = [item for item in items if item.path.parent == here and item.path.name in NEEDS_ENGINE]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with engine_at_hand() as found:
        yield found


@pytest.fixture(scope="session")
def base_image(engine: Engine) -> Iterator[str]:
    with images.base(engine) as name:
        yield name


@pytest.fixture(scope="session")
def node_image(engine: Engine, base_image: str) -> Iterator[str]:
    with images.node(engine, base_image) as name:
        yield name


@pytest.fixture(scope="session")
def mongo_image(engine: Engine, base_image: str) -> Iterator[str]:
    with images.mongo(engine, base_image) as name:
        yield name


@pytest.fixture(scope="session")
def composed(engine: Engine, node_image: str, mongo_image: str) -> Iterator[Composed]:
    with Composed(engine, node_image=node_image, mongo_image=mongo_image) as running:
        yield running
