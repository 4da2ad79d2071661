"""The Python client of bcdb: keys, preparing and signing, sending, waiting and reading; blocking or with
asyncio.

    alice = KeyPair.generate()
    with Client("http://localhost:9984") as client:
        bicycle = client.create(alice, asset={"bicycle": {"serial": "b-0001"}})
        print(client.status(bicycle["id"]))

Private keys stay in this process: what is sent is signed here.
"""

from bcdb.client.blocking import Client
from bcdb.client.errors import (
    BadRequest,
    ClientError,
    NotAllowed,
    NotFound,
    NotSettled,
    Overloaded,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
)
from bcdb.client.nonblocking import AsyncClient
from bcdb.client.results import (
    Answers,
    BatchResult,
    Block,
    Building,
    Document,
    Failure,
    FoundAsset,
    FoundMetadata,
    Holding,
    NodeStatus,
    OutputReference,
    Page,
    StoreStatus,
    TransactionStatus,
    Validator,
)
from bcdb.model.build import prepare_create, prepare_transfer, sign
from bcdb.model.conditions import Details, ed25519_details, threshold_details
from bcdb.model.errors import BcdbError, ValidationError
from bcdb.model.keys import KeyPair

__all__ = [
    "Answers",
    "AsyncClient",
    "BadRequest",
    "BatchResult",
    "BcdbError",
    "Block",
    "Building",
    "Client",
    "ClientError",
    "Details",
    "Document",
    "Failure",
    "FoundAsset",
    "FoundMetadata",
    "Holding",
    "KeyPair",
    "NodeStatus",
    "NotAllowed",
    "NotFound",
    "NotSettled",
    "OutputReference",
    "Overloaded",
    "Page",
    "StoreStatus",
    "TransactionStatus",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
    "ValidationError",
    "Validator",
    "ed25519_details",
    "prepare_create",
    "prepare_transfer",
    "sign",
    "threshold_details",
]
