"""`bcdb start`: what is said to the person who starts a node, around the supervisor that runs it."""

import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bcdb.cli.home import locked, make_home
from bcdb.cli.screen import note, say, warn
from bcdb.cli.supervisor import Supervisor
from bcdb.node import logs
from bcdb.node.settings import Settings

DEFAULT_URL = "http://localhost:9984"


def run_node(home: Path | None, flags: Mapping[str, Any]) -> None:
    """Make what is missing in the home and run a node until it is told to stop. Raises `BcdbError`."""
    settings, made = make_home(home, flags)
    for path in made:
        note(f"Made {path}")
    if danger := exposure(settings):
        warn(danger)
    with locked(settings) as lock:
        supervisor = Supervisor(settings, lock)
        logs.configure(settings, process="supervisor")
        asyncio.run(supervisor.run(tell_ready))
    note("Stopped.")


def exposure(settings: Settings) -> str:
    """A sentence on what strangers could do with a node that others can reach, "" if nothing."""
    if settings.loopback:
        return ""
    open_to = []
    if not settings.tls:
        open_to.append("read and change what is on the wire (no tls_cert and tls_key)")
    if not settings.write_keys:
        open_to.append("issue assets (no write_keys)")
    if not open_to:
        return ""
    return f"{settings.host} is not this machine alone: whoever reaches it can {' and '.join(open_to)}."


def tell_ready(settings: Settings) -> None:
    """Where the node listens and what to try next: lines that work when they are pasted."""
    command = this_command()
    where = "" if settings.url == DEFAULT_URL else f" --node {settings.url}"
    unverified = " --insecure" if settings.tls else ""
    trusting = f"SSL_CERT_FILE={shlex.quote(str(settings.tls_cert))} " if settings.tls else ""
    say(f"bcdb is ready at {settings.url}   (chain {settings.chain_id}, home {settings.home})", "bold green")
    say(f"  events   {settings.stream_url}")
    say("Try:")
    say(f"  curl{unverified} {settings.url}/api/v1/")
    say(f"  {command} keys new --out alice.json")
    say(f"""  {trusting}{command} tx create --key alice.json --asset '{{"bicycle": "red"}}'{where}""")
    say("Ctrl-C stops it.")
    sys.stdout.flush()


def this_command() -> str:
    """How this command was called, so that it can be called again in another terminal of the same folder."""
    called = sys.argv[0]
    if Path(called).name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m bcdb"
    found = shutil.which("bcdb")
    if found is not None and os.path.realpath(found) == os.path.realpath(called):
        return "bcdb"
    return shlex.quote(called)
