"""The CometBFT child: started, listened to, stopped; never left behind, and never restarted from here.

What it says goes into Python's logging with the level that CometBFT gave it. It is told nothing but its home:
variables of ours that it would read as settings are kept from it.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from consensus.engine import EngineError

log = logging.getLogger(__name__)

STOP_S_MAX = 10.0
"""After SIGTERM; then it is killed, which it must survive at any time anyway."""
DRAIN_S_MAX = 1.0
CHUNK_BYTES = 64 * 1024
LINE_BYTES_MAX = 64 * 1024
TEXT_CHARS_MAX = 2_000
LAST_WORDS = 8

TIED = Path(__file__).with_name("tied.py")
_PASSED_ON = ("PATH", "HOME", "TZ", "LANG", "GOMAXPROCS", "GOGC", "GOMEMLIMIT", "GODEBUG", "GOTRACEBACK")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "error": logging.ERROR}
_LEFT_OUT = ("_msg", "level", "ts", "msg")
_OUTCRIES = ("panic:", "ERROR:", "fatal error:", "Error:")


class ProcessError(EngineError):
    """CometBFT could not be started, or ended by itself."""


class CometProcess:
    """One run of `binary` with the home at `home`. It dies with the thread that called `start`."""

    def __init__(self, binary: Path, home: Path) -> None:
        self._binary = binary
        self._home = home
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._last: deque[str] = deque(maxlen=LAST_WORDS)
        self._outcry = ""
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """None unless it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process is not None and running else None

    @property
    def last_words(self) -> str:
        """What it said last, for the sentence that tells of its end: its own outcry if there was one."""
        return self._outcry or "; ".join(self._last) or "nothing"

    async def start(self) -> None:
        """Start it. Whether it is ready its RPC tells. Raises `ProcessError`."""
        tied = [sys.executable, "-I", "-S", str(TIED), str(os.getpid())]
        try:
            self._process = await asyncio.create_subprocess_exec(
                *tied,
                str(self._binary),
                *("start", "--home", str(self._home)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self._home,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            )
        except OSError as error:
            raise ProcessError(f"CometBFT can't be started in {self._home}: {error.strerror}") from error
        assert self._process.stdout is not None, "it is a pipe"
        self._listening = asyncio.create_task(self._listen(self._process.stdout))

    async def wait(self) -> int:
        """Its exit code, negative for the signal that ended it, once it has ended and was heard out."""
        assert self._process is not None, "it was started"
        code = await self._process.wait()
        if self._listening is not None:
            # What it has started itself could keep the pipe open.
            await asyncio.wait({self._listening}, timeout=DRAIN_S_MAX)
        return code

    async def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL when that takes too long. Does nothing if it has ended."""
        process = self._process
        if process is None:
            return
        self._stopping = True
        self._send(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S_MAX):
                await self.wait()
        except TimeoutError:
            log.warning("CometBFT did not end within %.0f s and is killed", STOP_S_MAX)
        finally:
            self._send(signal.SIGKILL)
            if self._listening is not None:
                self._listening.cancel()
        await process.wait()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _listen(self, pipe: asyncio.StreamReader) -> None:
        """Take its lines as they come; of one that is too long, only the beginning is told."""
        held = b""
        skipping = False
        while chunk := await pipe.read(CHUNK_BYTES):
            *lines, held = (held + chunk).split(b"\n")
            for line in lines:
                if not skipping:
                    self._tell(line)
                skipping = False
            if len(held) > LINE_BYTES_MAX:
                if not skipping:
                    self._tell(held)
                held, skipping = b"", True
        if held and not skipping:
            self._tell(held)

    def _tell(self, line: bytes) -> None:
        if not line.strip():
            return
        level, text = readable(line)
        if level >= logging.ERROR:
            self._last.append(text)
            if not self._outcry and text.startswith(_OUTCRIES):
                self._outcry = text
        if self._stopping and level > logging.INFO:
            # It calls each of its sockets that closes an error.
            level = logging.INFO
        log.log(level, "%s", text)


def readable(line: bytes) -> tuple[int, str]:
    """The level of Python's logging and the text of a line of CometBFT's log, which is JSON.

    What is no JSON is what Go says when a program fails.
    """
    try:
        said = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return logging.ERROR, line[:TEXT_CHARS_MAX].decode(errors="replace").rstrip()
    level = _LEVELS.get(str(said.get("level")), logging.INFO)
    # Its services have a fixed `_msg` and say in `msg` what it is about.
    parts = [str(said.get("msg") or said.get("_msg", ""))]
    for name, value in said.items():
        if name not in _LEFT_OUT:
            shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            parts.append(f"{name}={shown}")
    return level, " ".join(parts)[:TEXT_CHARS_MAX]
