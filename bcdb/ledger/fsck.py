"""Check a ledger against itself: every value of every family is recomputed from the blocks and the
transactions.

First way, here: each block is applied again by the same rules, on the state as it was then, and must give
what is stored. Second way, in `fsck_rows`: each stored row must come from a block. It reads only, must never
mend anything, and goes on after a fault to name all of them.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from bcdb.ledger.apphash import app_hash
from bcdb.ledger.apply import Outcome, apply_block
from bcdb.ledger.fsck_rows import check_rows
from bcdb.ledger.merkle import Frontier, append, leaf_hash, root
from bcdb.ledger.reader import Reader
from bcdb.ledger.records import (
    ID_BYTES,
    KEY_BYTES,
    PLACE_BYTES,
    SPENT,
    BlockHeader,
    BlockRecord,
    Head,
    decode_block,
    encode_head,
    output_key,
    pack_height,
    pack_place,
    unpack_output,
    unpack_owned_place,
    unspent_output,
)
from bcdb.ledger.store import META_HEAD, Families, check_identity, locked, open_read_only
from bcdb.model.errors import StoreError, ValidationError
from bcdb.model.transaction import Verified
from bcdb.model.validation import verify_canonical

Progress = Callable[[str, int, int], None]
"""Called with the family that is being read, the rows done and the rows expected."""

BLOCKS_PER_PROGRESS = 64


class Fault(Struct, frozen=True):
    """One thing that is wrong: `where` names a row (family/key), `what` says what is wrong with it."""

    where: str
    what: str


def check(path: Path, progress: Progress | None = None) -> Iterator[Fault]:
    """All faults of the ledger at `path`, which no process may have open meanwhile.

    Signatures are verified too. Raises StoreError when there is none, or another process has it open.
    """
    report = progress or (lambda family, done, total: None)
    with locked(path):
        families = open_read_only(path)
        try:
            try:
                check_identity(families, path, None)
                reader = Reader(families)
            except StoreError as error:
                yield Fault("meta", error.text)
                return
            yield from _guarded("blocks", _check_blocks(families, reader.head, reader.frontier, report))
            for family, faults in check_rows(families, reader, report):
                yield from _guarded(family, (Fault(where, what) for where, what in faults))
        finally:
            families.close()


def _guarded(family: str, faults: Iterator[Fault]) -> Iterator[Fault]:
    """The faults, and one more if RocksDB itself can't read on."""
    try:
        yield from faults
    except Exception as error:  # rocksdict raises bare Exception for whatever RocksDB reports
        yield Fault(family, f"can't be read further: {error}")


class _Past:
    """The stored state as it was after an earlier block: what came later is taken back from what is read."""

    def __init__(self, reader: Reader, head: Head, frontier: Frontier) -> None:
        self.head = head
        self.frontier = frontier
        self._reader = reader

    def has_transaction(self, transaction_id: bytes) -> bool:
        stored = self._reader.transaction(transaction_id)
        return stored is not None and stored.height <= self.head.height

    def get_output(self, key: bytes) -> bytes | None:
        record = self._reader.get_output(key)
        if record is None:
            return None
        _, _, height, _, spent_height, _ = unpack_output(record)
        if height > self.head.height:
            return None
        return unspent_output(record) if spent_height > self.head.height else record


def _check_blocks(families: Families, head: Head, frontier: Frontier, report: Progress) -> Iterator[Fault]:
    reader = Reader(families)
    past = Head(0, 0, b"", app_hash(root(())), 0)
    tree: Frontier = ()
    for height in range(1, head.height + 1):
        where = f"blocks/{height}"
        raw = families["blocks"].get(pack_height(height))
        what = "The block is missing."
        try:
            block = None if raw is None else decode_block(height, raw)
        except StoreError as error:
            block, what = None, error.text
        if block is None:
            # The leaves of this block are unknown, so no root above it can be recomputed.
            yield Fault(where, f"{what} Blocks {height + 1} to {head.height} can't be checked without it.")
            return
        leaves = [
            leaf_hash(height, position, block.time_ns, transaction_id)
            for position, transaction_id in enumerate(block.ids)
        ]
        next_tree, nodes = append(past.log_size, tree, leaves)
        next_head = Head(
            height, block.time_ns, block.block_hash, app_hash(root(next_tree)), past.log_size + len(leaves)
        )
        yield from _check_chain(where, block, past, next_head)
        for key, node in nodes:
            if families["log"].get(key) != node:
                yield Fault(
                    f"log/{key.hex()}", f"is not the hash of the subtree that block {height} completes"
                )
        yield from _check_transactions(families, _Past(reader, past, tree), block)
        past, tree = next_head, next_tree
        if height % BLOCKS_PER_PROGRESS == 0 or height == head.height:
            report("blocks", height, head.height)
    if encode_head(past, tree) != families["meta"].get(META_HEAD):
        yield Fault(
            "meta/head", f"is {head}, but the blocks lead to {past}, or to another frontier of the log"
        )


