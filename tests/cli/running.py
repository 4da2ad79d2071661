"""Runs commands of `bcdb` in this process, as somebody types them."""

from pathlib import Path
from typing import Any

import msgspec
from click.testing import Result
from typer.testing import CliRunner

from bcdb.cli.app import app


def run(*arguments: str | Path, environment: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment or {})


def succeed(*arguments: str | Path, environment: dict[str, str] | None = None) -> str:
    """Standard output of a command that must succeed."""
    done = run(*arguments, environment=environment)
    assert done.exit_code == 0, done.output
    return done.stdout


def json_of(*arguments: str | Path) -> Any:
    return msgspec.json.decode(succeed(*arguments, "--json"))


def fail(*arguments: str | Path, environment: dict[str, str] | None = None, code: int = 1) -> str:
    """The one sentence of a command that must fail with this exit code."""
    done = run(*arguments, environment=environment)
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("Error: ")
    return lines[0]
