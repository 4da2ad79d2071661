"""When a child process of a node ends: on SIGTERM, or when the supervisor is gone, however that went."""

import asyncio
import contextlib
import os
import signal


def listen_for_end(stop: asyncio.Event, lifeline: int | None) -> None:
    """Set `stop` on SIGTERM, and when the other end of the pipe `lifeline` closes.

    Only the supervisor holds that end. Without a lifeline it was started by hand: SIGINT ends it too.
    """
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if lifeline is None:
        loop.add_signal_handler(signal.SIGINT, stop.set)
        return
    # Ctrl-C reaches all processes of a terminal at once; the supervisor decides when each one stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_blocking(lifeline, False)

    def readable() -> None:
        with contextlib.suppress(BlockingIOError):
            if not os.read(lifeline, 1):
                loop.remove_reader(lifeline)
                stop.set()

    loop.add_reader(lifeline, readable)
