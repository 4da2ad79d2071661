"""The one table of operations: name to module. One more is a module here and one in the ledger.

A module of the table satisfies `Operation`. Verification must never ask for an operation by its
name: what differs between them is behind that interface.
"""

from bcdb.model.operations import chain_migration_election, create, transfer, validator_election, vote
from bcdb.model.operations.base import Operation, Ruling

OPERATIONS: dict[str, Operation] = {
    module.NAME: module for module in (create, transfer, validator_election, chain_migration_election, vote)
}

__all__ = ["OPERATIONS", "Operation", "Ruling"]
