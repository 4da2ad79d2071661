"""CometBFT as an `Engine` that outlives it: when CometBFT ends by itself, another run begins.

The application goes on meanwhile, so that it can be read and written to; what it takes waits for the next
run. Only what the application itself raises, or what keeps the very first run from beginning, ends this
engine.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol

from consensus.cometbft.process import ProcessError
from consensus.cometbft.rpc import RpcError, RpcUnavailable
from consensus.engine import (
    Admission,
    Application,
    Checkpoint,
    Condition,
    Engine,
    EngineError,
    Validator,
)

log = logging.getLogger(__name__)

PAUSE_S_FIRST = 0.2
PAUSE_S_MAX = 10.0
FIRST_TRIES = 3
FIRST_PAUSE_S = 1.0
HEALTHY_S = 30.0
"""After a run that lasted so long the next one begins after the first pause again."""


class Run(Engine, Protocol):
    """One run of CometBFT, as `engine.CometEngine` is."""

    @property
    def application_failed(self) -> bool: ...


class LastingEngine:
    """An `Engine` over one run of CometBFT after the other; `make` gives a fresh one."""

    name = "cometbft"

    def __init__(self, make: Callable[[], Run]) -> None:
        self._make = make
        self._run = make()
        self._application: Application | None = None
        self._stopping = asyncio.Event()
        self._trouble = ""
        """Why no run is going on, "" while one is."""
        self.on_restart: Callable[[], None] = lambda: None

    @property
    def validators(self) -> tuple[Validator, ...]:
        return self._run.validators

    @property
    def checkpoint(self) -> Checkpoint | None:
        return self._run.checkpoint

    @property
    def condition(self) -> Condition:
        return Condition(self._trouble, is_validator=False) if self._trouble else self._run.condition

    async def start(self, application: Application) -> None:
        """Begin the first run; what goes wrong only for now is tried again. Raises what it raises."""
        self._application = application
        for tries in range(1, FIRST_TRIES + 1):
            try:
                await self._run.start(application)
                return
            except ProcessError as error:
                if self._run.application_failed or tries == FIRST_TRIES or self._stopping.is_set():
                    raise
                # The one of a node that was killed may still hold its files or its port.
                log.warning("CometBFT is started once more: %s", error)
            await self._stopped_within(FIRST_PAUSE_S)
            self._run = self._make()
            if self._stopping.is_set():
                self._run.stop()

    async def run(self) -> None:
        """Until `stop`. Raises what the application raised."""
        loop = asyncio.get_running_loop()
        pause_s = PAUSE_S_FIRST
        while True:
            began_s = loop.time()
            try:
                await self._run.run()
                return
            except EngineError as error:
                if self._run.application_failed or self._stopping.is_set():
                    raise
                self._trouble = str(error)
            if loop.time() - began_s >= HEALTHY_S:
                pause_s = PAUSE_S_FIRST
            while True:
                log.error("CometBFT is started again in %.1f s: %s", pause_s, self._trouble)
                if await self._stopped_within(pause_s):
                    return
                pause_s = min(pause_s * 2, PAUSE_S_MAX)
                if await self._begin():
                    break

    async def submit(self, tx: bytes) -> Admission:
        """FULL while no run goes on, or when it can't be understood; see `rpc.CometRpc.broadcast`."""
        if self._trouble:
            return Admission.FULL
        try:
            return await self._run.submit(tx)
        except RpcUnavailable:
            return Admission.FULL
        except RpcError as error:
            log.warning("CometBFT did not take %d bytes: %s", len(tx), error)
            return Admission.FULL

    def stop(self) -> None:
        self._stopping.set()
        self._run.stop()

    async def _begin(self) -> bool:
        """Begin another run; whether it goes on. Raises what the application raised."""
        assert self._application is not None, "start comes first"
        before = self._run
        run = self._make()
        self._run = run
        if self._stopping.is_set():
            run.stop()
        self.on_restart()
        try:
            await run.start(self._application)
        except EngineError as error:
            if run.application_failed:
                raise
            self._trouble, self._run = str(error), before
            return False
        self._trouble = ""
        return True

    async def _stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()
