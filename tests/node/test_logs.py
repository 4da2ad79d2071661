"""Log lines of bcdb and of libraries come out in one shape."""

import json
import subprocess
import sys
from pathlib import Path

from bcdb.node.settings import read_settings

PROGRAM = """
import logging, sys
from pathlib import Path
import structlog
from bcdb.node import logs
from bcdb.node.settings import Settings
logs.configure(Settings.load(Path(sys.argv[1])), process="worker-7")
log = structlog.get_logger()
log.info("took", count=3)
log.debug("not shown")
logging.getLogger("library").warning("%s is odd", "this")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
"""


def _lines(tmp_path: Path, **flags: str) -> list[str]:
    read_settings(tmp_path, flags, {}).dump(tmp_path / "settings.json")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "settings.json")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_json(tmp_path: Path) -> None:
    took, odd, failed = (json.loads(line) for line in _lines(tmp_path, log_format="json"))
    assert (took["event"], took["level"], took["count"], took["process"]) == ("took", "info", 3, "worker-7")
    assert (odd["event"], odd["level"], odd["process"]) == ("this is odd", "warning", "worker-7")
    assert "ZeroDivisionError" in failed["exception"]
    assert took["timestamp"].endswith("Z")


def test_console(tmp_path: Path) -> None:
    lines = _lines(tmp_path, log_format="console", log_level="warning")
    assert not any("took" in line for line in lines)
    assert "this is odd" in lines[0]
    assert "worker-7" in lines[0]
    assert "\x1b" not in lines[0]
