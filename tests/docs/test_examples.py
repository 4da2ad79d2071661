"""The examples of README.md and docs/ run in order against one real node and print what the page says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bcdb.node.settings import read_config
from tests.docs.examples import ANSWERS, RUN, SHOWN, examples_of, fences
from tests.docs.runner import Runner
from tests.support.server import Server, free_ports

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_EXAMPLES = [page for page in PAGES if examples_of(page.read_text())]
WRITTEN_FOR_THIS = {"api.md", "client.md", "cluster.md", "operating.md", "query.md"}
"""Pages whose every fence must be one of the known kinds, so that none is left out by a slip."""


WITH_MONGODB = {"query.md"}
"""Pages whose node has been started with `--mongo`; it is theirs alone, as they count what is in it."""


@pytest.fixture(scope="module")
def plain_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("docs") / "node", workers=1) as running:
        yield running


@pytest.fixture
def node(page: Path, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    if page.name not in WITH_MONGODB:
        yield request.getfixturevalue("plain_node")
        return
    with Server(tmp_path / "node", workers=1, flags=("--mongo",)) as running:
        yield running
        assert running.stop() == 0


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.name)
def test_the_examples_of_a_page_work(page: Path, node: Server, tmp_path: Path) -> None:
    second, second_streams = free_ports()
    ports = {9984: node.port, 9985: node.stream_port, 9994: second, 9995: second_streams}
    runner = Runner(tmp_path, ports, node.url)
    for example in examples_of(page.read_text()):
        wrong = runner.run(example)
        assert not wrong, f"{page.name}:{example.line}: {wrong}"


def test_every_page_with_examples_is_run() -> None:
    assert {page.name for page in WITH_EXAMPLES} >= WRITTEN_FOR_THIS


@pytest.mark.parametrize("name", sorted(WRITTEN_FOR_THIS))
def test_no_fence_is_left_out(name: str) -> None:
    known = RUN | ANSWERS | SHOWN
    assert not [
        (line, info) for info, _, line in fences((ROOT / "docs" / name).read_text()) if info not in known
    ]


def test_settings_that_are_shown_can_be_read(tmp_path: Path) -> None:
    shown = [code for page in PAGES for info, code, _ in fences(page.read_text()) if info == "toml settings"]
    assert shown
    for number, code in enumerate(shown):
        path = tmp_path / f"{number}.toml"
        path.write_text(code)
        assert read_config(path)
