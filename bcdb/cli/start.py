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
from bcdb.model.errors import SettingsError
from bcdb.node import logs
from bcdb.node.settings import Settings, hide_secrets

DEFAULT_URL = "http://localhost:9984"


def run_node(home: Path | None, flags: Mapping[str, Any]) -> None:
    """Make what is missing in the home and run a node until it is told to stop. Raises `BcdbError`."""
    settings, made = make_home(home, flags)
    check_uri(settings.mongo_uri)
    for path in made:
        note(f"Made {path}")
    if danger := exposure(settings):
        warn(danger)
    with locked(settings) as lock:
        supervisor = Supervisor(settings, lock)
        logs.configure(settings, process="supervisor")
        asyncio.run(supervisor.run(tell_ready))
    note("Stopped.")


def check_uri(uri: str) -> None:
    """Raise `SettingsError` for an address of a MongoDB that nobody could understand; "" is none.

    Whether something answers there is another question: the node is of use without it.
    """
    if not uri.startswith("mongodb://"):
        # The other kind is looked up in the DNS, which may be away for now.
        return
    from pymongo.errors import PyMongoError
    from pymongo.uri_parser import parse_uri

    try:
        parse_uri(uri, warn=False)
    except (PyMongoError, ValueError, TypeError, OSError):
        # What the error says may quote the password.
        raise SettingsError(
            "mongo_uri can't be used; it is like mongodb://user:password@host:27017/?replicaSet=name, with "
            "known options and with reserved characters as %XX."
        ) from None


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
    say(f"  searches {store_of(settings)}")
    say("Try:")
    say(f"  curl{unverified} {settings.url}/api/v1/")
    say(f"  {command} keys new --out alice.json")
    say(f"""  {trusting}{command} tx create --key alice.json --asset '{{"bicycle": "red"}}'{where}""")
    say("Ctrl-C stops it.")
    sys.stdout.flush()


def store_of(settings: Settings) -> str:
    """Which database answers searches, for a person; without its password."""
    if settings.mongo:
        return f"a MongoDB of its own, in {settings.mongo_path}"
    if settings.mongo_uri:
        return f"{hide_secrets(settings.mongo_uri)}, database {settings.mongo_database}"
    return f"SQLite, in {settings.store_path}"


def this_command() -> str:
    """How this command was called, so that it can be called again in another terminal of the same folder."""
    called = sys.argv[0]
    if Path(called).name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m bcdb"
    found = shutil.which("bcdb")
    if found is not None and os.path.realpath(found) == os.path.realpath(called):
        return "bcdb"
    return shlex.quote(called)
