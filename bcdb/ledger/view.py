"""What the rules may read: the committed state behind a protocol, and the changes of the block in the making.

Rules see nothing else: no clock, no store, no other transaction in flight. The overlay is what makes a
conflict inside one block be decided in the order of the block.
"""

from collections.abc import Iterable
from typing import Protocol

from bcdb.ledger.merkle import Frontier
from bcdb.ledger.records import Head


class State(Protocol):
    """What a stateful rule may ask."""

    def has_transaction(self, transaction_id: bytes) -> bool:
        """Whether a transaction of this id is committed."""
        ...

    def get_output(self, key: bytes) -> bytes | None:
        """The record of a committed output by its 36-byte key (see `records`), or None."""
        ...


class StateView(State, Protocol):
    """The committed state on which a block is applied."""

    @property
    def head(self) -> Head: ...

    @property
    def frontier(self) -> Frontier: ...


class Writes:
    """All that a block changes, by column family. Each list holds every key at most once."""

    __slots__ = ("assets", "blocks", "log", "outputs", "owned", "owned_deleted", "transactions")

    def __init__(self) -> None:
        self.transactions: list[tuple[bytes, bytes]] = []
        self.assets: list[tuple[bytes, bytes]] = []
        self.outputs: dict[bytes, bytes] = {}
        self.owned: dict[bytes, bytes] = {}
        self.owned_deleted: list[bytes] = []
        self.log: list[tuple[bytes, bytes]] = []
        self.blocks: list[tuple[bytes, bytes]] = []

    def puts(self) -> Iterable[tuple[str, Iterable[tuple[bytes, bytes]]]]:
        """The family and the (key, value) pairs to put, family by family."""
        return (
            ("transactions", self.transactions),
            ("outputs", self.outputs.items()),
            ("owned", self.owned.items()),
            ("assets", self.assets),
            ("log", self.log),
            ("blocks", self.blocks),
        )


class Overlay:
    """A state view with the changes of the block so far on top of it."""

    __slots__ = (
        "_read",
        "_view_get_output",
        "_view_has_transaction",
        "committed",
        "height",
        "spent",
        "writes",
    )

    def __init__(self, view: StateView, height: int) -> None:
        self.height = height
        self.writes = Writes()
        self.committed: set[bytes] = set()
        self.spent: dict[bytes, bytes] = {}
        """Key of each output that the block spends → id of the spender."""
        self._read: dict[bytes, bytes] = {}
        self._view_has_transaction = view.has_transaction
        self._view_get_output = view.get_output

    def has_transaction(self, transaction_id: bytes) -> bool:
        return transaction_id in self.committed or self._view_has_transaction(transaction_id)

    def get_output(self, key: bytes) -> bytes | None:
        record = self.writes.outputs.get(key) or self._read.get(key)
        if record is None:
            record = self._view_get_output(key)
            if record is not None:
                # The rule reads it, then the effect: one read of the store serves both.
                self._read[key] = record
        return record
