"""How commands that talk to a node find it."""

import os
from pathlib import Path

from bcdb.cli.start import DEFAULT_URL
from bcdb.client import Client
from bcdb.model.errors import SettingsError
from bcdb.node.settings import Settings, read_settings

NODE_VARIABLE = "BCDB_NODE"
TIMEOUT_S = 20.0


def connect(nodes: list[str] | None, home: Path | None = None, *, timeout_s: float = TIMEOUT_S) -> Client:
    """A client of the nodes named, else of the home named, else of BCDB_NODE, else of the default address.

    `timeout_s` bounds all tries of one request. Raises `Unreachable` at once when none of them answers.
    """
    if nodes:
        urls = nodes
    elif home is not None:
        urls = [url_of(home)]
    else:
        urls = os.environ.get(NODE_VARIABLE, "").replace(",", " ").split() or [DEFAULT_URL]
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise SettingsError(f"The address of a node begins with http:// or https://, not {url!r}.")
    client = Client(*urls, timeout_s=timeout_s)
    try:
        # Calls are patient with a node that starts; a person wants to know at once that none is there.
        client.node()
    except BaseException:
        client.close()
        raise
    return client


def url_of(home: Path) -> str:
    """Where the node of a home listens: as its last start found it, else as its settings say."""
    settings = read_settings(home)
    running = settings.run_path / "settings.json"
    return (Settings.load(running) if running.exists() else settings).url
