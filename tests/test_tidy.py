"""What a machine can check of how files are written here: docstrings, lengths, leftovers, names of places.

It reads the tree as it lies there and must never depend on git, so that it also runs in an unpacked archive.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOT_OURS = {".git", ".venv", "build", "dist", "data", "node_modules", "__pycache__"}
CODE = ("bcdb", "consensus", "query", "tests", "benchmarks", "docker")
LINES_MAX = 500
LINE_CHARS_MAX = 160
"""For prose, tables apart; the width of Python is ruff's business."""
GENERATED = {"tests/npm/package-lock.json", "LICENSE", "constraints.txt"}

LEFTOVERS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")
EXCUSES = {"skip", "skipif", "xfail", "importorskip"}
PLACES = re.compile(
    "|".join(
        [
            r"(?:registry|registry-1)\.(?:npm" + r"js|dock" + r"er|yarn" + r"pkg)\.",
            "py" + r"pi\.org",
            "python" + r"hosted\.org",
            "proxy" + r"\.golang\.org",
            r"(?<![\w./-])/(?:ro" + r"ot|wo" + r"rk|ho" + r"me/\w+|Us" + r"ers/\w+)/",
            "/opt/" + "wheels",
        ]
    )
)
"""Hosts of package registries and paths of somebody's machine: neither belongs into a project."""


def files() -> Iterator[Path]:
    for folder, below, names in os.walk(ROOT):
        below[:] = sorted(
            name
            for name in below
            if name not in NOT_OURS and not name.endswith((".egg-info", "_cache")) and name != ".hypothesis"
        )
        for name in sorted(names):
            yield Path(folder) / name


def sources() -> list[Path]:
    return [path for path in files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in CODE]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_files() -> Iterator[tuple[Path, str]]:
    for path in files():
        raw = path.read_bytes()
        if b"\0" not in raw[:8192] and relative(path) not in GENERATED:
            yield path, raw.decode()


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if tree.body:
        assert ast.get_docstring(tree), "a module opens with what it is for and what it must never do"


def test_no_file_is_too_long() -> None:
    long = {
        relative(path): count for path in sources() if (count := path.read_text().count("\n")) > LINES_MAX
    }
    assert not long, f"more than {LINES_MAX} lines; one subject a file: {long}"


def test_nothing_is_left_for_later() -> None:
    found = [
        f"{relative(path)}:{number}: {line.strip()}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if LEFTOVERS.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_test_is_excused() -> None:
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            owner = ast.unparse(node.value) if isinstance(node, ast.Attribute) else ""
            if (
                isinstance(node, ast.Attribute)
                and node.attr in EXCUSES
                and owner in ("pytest", "pytest.mark", "unittest")
            ):
                found.append(f"{relative(path)}:{node.lineno}: {owner}.{node.attr}")
    assert not found, "\n".join(found)


def test_no_place_of_this_or_that_machine_is_named() -> None:
    found = [
        f"{relative(path)}:{number}: {seen.group()}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if (seen := PLACES.search(line))
    ]
    assert not found, "\n".join(found)


def test_text_is_plain() -> None:
    found = []
    for path, text in text_files():
        if text and not text.endswith("\n"):
            found.append(f"{relative(path)}: no end of line at the end")
        for number, line in enumerate(text.splitlines(), 1):
            if line != line.rstrip() and path.suffix != ".txt":
                found.append(f"{relative(path)}:{number}: blanks at the end")
            wide = len(line) > LINE_CHARS_MAX and not line.startswith("|")
            if wide and path.suffix in (".md", ".toml", ".sh"):
                found.append(f"{relative(path)}:{number}: {len(line)} characters")
    assert not found, "\n".join(found)


def test_every_package_is_one() -> None:
    """A folder of tests or code without `__init__.py` would be read as a namespace and hide doubled names."""
    missing = {
        relative(path.parent)
        for path in sources()
        if path.parent.relative_to(ROOT).parts[0] in ("bcdb", "consensus", "query", "tests")
        and not (path.parent / "__init__.py").is_file()
    }
    assert not missing
