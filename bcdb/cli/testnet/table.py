"""The picture of a testnet for people: a table on a terminal, one line of text where nothing can be redrawn.

Nothing here asks anybody anything: see `figures`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bcdb.cli.screen import output, say
from bcdb.cli.testnet.figures import Figures, Picture, State

LOOK_PAUSE_S = 1.0
LINE_PAUSE_S = 5.0
HASH_DIGITS = 8
WIDTH = 120
"""Of a table that goes into a file or a pipe."""
STYLES: dict[State, str] = {"up": "green", "starting": "yellow", "trouble": "bold red", "down": "red"}
COLUMNS = ("height", "app hash", "peers", "pending", "tx/s", "searches", "catching up")
NOTHING = "-"

Show = Callable[[Picture], None]


def render(picture: Picture) -> RenderableType:
    """The table, and below it what is wrong with nodes that are not up."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("node")
    table.add_column("state")
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for node in picture.nodes:
        hash_style = "bold red" if node.differs else ""
        table.add_row(
            node.name if node.validator else f"{node.name} (observer)",
            Text(node.state, STYLES[node.state]),
            _number(node.height),
            Text(_short(node.app_hash), hash_style),
            _number(node.peers),
            _number(node.pending),
            NOTHING if node.transactions_per_s is None else f"{node.transactions_per_s:,.1f}",
            _lag(node),
            NOTHING if node.catching_up is None else "yes" if node.catching_up else "no",
        )
    lines = [Text(_title(picture), "" if picture.agrees else "bold red")]
    reasons = [
        Text(f"{node.name}: {node.reason}", STYLES[node.state]) for node in picture.nodes if node.reason
    ]
    return Group(table, *lines, *reasons)


def line(picture: Picture) -> str:
    """All of it in one line."""
    up = picture.up
    heights = [node.height for node in up if node.height is not None]
    parts = [f"{len(up)} of {len(picture.nodes)} up"]
    if heights:
        span = str(min(heights)) if min(heights) == max(heights) else f"{min(heights)}-{max(heights)}"
        parts.append(f"at {span}")
        parts.append(_agreement(picture))
        rates = [node.transactions_per_s for node in up if node.transactions_per_s is not None]
        parts.append(f"{max(rates, default=0.0):,.1f} tx/s")
        parts.append(f"{sum(node.pending or 0 for node in up):,} pending")
    parts += [
        f"{node.name} is {'in ' if node.state == 'trouble' else ''}{node.state}"
        for node in picture.nodes
        if node.state != "up"
    ]
    return ", ".join(parts)


def print_table(picture: Picture) -> None:
    """Print the table once."""
    console = output if output.is_terminal else Console(file=output.file, width=WIDTH, highlight=False)
    console.print(render(picture), soft_wrap=False)


@contextlib.asynccontextmanager
async def live() -> AsyncIterator[tuple[Show, float]]:
    """How to show pictures that follow one another, and how many seconds to let pass between them.

    On a terminal each takes the place of the one before, and what is logged meanwhile stands above them.
    """
    if not output.is_terminal:
        yield (lambda picture: say(line(picture))), LINE_PAUSE_S
        return
    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as shown:
        yield (lambda picture: shown.update(render(picture), refresh=True)), LOOK_PAUSE_S
        await asyncio.sleep(0)


def _title(picture: Picture) -> str:
    return f"chain {picture.chain_id}: {_agreement(picture)}"


def _agreement(picture: Picture) -> str:
    known = [node for node in picture.nodes if node.app_hash is not None]
    if picture.height is None or not known:
        return "no app hashes yet"
    if not picture.agrees:
        return f"APP HASHES DIFFER at height {picture.height}"
    same = "" if len(known) == 1 else f", the same at {len(known)} nodes"
    return f"app hash {_short(known[0].app_hash)} at height {picture.height}{same}"


def _short(app_hash: str | None) -> str:
    return NOTHING if app_hash is None else app_hash[:HASH_DIGITS]


def _number(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def _lag(node: Figures) -> str:
    if node.lag is None:
        return NOTHING
    return f"{node.lag:,} behind" if node.lag else "in step"
