"""Imports run down and only down: this test reads every import and fails on any arrow not listed here.

Relative imports and imports inside functions count like any other; so does `importlib.import_module("...")`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bcdb", "consensus", "query")

ALLOWED: dict[str, frozenset[str]] = {
    "bcdb": frozenset(),
    "bcdb.model": frozenset(),
    "bcdb.ledger": frozenset({"bcdb.model"}),
    "bcdb.node": frozenset({"bcdb.ledger", "bcdb.model", "consensus", "query"}),
    "bcdb.client": frozenset({"bcdb.model"}),
    "bcdb.http": frozenset({"bcdb.node", "bcdb.ledger", "bcdb.model", "query"}),
    "bcdb.cli": frozenset({"bcdb.client", "bcdb.node", "bcdb.ledger", "bcdb.model", "consensus", "query"}),
    "consensus": frozenset(),
    "query": frozenset(),
}
"""Layer → the other layers it may import. All of it may import the bare `bcdb`: it holds the version only."""

DOING_IO = frozenset(
    {
        "aiohttp",
        "asyncio",
        "fcntl",
        "glob",
        "http",
        "httpx",
        "io",
        "litestar",
        "logging",
        "mmap",
        "multiprocessing",
        "os",
        "pathlib",
        "prometheus_client",
        "pymongo",
        "rocksdict",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "sqlite3",
        "ssl",
        "structlog",
        "subprocess",
        "tempfile",
        "threading",
        "urllib",
        "uvicorn",
        "uvloop",
        "websockets",
    }
)
KNOWING_THE_HOUR = frozenset({"datetime", "random", "secrets", "time", "uuid", "zoneinfo"})
PURE: dict[str, frozenset[str]] = {
    "bcdb.model": DOING_IO | KNOWING_THE_HOUR - {"secrets"},
    "bcdb.ledger.apply": DOING_IO | KNOWING_THE_HOUR,
    "bcdb.ledger.merkle": DOING_IO | KNOWING_THE_HOUR,
    "bcdb.ledger.apphash": DOING_IO | KNOWING_THE_HOUR,
    "bcdb.ledger.operations": DOING_IO | KNOWING_THE_HOUR,
}
"""Module prefix → what must not be imported there; `secrets` is for making new keys."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything imported; `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = module.split(".")
                up = up[: len(up) - node.level + (1 if is_package else 0)]
                base = ".".join([*up, base] if base else up)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        elif isinstance(node, ast.Call) and _callee(node.func) in ("import_module", "__import__"):
            target = node.args[0] if node.args else None
            if not (isinstance(target, ast.Constant) and isinstance(target.value, str)):
                raise AssertionError(f"{module}:{node.lineno}: an import whose name this test can't read")
            yield node.lineno, target.value


def _callee(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def layer_of(name: str) -> str | None:
    """The layer that a dotted name belongs to, or None for what is not ours."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return None
    if parts[0] != "bcdb":
        return parts[0]
    if parts[1:2] == ["__main__"]:
        return "bcdb.cli"
    two = ".".join(parts[:2])
    if two in ALLOWED:
        return two
    return "bcdb"


def wrong_arrows(source: str, module: str, is_package: bool = False) -> list[str]:
    found = []
    layer = layer_of(module)
    assert layer is not None
    forbidden = frozenset().union(
        *(names for prefix, names in PURE.items() if f"{module}.".startswith(f"{prefix}."))
    )
    for line, name in imported(ast.parse(source), module, is_package):
        target = layer_of(name)
        if target not in (None, layer, "bcdb") and target not in ALLOWED[layer]:
            found.append(f"{module}:{line}: {layer} must not import {name}")
        if target == "bcdb" and layer in ("consensus", "query"):
            found.append(f"{module}:{line}: {layer} must not import {name}")
        if name.split(".")[0] in forbidden:
            found.append(f"{module}:{line}: {module} is pure and must not import {name}")
    return found


def test_every_import_runs_down() -> None:
    found = [
        arrow
        for path in modules()
        for arrow in wrong_arrows(path.read_text(), module_name(path), path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


def test_every_package_of_bcdb_has_its_place() -> None:
    seen = {f"bcdb.{path.name}" for path in (ROOT / "bcdb").iterdir() if (path / "__init__.py").is_file()}
    assert seen <= set(ALLOWED), "a new package needs its arrows in ALLOWED"
    loose = {path.name for path in (ROOT / "bcdb").glob("*.py")} - {"__init__.py", "__main__.py"}
    assert not loose, "a module belongs to a layer"


def test_the_allowed_arrows_have_no_circle() -> None:
    left = dict(ALLOWED)
    while left:
        lowest = [layer for layer, below in left.items() if not below & left.keys()]
        assert lowest, f"a circle among {sorted(left)}"
        for layer in lowest:
            del left[layer]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("bcdb.model.keys", "import bcdb.ledger"),
        ("bcdb.model.keys", "from ..ledger import Ledger"),
        ("bcdb.model.keys", "def f():\n    from bcdb.node import link"),
        ("bcdb.model.keys", "import time"),
        ("bcdb.ledger.store", "import importlib\nimportlib.import_module('bcdb.node.link')"),
        ("bcdb.ledger.apply", "from os import path"),
        ("bcdb.ledger.operations.create", "import rocksdict"),
        ("bcdb.ledger.store", "import consensus.engine"),
        ("bcdb.client.sync", "from bcdb.ledger import Ledger"),
        ("bcdb.http.app", "from bcdb import cli"),
        ("bcdb.cli.app", "import bcdb.http.worker"),
        ("consensus.solo", "from bcdb import __version__"),
        ("consensus.solo", "import query"),
        ("query.sqlite", "import consensus.engine"),
        ("query.sqlite", "from bcdb.model import errors"),
    ],
)
def test_a_wrong_arrow_is_found(module: str, source: str) -> None:
    assert wrong_arrows(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("bcdb.node.process", "from bcdb.ledger import Ledger\nimport consensus.solo, query.store, os"),
        ("bcdb.http.app", "from bcdb import __version__\nfrom bcdb.node.link import NodeLink"),
        ("bcdb.ledger.store", "from .apply import apply\nimport rocksdict"),
    ],
)
def test_a_right_arrow_is_not_blamed(module: str, source: str) -> None:
    assert not wrong_arrows(source, module)