def _check_chain(where: str, block: BlockRecord, past: Head, recomputed: Head) -> Iterator[Fault]:
    if block.previous_hash != past.block_hash:
        yield Fault(where, f"follows {block.previous_hash.hex()}, not {past.block_hash.hex()}")
    if block.first_leaf != past.log_size:
        yield Fault(where, f"begins at leaf {block.first_leaf}, not {past.log_size}")
    if block.app_hash != recomputed.app_hash:
        yield Fault(where, f"has app hash {block.app_hash.hex()}, not {recomputed.app_hash.hex()}")


def _check_transactions(families: Families, past: _Past, block: BlockRecord) -> Iterator[Fault]:
    """Each transaction of a block by itself, then what they did together."""
    transactions: list[Verified] = []
    for position, transaction_id in enumerate(block.ids):
        verified, what = _verify_stored(families, transaction_id, block.height, position)
        if verified is None:
            yield Fault(f"transactions/{transaction_id.hex()}", what)
        else:
            transactions.append(verified)
    if len(transactions) < len(block.ids):
        return
    header = BlockHeader(block.height, block.time_ns, block.proposer, block.block_hash)
    outcome = apply_block(past, header, transactions)
    for result in outcome.results:
        if result.status != "committed":
            yield Fault(
                f"blocks/{block.height}",
                f"holds {result.id.hex()}, which is {result.status}: {result.name} {result.text}".rstrip(),
            )
    if len(outcome.committed) == len(block.ids):
        yield from _check_effects(families, outcome)


def _verify_stored(
    families: Families, transaction_id: bytes, height: int, position: int
) -> tuple[Verified | None, str]:
    raw = families["transactions"].get(transaction_id)
    if raw is None:
        return None, f"is missing, though block {height} holds it"
    if raw[:PLACE_BYTES] != pack_place(height, position):
        return None, f"is not stored as number {position} of block {height}, which holds it there"
    try:
        verified = verify_canonical(raw[PLACE_BYTES:])
    except ValidationError as error:
        return None, error.message
    if verified.id != transaction_id:
        return None, f"holds the transaction {verified.id.hex()}"
    return verified, ""


def _check_effects(families: Families, outcome: Outcome) -> Iterator[Fault]:
    """What applying the block again writes must be what is stored, but for what later blocks have changed."""
    writes, height = outcome.writes, outcome.head.height
    for key, value in writes.assets:
        if families["assets"].get(key) != value:
            yield Fault(f"assets/{key.hex()}", f"is missing or wrong; block {height} writes it")
    for key, record in writes.outputs.items():
        stored = families["outputs"].get(key)
        if key not in outcome.spent and stored is not None:
            stored = unspent_output(stored)
        if stored != record:
            yield Fault(f"outputs/{key.hex()}", f"is missing or wrong; block {height} writes it")
    for key, value in writes.owned.items():
        state = key[KEY_BYTES : KEY_BYTES + 1]
        if state != SPENT and _is_spent(families, value[:ID_BYTES], key):
            continue
        if families["owned"].get(key) != value:
            yield Fault(f"owned/{key.hex()}", f"is missing or wrong; block {height} writes it")


def _is_spent(families: Families, transaction_id: bytes, owned: bytes) -> bool:
    _, _, index = unpack_owned_place(owned, KEY_BYTES + 1)
    record = families["outputs"].get(output_key(transaction_id, index))
    return record is not None and unpack_output(record)[4] != 0
