"""What the README tells a newcomer to type, typed: its shell lines and its Python, against a real node."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.support import curl
from tests.support.server import BCDB, Server

README = Path(__file__).resolve().parents[2] / "README.md"
DEFAULT = "http://localhost:9984"


def blocks(text: str) -> list[str]:
    """The indented blocks of a Markdown text."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("    ") or (not line.strip() and found[-1]):
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [textwrap.dedent("\n".join(lines)).strip() for lines in found if lines]


def test_what_to_try_next_works(server: Server, tmp_path: Path) -> None:
    text = README.read_text().replace(DEFAULT, server.url).replace(".venv/bin/bcdb", str(BCDB))
    shell = next(block for block in blocks(text) if "keys new" in block)
    python = next(block for block in blocks(text) if "import Client" in block)
    path = f"{curl.install(tmp_path / '.bin')}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "BCDB_NODE": server.url, "PATH": path}
    for command in (["sh", "-ec", shell], [sys.executable, "-c", python]):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert "b-0001" in done.stdout or "committed" in done.stdout, done.stdout
