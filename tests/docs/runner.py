"""Runs the examples of a page in order, in a folder of their own, against a real node.

What a shell example exports or sets, the next one has; Python examples share their names. Addresses are those
of the page with the ports of the node under test, and `curl` is a stand-in. Only processes that an example
has started are ended.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.docs.examples import Example, difference
from tests.support import curl
from tests.support.nodejs import environment as node_environment
from tests.support.nodejs import node_path
from tests.support.server import BCDB

EXAMPLE_S_MAX = 60
STATE = ".variables"
SHELL = f"set -a; [ ! -f {STATE} ] || . ./{STATE}\n%s\nexport -p > {STATE}\n"


class Runner:
    """The examples of one page. `ports` maps the ports that pages name to those that are there."""

    def __init__(self, folder: Path, ports: Mapping[int, int], node: str) -> None:
        self._folder = folder
        self._ports = ports
        self._names: dict[str, Any] = {"__name__": "__example__"}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BCDB_")}
        programs = (curl.install(folder / ".bin"), BCDB.parent, Path(sys.executable).parent)
        path = os.pathsep.join([*map(str, programs), os.environ["PATH"]])
        self._environment = {**inherited, "PATH": path, "BCDB_NODE": node, "COLUMNS": "200"}

    def here(self, text: str) -> str:
        """The text of a page with the addresses of the nodes under test."""
        for told, real in self._ports.items():
            text = re.sub(rf"\blocalhost:{told}\b", f"127.0.0.1:{real}", text)
            text = re.sub(rf"\b{told}\b", str(real), text)
        return text

    def run(self, example: Example) -> str:
        """Run one example; returns what is wrong, "" if nothing is."""
        code = self.here(example.code)
        if example.kind == "python run":
            said, problem = self._python(code, example)
        else:
            said, problem = self._process(code, example)
        shown = Example(example.kind, code, example.line, example.answer_kind, self.here(example.answer))
        return problem or difference(shown, said)

    def _python(self, code: str, example: Example) -> tuple[str, str]:
        said = io.StringIO()
        # Blank lines in front give a traceback the line numbers of the page.
        program = compile("\n" * example.line + code, "example", "exec")
        with contextlib.chdir(self._folder), contextlib.redirect_stdout(said):
            exec(program, self._names)
        return said.getvalue(), ""

    def _process(self, code: str, example: Example) -> tuple[str, str]:
        if example.kind == "js run":
            command = [str(node_path()), "-e", code]
            environment = {**node_environment(), **self._environment}
        else:
            command = ["sh", "-euc", SHELL % code]
            environment = self._environment
        out, err = self._folder / ".out", self._folder / ".err"
        together = example.answer_kind == "text"
        with out.open("wb") as to_out, err.open("wb") as to_err:
            process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=to_out,
                stderr=subprocess.STDOUT if together else to_err,
                start_new_session=True,
            )
            try:
                code_seen = process.wait(EXAMPLE_S_MAX)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said, noted = out.read_text(errors="replace"), err.read_text(errors="replace")
        if (code_seen != 0) != (example.kind == "sh fails"):
            return said, f"ended with {code_seen}:\n{said}{noted}"
        return said, ""
