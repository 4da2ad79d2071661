"""The node's own mongod: how it is started, made a replica set of one, looked after and stopped.

It listens on a Unix socket that only this user can open, and on nothing else. What it keeps is a copy: if it
can't be had, the node goes on without searches.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import structlog
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError

from bcdb.cli.children import Child, child_environment
from bcdb.cli.home import clear_run
from bcdb.model.errors import BcdbError
from bcdb.node.settings import Settings
from query.errors import QueryError
from query.mongo.binary import find_mongod

NAME = "mongod"
REPLICA_SET = "bcdb"
OPLOG_MB = 128
"""No other member ever reads the log of operations; by default it would take a twentieth of the disk."""
CACHE_GB_MIN, CACHE_GB_MAX = 0.25, 4.0
CACHE_OF_MEMORY = 1 / 8
LOG_BYTES_MAX = 8 * 1024 * 1024
"""At this size the log is put aside as `mongod.log.1`, in place of the one before."""
LAST_WORDS_BYTES = 64 * 1024
LOOK_S = 5.0
SETTLE_PAUSE_S = 0.1
SELECTION_MS = 1_000
COMMAND_MS = 5_000
OPEN_S_MAX = 60.0
CLOSE_S_MAX = 30.0
"""Times for a mongod that is started for one command, and may have a crash to recover from."""
QUESTION_BYTES_MAX = 32 * 1024 * 1024
"""Memory of one step of one question; MongoDB's own bound is 100 MiB, and strangers may ask many at once."""
MEMORY_PARAMETERS = (
    "internalDocumentSourceGroupMaxMemoryBytes",
    "internalQueryMaxBlockingSortMemoryUsageBytes",
    "internalQueryMaxPushBytes",
    "internalQueryMaxAddToSetBytes",
)
ALREADY_INITIALIZED = 23
ABORTING = frozenset((23089, 23090, 4757800, 6384300))
"""Lines of its log that tell only that it aborts, whatever for."""

logger = structlog.get_logger()


class MongodFailed(BcdbError):
    """The node's own mongod can't be had."""


class Mongod:
    """The mongod of one home. `lock`: descriptor of the home's lock, which it holds while it lives.

    Raises `MongodFailed` if this machine has no mongod.
    """

    def __init__(self, settings: Settings, lock: int) -> None:
        try:
            program = find_mongod()
        except QueryError as error:
            raise MongodFailed(f"{error.text}.") from None
        self._settings = settings
        self._socket = settings.mongo_socket_path
        self._log = settings.mongo_path / "mongod.log"
        self.up = asyncio.Event()
        """Set once it takes writes."""
        self._settled: int | None = None
        # The socket has a short name in the current folder: no length and no comma of a path is in the way,
        # and the name under which the replica set knows its member holds when the home is moved.
        arguments = [
            *("--dbpath", str(settings.mongo_path)),
            *("--bind_ip", self.member, "--unixSocketPrefix", ".", "--filePermissions", "0600"),
            *("--replSet", REPLICA_SET, "--oplogSize", str(OPLOG_MB)),
            *("--wiredTigerCacheSizeGB", f"{cache_gb():.2f}"),
            *("--logpath", str(self._log), "--logappend", "--logRotate", "reopen", "--quiet"),
            # Slow commands would be logged with the documents in them.
            *("--slowOpSampleRate", "0"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ]
        self.child = Child(
            NAME,
            "bcdb.cli.tied",
            [str(os.getpid()), str(self._socket.parent), str(program), *arguments],
            descriptors=(lock,),
            environment=child_environment(settings.metrics_path),
        )
        self.child.last_words = self.last_words

    @property
    def member(self) -> str:
        """The host of the replica set's only member."""
        return f"./{self._socket.name}"

    async def look_after(self) -> None:
        """For ever: make the replica set of a mongod that has none, and keep the log short."""
        while True:
            process = self.child.process
            if process is not None and process.pid != self._settled and await self._settle():
                self._settled = process.pid
                self.up.set()
            bounded = await asyncio.to_thread(self._put_log_aside)
            if bounded:
                await self._command("logRotate", 1)
            settled = process is not None and process.pid == self._settled
            await asyncio.sleep(LOOK_S if settled else SETTLE_PAUSE_S)

    async def _settle(self) -> bool:
        """Whether it takes writes; if not, whatever is to be done about that has been begun."""
        try:
            async with self._client() as client:
                hello = await client.admin.command("hello")
                if hello.get("hosts") != [self.member]:
                    await _make_replica_set(client.admin, self.member)
                await _bound_memory(client.admin)
                return bool(hello.get("isWritablePrimary"))
        except PyMongoError as error:
            logger.debug("mongod is not ready", text=str(error)[:200])
            return False

    async def _command(self, name: str, value: Any) -> None:
        with contextlib.suppress(PyMongoError):
            async with self._client() as client:
                await client.admin.command(name, value)

    def _client(self) -> AsyncMongoClient[Mapping[str, Any]]:
        return AsyncMongoClient(
            self._settings.mongo_connection,
            serverSelectionTimeoutMS=SELECTION_MS,
            socketTimeoutMS=COMMAND_MS,
            connectTimeoutMS=COMMAND_MS,
        )

    def _put_log_aside(self) -> bool:
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > LOG_BYTES_MAX:
                self._log.replace(self._log.with_name(self._log.name + ".1"))
                return True
        return False

    def last_words(self) -> str:
        """Why it ended, as far as its log says, and where that log is."""
        reason = ""
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - LAST_WORDS_BYTES))
            reason = _last_error(log.read())
        return f"{reason}See {self._log}."


