"""A node's home folder: making what is missing in it, and holding its lock.

Nothing that exists is overwritten here, and no one gets past the lock while another holds it.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bcdb.model import limits
from bcdb.model.errors import SettingsError
from bcdb.model.keys import KeyPair
from bcdb.node.keyfile import read_key_file, write_key_file
from bcdb.node.settings import Settings, new_config, read_config, read_settings, write_private
from consensus.cometbft.files import NODE_KEY, make_keys

LOCK_POLL_S = 0.05


def make_home(
    home: Path | None, flags: Mapping[str, Any], *, kept: Mapping[str, Any] | None = None
) -> tuple[Settings, list[Path]]:
    """Make the folder, `config.toml` with a chain id and the node's key where they are missing.

    Gives the settings and what was made. A new `config.toml` has the chain id and what is `kept` of the
    flags. A node of a network gets the keys of its CometBFT too, and its chain id with the network's genesis.
    Raises `SettingsError`, `KeyFileError` or `EngineError`.
    """
    settings = read_settings(home, flags)
    settings.make_folders()
    made = []
    written = read_config(settings.config_path)
    if settings.engine == "cometbft":
        if not settings.config_path.exists():
            write_private(settings.config_path, new_config(kept or {}).encode())
            made.append(settings.config_path)
        if not (settings.cometbft_path / NODE_KEY).exists():
            made.append(settings.cometbft_path)
        make_keys(settings.cometbft_path)
    elif "chain_id" not in written:
        chain_id = settings.chain_id or f"bcdb-{secrets.token_hex(4)}"
        if settings.config_path.exists():
            text = settings.config_path.read_text(encoding="utf-8")
            text += ("" if text.endswith("\n") or not text else "\n") + f'chain_id = "{chain_id}"\n'
        else:
            text = new_config({**(kept or {}), "chain_id": chain_id})
            made.append(settings.config_path)
        write_private(settings.config_path, text.encode())
        settings = read_settings(home, flags)
    elif settings.chain_id != written["chain_id"]:
        raise SettingsError(
            f"This home belongs to the chain {written['chain_id']!r}, not to {settings.chain_id!r}; "
            "a chain id is made once and stays."
        )
    if not settings.node_key_path.exists():
        write_key_file(settings.node_key_path, KeyPair.generate())
        made.append(settings.node_key_path)
    read_key_file(settings.node_key_path)
    return settings, made


def write_settings(settings: Settings, values: Mapping[str, Any]) -> None:
    """Put these values into `config.toml`, in the places that `new_config` has for them."""
    path = settings.config_path
    text = path.read_text(encoding="utf-8") if path.exists() else new_config({})
    for name, value in values.items():
        line = f"{name} = {json.dumps(value)}"
        place = re.search(rf"^(# )?{name} = .*$", text, re.MULTILINE)
        if place is not None:
            text = text[: place.start()] + line + text[place.end() :]
        else:
            text += ("" if text.endswith("\n") or not text else "\n") + line + "\n"
    write_private(path, text.encode())


@contextlib.contextmanager
def locked(settings: Settings) -> Iterator[int]:
    """Hold the home's lock; gives its file descriptor, for the node process to hold it too.

    The kernel lets go of the lock when all holders are gone, however they went. Waits for processes of a
    command that was killed, which are ending. Raises `SettingsError` when another node is running on this
    home.
    """
    try:
        handle = os.open(settings.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(f"The file {settings.lock_path} can't be opened: {error.strerror}.") from None
    try:
        deadline = time.monotonic() + limits.STOP_S_MAX
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = _holder(handle)
                if holder is not None or time.monotonic() >= deadline:
                    who = "" if holder is None else f" (process {holder})"
                    raise SettingsError(
                        f"Another bcdb{who} is using {settings.home}; stop it or choose another --home."
                    ) from None
            time.sleep(LOCK_POLL_S)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield handle
    finally:
        os.close(handle)


def clear_run(settings: Settings) -> None:
    """Remove what only mattered while processes of the home ran; for the one who holds its lock."""
    for folder in (settings.socket_path.parent, settings.run_path):
        shutil.rmtree(folder, ignore_errors=True)


def _holder(handle: int) -> int | None:
    """The process that wrote its id into the lock, if it lives."""
    try:
        pid = int(os.pread(handle, 20, 0))
        os.kill(pid, 0)
    except (ValueError, ProcessLookupError):
        return None
    except PermissionError:
        pass
    return pid
