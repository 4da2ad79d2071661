"""How the command speaks: data on standard output, notes and errors on standard error, errors as one
sentence.

A traceback is never an answer to a person; private keys are never printed.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from bcdb.model.errors import BcdbError
from consensus.engine import EngineError

F = TypeVar("F", bound=Callable[..., Any])

output = Console(highlight=False, soft_wrap=True)
notes = Console(stderr=True, highlight=False, soft_wrap=True)
USAGE = 2
"""Exit code for arguments that can't be used; typer's own."""
INTERRUPTED = 130


class UsageError(BcdbError):
    """An argument of the command can't be used."""


def say(text: str = "", style: str = "") -> None:
    """A line of the answer, on standard output."""
    output.print(Text(text, style))


def note(text: str, style: str = "") -> None:
    """A line beside the answer, on standard error."""
    notes.print(Text(text, style))


def warn(text: str) -> None:
    note(f"Warning: {text}", "bold red")


def fail(text: str, code: int = 1) -> NoReturn:
    """End the command with a sentence."""
    note(f"Error: {text}", "red")
    raise typer.Exit(code)


def print_json(value: Any, *, indent: int = 2) -> None:
    """`value` (structs too) as JSON on standard output, in UTF-8 whatever the terminal says."""
    text = msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=indent)
    sys.stdout.flush()
    sys.stdout.buffer.write(text + b"\n")
    sys.stdout.buffer.flush()


def readable_errors(command: F) -> F:
    """Turn what a command raises into a sentence and exit code 1, or 2 if it is about its arguments."""

    @functools.wraps(command)
    def run(*arguments: Any, **named: Any) -> Any:
        try:
            return command(*arguments, **named)
        except EngineError as error:
            fail(str(error))
        except BcdbError as error:
            from bcdb.model.errors import ValidationError

            text = error.message if isinstance(error, ValidationError) else error.text
            fail(text, USAGE if isinstance(error, UsageError) else 1)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read us has gone, e.g. `| head`; what is left to write has no reader.
            sys.stderr.close()
            raise typer.Exit(0) from None

    return run  # type: ignore[return-value]
