"""Blocks of documents for the tests of the query stores."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from query.documents import Block, Input, Output, Spend, Transaction

ALICE = "9LBo7BB9z5F1pE4C9SdnGhJKFwSmg4iQTZmmvEZxSTRU"
BOB = "6DhhNpmaKNSf9Jg5bEhbh8Dn1ZGVRnHN3C3gchBR8pcS"


def name_of(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def mark_of(height: int, chain: str = "chain") -> bytes:
    return hashlib.sha256(f"{chain} {height}".encode()).digest()


def create(
    number: int, data: Any, metadata: Any = None, *, amount: int = 1, owner: str = ALICE
) -> Transaction:
    """The CREATE with this number: its id and that of its asset are `name_of(number)`."""
    return Transaction(
        name_of(number),
        "CREATE",
        name_of(number),
        (Input((owner,), None),),
        (Output(amount, (owner,), f"ni:///sha-256;{number}?fpt=ed25519-sha-256&cost=131072"),),
        msgspec.json.encode(metadata),
        msgspec.json.encode(data),
    )


def transfer(
    number: int,
    asset: int,
    spends: Sequence[tuple[int, int]] = (),
    metadata: Any = None,
    *,
    amounts: Sequence[int] = (1,),
    owner: str = BOB,
) -> Transaction:
    """The TRANSFER with this number, of the asset with that one; `spends` are (number, output index)."""
    return Transaction(
        name_of(number),
        "TRANSFER",
        name_of(asset),
        tuple(Input((ALICE,), Spend(name_of(source), index)) for source, index in spends),
        tuple(
            Output(amount, (owner,), f"ni:///sha-256;{number}-{index}?fpt=ed25519-sha-256&cost=131072")
            for index, amount in enumerate(amounts)
        ),
        msgspec.json.encode(metadata),
        None,
    )


def block_of(height: int, *transactions: Transaction) -> Block:
    seconds = f"{height // 60 % 60:02}:{height % 60:02}"
    return Block(
        height,
        mark_of(height),
        f"2026-01-01T00:{seconds}.000000000Z",
        hashlib.sha256(b"app" + mark_of(height)).digest(),
        b"\1" * 20,
        transactions,
    )


def block(height: int, assets: Mapping[int, Any], metadata: Mapping[int, Any] | None = None) -> Block:
    """A block with the values under the numbers of their transactions: CREATEs, and TRANSFERs for numbers
    that have metadata only.
    """
    about = dict(metadata or {})
    made = [create(number, value, about.pop(number, None)) for number, value in assets.items()]
    moved = [transfer(number, number, (), value) for number, value in about.items()]
    return block_of(height, *made, *moved)


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
