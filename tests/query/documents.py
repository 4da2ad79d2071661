"""Blocks of documents for the tests of the query stores."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from query.store import Block, Document


def name_of(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def document(number: int, value: Any) -> Document:
    return Document(name_of(number), msgspec.json.encode(value))


def mark_of(height: int, chain: str = "chain") -> bytes:
    return hashlib.sha256(f"{chain} {height}".encode()).digest()


def block(height: int, assets: Mapping[int, Any], metadata: Mapping[int, Any] | None = None) -> Block:
    """A block with the values under the numbers of their transactions."""
    return Block(
        height,
        mark_of(height),
        [document(number, value) for number, value in assets.items()],
        [document(number, value) for number, value in (metadata or {}).items()],
    )


def chain(count: int, *, start: int = 1) -> Sequence[Block]:
    """Blocks from `start`, each with two assets "common n<number>" and their metadata."""
    return [
        block(
            height,
            {number: {"text": f"common n{number}"} for number in (2 * height, 2 * height + 1)},
            {number: {"note": f"remark r{number}"} for number in (2 * height, 2 * height + 1)},
        )
        for height in range(start, start + count)
    ]