async def _bound_memory(admin: Any) -> None:
    """Not among the arguments: a mongod that does not know one of them would not start."""
    for name in MEMORY_PARAMETERS:
        with contextlib.suppress(OperationFailure):
            await admin.command("setParameter", 1, **{name: QUESTION_BYTES_MAX})


async def _make_replica_set(admin: Any, member: str) -> None:
    members = [{"_id": 0, "host": member}]
    try:
        await admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
    except OperationFailure as error:
        if error.code != ALREADY_INITIALIZED:
            raise
        # Somebody else has set it up, under a name of the member that does not hold here.
        config = (await admin.command("replSetGetConfig"))["config"]
        changed = {**config, "members": members, "version": config["version"] + 1}
        await admin.command("replSetReconfig", changed, force=True)


def _last_error(log: bytes) -> str:
    """The last error in lines of mongod's log as a sentence and a blank, "" if there is none."""
    for line in reversed(log.splitlines()):
        with contextlib.suppress(ValueError, AttributeError):
            entry = json.loads(line)
            if entry.get("s") in ("E", "F") and entry.get("id") not in ABORTING:
                more = entry.get("attr", {}).get("error")
                if more == 0:
                    # The storage engine clears up behind an error, and that is none.
                    continue
                with contextlib.suppress(KeyError, TypeError):
                    # The storage engine's number for it is in `error`, its sentence is here.
                    more = entry["attr"]["message"]["msg"]
                what = f"{entry['msg']}: {more}" if more else str(entry["msg"])
                return f"It says: {what[:300].rstrip('.')}. "
    return ""


def cache_gb() -> float:
    """Memory for its cache: an eighth of what this machine or container has, within bounds. In GiB."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        memory_bytes = min(memory_bytes, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(max(memory_bytes * CACHE_OF_MEMORY / 2**30, CACHE_GB_MIN), CACHE_GB_MAX)


@contextlib.asynccontextmanager
async def running(settings: Settings, lock: int) -> AsyncIterator[None]:
    """The home's mongod for the time of one command, while no node runs. Raises `MongodFailed`."""
    mongod = Mongod(settings, lock)
    settings.make_folders()
    process = await mongod.child.start()
    care = asyncio.create_task(mongod.look_after())
    try:
        ended, up = asyncio.create_task(process.wait()), asyncio.create_task(mongod.up.wait())
        await asyncio.wait({ended, up}, timeout=OPEN_S_MAX, return_when=asyncio.FIRST_COMPLETED)
        failed = not mongod.up.is_set()
        for task in (ended, up):
            task.cancel()
        if failed:
            raise MongodFailed(f"The mongod of {settings.home} did not start. {mongod.last_words()}")
        yield
    finally:
        care.cancel()
        await asyncio.gather(care, return_exceptions=True)
        await mongod.child.stop(CLOSE_S_MAX)
        clear_run(settings)
