"""One shape of log lines for all processes of a node, on standard error: for people, or JSON for a collector.

Call `configure` once, first thing in a process; what libraries send to `logging` comes out in the same shape.
Nothing may log a private key or a whole transaction.
"""

import logging
import sys
from typing import Any

import structlog

from bcdb.node.settings import Settings

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(settings: Settings, *, process: str) -> None:
    """Send all logs of this process to standard error as `settings.log_level` and `.log_format` say.

    `process` is the name that every line carries, e.g. `worker-0`.
    """
    level = LEVELS[settings.log_level]

    def name_process(
        _logger: Any, _method: str, event: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        event["process"] = process
        return event

    common: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        name_process,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.types.Processor]
    if settings.log_format == "json":
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(sort_keys=True)]
    else:
        # Its default shows local variables, which are bodies and keys.
        last = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    structlog.configure(
        processors=[*common, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
