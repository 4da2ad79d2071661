"""Makes a fresh mongod a replica set of one and waits until it takes writes: `replica_set.py HOST:PORT NAME`.

bcdb asks MongoDB for majority writes, which need a replica set. This may run at every start: a set that is
there is left as it is, and this never changes or drops anything. Exit code 0 once it has a primary, else 1.
"""

import sys
import time
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

READY_S_MAX = 120.0
"""A mongod that has to recover a large journal after a power cut may take this long."""
PAUSE_S = 0.5
NOT_YET_INITIALIZED = 94
ALREADY_INITIALIZED = 23


def initiate(client: MongoClient[Any], member: str, name: str) -> None:
    """Make the set unless there is one. Raises `PyMongoError`."""
    try:
        client.admin.command("replSetGetStatus")
    except OperationFailure as error:
        if error.code != NOT_YET_INITIALIZED:
            raise
        config = {"_id": name, "members": [{"_id": 0, "host": member}]}
        try:
            client.admin.command("replSetInitiate", config)
        except OperationFailure as refused:
            if refused.code != ALREADY_INITIALIZED:
                raise
        else:
            print(f"Made the replica set {name} with {member} in it.")


def main(member: str, name: str) -> int:
    deadline = time.monotonic() + READY_S_MAX
    reason = "it did not become the primary"
    uri = f"mongodb://{member}/?directConnection=true&serverSelectionTimeoutMS=2000&socketTimeoutMS=10000"
    client: MongoClient[Any]
    with MongoClient(uri) as client:
        while time.monotonic() < deadline:
            try:
                initiate(client, member, name)
                if client.admin.command("hello").get("isWritablePrimary"):
                    print(f"The replica set {name} takes writes.")
                    return 0
            except PyMongoError as error:
                reason = str(error)
            time.sleep(PAUSE_S)
    print(f"The mongod at {member} was not ready within {READY_S_MAX:.0f} s: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: replica_set.py HOST:PORT NAME")
    sys.exit(main(*sys.argv[1:]))
