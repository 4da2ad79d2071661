"""What the code offers, for the tests that compare the documentation with it: commands, routes, metrics.

Everything is read from the code itself, so nothing here is ever a list of its own.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from bcdb.cli.app import app
from bcdb.http.framework import make_framework

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
METRIC_MAKERS = {"Counter", "Gauge", "Histogram", "CounterMetricFamily", "GaugeMetricFamily"}


def _commands(group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


def commands() -> dict[str, Any]:
    """The commands that do something, by their words: `bcdb tx create`."""
    group = typer.main.get_command(app)
    return {" ".join(path): command for path, command in _commands(group, ("bcdb",))}


def routes() -> dict[tuple[str, str], dict[str, Any]]:
    """The operations of the OpenAPI document by path and method."""
    document: dict[str, Any] = make_framework(None).openapi_schema.to_schema()
    return {
        (path, method.upper()): operation
        for path, operations in sorted(document["paths"].items())
        for method, operation in operations.items()
    }


def metrics() -> dict[str, tuple[str, str]]:
    """Kind and help of each metric that the code makes, by the name under which it is scraped."""
    found = {}
    for path in sorted((ROOT / "bcdb").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            maker = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if not isinstance(node, ast.Call) or maker not in METRIC_MAKERS or len(node.args) < 2:
                continue
            name, text = node.args[0], node.args[1]
            if isinstance(name, ast.Constant) and isinstance(text, ast.Constant):
                kind = maker.removesuffix("MetricFamily").lower()
                suffix = "_total" if kind == "counter" else ""
                found[f"{name.value}{suffix}"] = (kind, str(text.value))
    return found
