"""The state machine over RocksDB: what is accepted, what blocks do, what can be read and proven.

Names for the layers above. Deciding is pure (`apply`, `operations`, `merkle`); only `store`, `reader`,
`ledger` and `fsck` touch the disk.
"""

from bcdb.ledger.apply import Invalid, Outcome, TransactionResult
from bcdb.ledger.cursors import Page
from bcdb.ledger.ledger import Ledger, Refusal
from bcdb.ledger.owners import Holding, OwnedOutput
from bcdb.ledger.pending import Pending
from bcdb.ledger.reader import AssetTransaction, Reader, SecondaryReader, open_reader
from bcdb.ledger.records import (
    BlockHeader,
    BlockRecord,
    Head,
    OutputRecord,
    Rejection,
    StoredTransaction,
)

__all__ = [
    "AssetTransaction",
    "BlockHeader",
    "BlockRecord",
    "Head",
    "Holding",
    "Invalid",
    "Ledger",
    "Outcome",
    "OutputRecord",
    "OwnedOutput",
    "Page",
    "Pending",
    "Reader",
    "Refusal",
    "Rejection",
    "SecondaryReader",
    "StoredTransaction",
    "TransactionResult",
    "open_reader",
]
