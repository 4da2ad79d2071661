"""Signed transactions for the load generators, prepared by all cores before anything is measured.

Each CREATE is about 950 bytes and has a TRANSFER that spends it. Requests go into slice files, one for each
generator thread: whole HTTP/1.1 requests, each after its length as 4 bytes, most significant first.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bcdb.model import KeyPair, prepare_create, prepare_transfer, sign

POST_PATH = "/api/v1/transactions"
CHUNK = 500
ITEMS_OF_ONE_OWNER = 10
WORDS = (
    "copper",
    "lantern",
    "harbour",
    "meadow",
    "engine",
    "violet",
    "paper",
    "falcon",
    "granite",
    "orchard",
    "needle",
)


class Prepared(NamedTuple):
    """A signed CREATE and the signed TRANSFER that spends it, as JSON bodies; `id` is that of the CREATE."""

    id: str
    create: bytes
    transfer: bytes


def _prepare_chunk(name: str, first: int, count: int) -> list[Prepared]:
    made = []
    for serial in range(first, first + count):
        if (serial - first) % ITEMS_OF_ONE_OWNER == 0:
            owner = KeyPair.from_seed(f"{name}-{serial}".encode().ljust(32, b".")[-32:])
            receiver = KeyPair.from_seed(f"{name}+{serial}".encode().ljust(32, b".")[-32:])
        asset = {
            "kind": "benchmark",
            "run": name,
            "serial": serial,
            "title": " ".join(WORDS[(serial >> shift) % len(WORDS)] for shift in (0, 2, 4, 6, 8, 10)),
            # Not to be compressed better than what people store.
            "padding": hashlib.shake_256(f"{name} {serial}".encode()).hexdigest(64),
        }
        metadata = {"station": serial % 97, "note": f"{WORDS[serial % len(WORDS)]} {serial}"}
        create = sign(
            prepare_create(issuers=[owner.public_key], asset=asset, metadata=metadata),
            owner,
        )
        transfer = sign(
            prepare_transfer(
                inputs=[(create, 0)], recipients=[([receiver.public_key], 1)], metadata=metadata
            ),
            owner,
        )
        made.append(Prepared(create["id"], _text(create), _text(transfer)))
    return made


def _text(transaction: object) -> bytes:
    return json.dumps(transaction, separators=(",", ":"), ensure_ascii=False).encode()


def prepare(name: str, count: int) -> list[Prepared]:
    """`count` pairs that differ from those of every other `name`; uses all cores."""
    starts = range(0, count, CHUNK)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        chunks = pool.map(_prepare_chunk, [name] * len(starts), starts, [CHUNK] * len(starts))
        return [item for chunk in chunks for item in chunk][:count]


def post_request(
    host: str, body: bytes, path: str = POST_PATH, content_type: str = "application/json"
) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def get_request(host: str, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def write_slices(folder: Path, name: str, requests: Sequence[bytes], slices: int) -> Path:
    """Write `NAME.0`, `NAME.1`, ...: request i stands in slice i mod `slices`. Returns `folder / name`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(slices):
        with (folder / f"{name}.{number}").open("wb") as file:
            for request in requests[number::slices]:
                file.write(struct.pack(">I", len(request)))
                file.write(request)
    return folder / name


def read_slice(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while prefix := file.read(4):
            yield file.read(struct.unpack(">I", prefix)[0])


def sent_of(items: Sequence[Prepared], sent: Iterable[int], slices: int, margin: int) -> list[Prepared]:
    """Which items were surely answered, when thread t of the generator sent `sent[t]` requests of its slice.

    `margin` requests a slice may still have been on their way when the generator ended.
    """
    kept = []
    for number, count in enumerate(sent):
        kept.extend(items[number::slices][: max(0, count - margin)])
    return kept
