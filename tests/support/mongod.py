"""A real mongod for tests: one for the session, on a Unix socket, and a database of its own for each test.

A machine without mongod fails the tests that want one; nothing is skipped.
"""

import atexit
import functools
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from query.mongo.binary import find_mongod

START_S_MAX = 30.0
STOP_S_MAX = 10.0
CACHE_GB = 0.25
_numbers = itertools.count(1)

Client = MongoClient[dict[str, Any]]


class Mongod:
    """One mongod, a replica set of one. Its fail points may be set (`configureFailPoint`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "mongod.log"
        # A path of a Unix socket has at most 107 bytes.
        self.socket = folder / "m.sock"
        self.uri = f"mongodb://{quote(str(self.socket), safe='')}/?directConnection=true"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it is running"
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when it takes writes."""
        (self.folder / "data").mkdir(exist_ok=True)
        arguments = [
            *("--dbpath", str(self.folder / "data")),
            *("--bind_ip", str(self.socket), "--unixSocketPrefix", str(self.folder)),
            *("--replSet", "bcdb", "--oplogSize", "128", "--wiredTigerCacheSizeGB", str(CACHE_GB)),
            *("--logpath", str(self.log), "--logappend"),
            *("--setParameter", "enableTestCommands=1"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ]
        # Tied to this process, so that none is left behind when the tests are killed.
        tied = [sys.executable, "-m", "bcdb.cli.tied", str(os.getpid()), str(self.folder)]
        self._process = subprocess.Popen(
            [*tied, str(find_mongod()), *arguments], cwd=Path(__file__).parents[2]
        )
        deadline = time.monotonic() + START_S_MAX
        while not self._writable():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"mongod did not start; its log ends with\n{self._last_words()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it, in order if that works in time."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def kill(self) -> None:
        """End it as a crash would; `start` goes on with what it had."""
        process, self._process = self._process, None
        assert process is not None, "it is running"
        process.kill()
        process.wait()

    @contextmanager
    def client(self) -> Iterator[Client]:
        client: Client = MongoClient(self.uri, serverSelectionTimeoutMS=2_000)
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def database(self) -> Iterator[str]:
        """The name of a database that nobody else uses; it is dropped in the end."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        try:
            yield name
        finally:
            with self.client() as client:
                client.drop_database(name)

    @contextmanager
    def failing(self, commands: list[str], *, after: int = 0, **data: Any) -> Iterator[None]:
        """Let commands of bcdb fail, beginning with the one behind `after` others.

        `data` is that of the fail point `failCommand`: errorCode, closeConnection, blockConnection...
        """
        mode = {"skip": after} if after else "alwaysOn"
        self._fail_point("failCommand", mode, {"failCommands": commands, "appName": "bcdb", **data})
        try:
            yield
        finally:
            self._fail_point("failCommand", "off", {})

    @contextmanager
    def out_of_time(self) -> Iterator[None]:
        """The time of whatever has a bound on its time is over at once."""
        self._fail_point("maxTimeAlwaysTimeOut", "alwaysOn", {})
        try:
            yield
        finally:
            self._fail_point("maxTimeAlwaysTimeOut", "off", {})

    def _fail_point(self, name: str, mode: Any, data: Mapping[str, Any]) -> None:
        with self.client() as client:
            client.admin.command({"configureFailPoint": name, "mode": mode, "data": data})

    def _writable(self) -> bool:
        try:
            with self.client() as client:
                hello = client.admin.command("hello")
                if "setName" not in hello:
                    members = [{"_id": 0, "host": str(self.socket)}]
                    client.admin.command("replSetInitiate", {"_id": "bcdb", "members": members})
                return bool(hello["isWritablePrimary"])
        except PyMongoError:
            return False

    def _last_words(self) -> str:
        return "\n".join(self.log.read_text().splitlines()[-20:]) if self.log.exists() else "(no log)"


@functools.cache
def shared() -> Mongod:
    """The session's mongod, started at the first call. Nobody may stop it."""
    folder = Path(tempfile.mkdtemp(prefix="bcdb-mongod-"))
    mongod = Mongod(folder)

    def end() -> None:
        mongod.stop()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    mongod.start()
    return mongod


@contextmanager
def own() -> Iterator[Mongod]:
    """A mongod that a test may stop and kill as it likes."""
    with tempfile.TemporaryDirectory(prefix="bcdb-mongod-", ignore_cleanup_errors=True) as folder:
        mongod = Mongod(Path(folder))
        mongod.start()
        try:
            yield mongod
        finally:
            mongod.stop()
