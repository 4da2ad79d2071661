"""`bcdb query` against a node that tells what a test wants: what is shown, and when a rebuild is over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from bcdb.cli import querying
from bcdb.client import Client, Unreachable
from bcdb.client.results import Building, StoreStatus
from bcdb.model.errors import Unavailable
from bcdb.node.settings import Settings

READY = StoreStatus("sqlite", 7, 7, 0, True, {"assets": 2})


class Told:
    """A client whose store is as a list says, one entry a call; the last one for ever."""

    url = "http://node"

    def __init__(self, *told: StoreStatus | Exception | Callable[[], StoreStatus]) -> None:
        self._told = list(told)
        self.calls = 0

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *error: object) -> None: ...

    def node(self) -> Told:
        return self

    def store(self) -> StoreStatus:
        self.calls += 1
        told = self._told.pop(0) if len(self._told) > 1 else self._told[0]
        if isinstance(told, Exception):
            raise told
        return told if isinstance(told, StoreStatus) else told()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(querying, "POLL_S", 0.0)


def follow(client: Told, settings: Settings) -> StoreStatus:
    return querying._follow(cast(Client, client), settings)


def test_a_rebuild_is_followed_to_its_end(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    settings.rebuild_request_path.touch()
    begun = StoreStatus("sqlite", 0, 9, 9, True, {}, Building(0, 8))

    def begin() -> StoreStatus:
        settings.rebuild_request_path.unlink()
        return READY

    under_way = StoreStatus("sqlite", 5, 9, 4, True, {}, Building(5, 8))
    done = StoreStatus("sqlite", 8, 9, 1, True, {})
    # What is told before the request is gone is still the old store's.
    client = Told(READY, Unavailable("away"), Unreachable("gone"), READY, begin, begun, under_way, done)
    assert follow(client, settings) == done
    assert client.calls == 8


def test_a_node_that_stays_away_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(querying, "SILENCE_S_MAX", 0.05)
    with pytest.raises(Unavailable, match="away"):
        follow(Told(Unavailable("away")), Settings(home=tmp_path))


def test_a_store_that_hangs_is_not_told_as_a_node_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(querying, "connect", lambda *_, **__: Told(Unreachable("timed out")))
    with pytest.raises(Unavailable, match="The node http://node answers, but its query store has not"):
        querying.show_status(None, None, as_json=False)


def test_the_status_tells_of_what_is_being_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    building = StoreStatus("mongodb", 3, 9, 6, False, {"assets": 2}, Building(3, 8))

    def connect(*_: Any, **__: Any) -> Told:
        return Told(building)

    monkeypatch.setattr(querying, "connect", connect)
    querying.show_status(None, None, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "http://node: mongodb",
        "  height       3",
        "  ledger       9, 6 blocks ahead",
        "  words        can not be searched for",
        "  building     block 3 of 8; until then it answers nothing",
        "  assets       2",
    ]
