"""The network that the tests of this package share: four validators and an observer.

Each test leaves it whole: all nodes run, agree, and have nothing pending. In the end all are stopped and
every ledger is examined.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.cluster.scene import Cluster, assert_no_engine_left

VALIDATORS, OBSERVERS = 4, 1
OBSERVER = 4
"""The number of the node that does not vote."""


@pytest.fixture(scope="package")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster") / "net", VALIDATORS, OBSERVERS) as running:
        yield running
        running.stop()
        running.assert_clean(*range(VALIDATORS + OBSERVERS))
        assert_no_engine_left(running.layout.folder)


@pytest.fixture
def net(network: Cluster) -> Iterator[Cluster]:
    """The network with all its nodes up, and whole again after the test."""
    network.restart_if_ended()
    yield network
    network.assert_whole()
