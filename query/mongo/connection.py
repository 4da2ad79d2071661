"""Clients of MongoDB as the store uses them, and what their errors mean.

Reads come from the primary only, writes count when a majority has them: a checkpoint may not survive what its
documents did not. Nothing that is said here shows the connection's URI, as there may be a password in it.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from bson.errors import BSONError
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DuplicateKeyError,
    ExecutionTimeout,
    InvalidName,
    InvalidURI,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WTimeoutError,
)
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from query.errors import InvalidSearch, QueryError, SearchTimeout, StoreUnavailable
from query.mongo.encoding import CODEC
from query.store import SEARCH_S_MAX

Client = AsyncMongoClient[dict[str, Any]]
Database = AsyncDatabase[dict[str, Any]]

READER_CONNECTIONS_MAX = 16
WRITER_CONNECTIONS_MAX = 12
SELECTION_S_MAX = 1.0
"""A primary that can't be found in this time is away."""
CONNECT_S_MAX = 2.0
ANSWER_S_MAX = SEARCH_S_MAX + 1.0
"""A question that the database does not end by itself in time is given up then."""
WRITE_S_MAX = 60.0
"""One message of the projector; what takes longer is tried again."""
MAJORITY_S_MAX = 30.0
TEXT_CHARS_MAX = 300

UNAVAILABLE_CODES = frozenset(
    (
        # Host, network, shutdown, no longer primary, interrupted.
        *(6, 7, 8, 63, 89, 91, 134, 189, 202, 262, 317, 358, 9001, 10058, 10107),
        *(11600, 11601, 11602, 13388, 13435, 13436),
        # Not allowed, no such index or cursor, collection dropped under the query, disk full.
        *(11, 13, 18, 27, 43, 175, 225, 237, 365, 385, 14031),
    )
)
"""What MongoDB refuses for reasons that are not in the question."""
_MEMORY_CODES = frozenset((33, 146, 292, 16819, 16820, 16945, 17419))
TOO_LARGE_CODES = frozenset((10334, 17260, 17280))
_TIME_CODE = 50

Result = TypeVar("Result")


def open_client(uri: str, *, writes: bool = False, maintains: bool = False) -> Client:
    """A client that connects when it is first used, for questions or for the projector.

    `maintains`: for what may take as long as it takes, such as making an index. Raises `StoreUnavailable` for
    a URI that can't be understood.
    """
    socket_s = None if maintains else WRITE_S_MAX if writes else ANSWER_S_MAX
    try:
        return AsyncMongoClient(
            uri,
            appname="bcdb",
            serverSelectionTimeoutMS=int(SELECTION_S_MAX * 1000),
            connectTimeoutMS=int(CONNECT_S_MAX * 1000),
            socketTimeoutMS=None if socket_s is None else int(socket_s * 1000),
            waitQueueTimeoutMS=int(ANSWER_S_MAX * 1000),
            maxPoolSize=WRITER_CONNECTIONS_MAX if writes or maintains else READER_CONNECTIONS_MAX,
        )
    except (InvalidURI, ConfigurationError, PyMongoError, ValueError, TypeError, OSError) as error:
        # The error's own text may quote the URI.
        raise StoreUnavailable(
            f"The MongoDB URI of this node can't be used ({type(error).__name__}); it is like"
            " mongodb://user:password@host:27017/?replicaSet=name, with reserved characters as %XX"
        ) from None


def database_of(client: Client, name: str) -> Database:
    """The database with the store's way of reading and writing, whatever the URI says about these.

    Raises `StoreUnavailable` for a name that a database can't have.
    """
    try:
        client.get_database(name)
    except InvalidName as error:
        raise StoreUnavailable(f"A MongoDB database can't be called {name!r}: {said(error)}") from None
    return client.get_database(
        name,
        codec_options=CODEC,
        read_preference=ReadPreference.PRIMARY,
        read_concern=ReadConcern("local"),
        write_concern=WriteConcern("majority", wtimeout=int(MAJORITY_S_MAX * 1000)),
    )


async def together(*work: Coroutine[Any, Any, Result]) -> list[Result]:
    """All results. When something fails the rest is still waited for: nothing may be written later on."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


# --- errors -----------------------------------------------------------------------------------------------


@contextmanager
def asking() -> Iterator[None]:
    """Turns what a question raises into `InvalidSearch`, `SearchTimeout` or `StoreUnavailable`."""
    try:
        yield
    except TimeoutError:
        raise StoreUnavailable("MongoDB does not answer") from None
    except (PyMongoError, BSONError, OSError) as error:
        raise question_error(error) from error


@contextmanager
def using() -> Iterator[None]:
    """Turns whatever the driver raises into `StoreUnavailable`; for what is not a question."""
    try:
        yield
    except (PyMongoError, BSONError, OSError) as error:
        raise unavailable(error) from error


def question_error(error: Exception) -> QueryError:
    """What an error of the driver means to whoever asked a question."""
    if isinstance(error, ExecutionTimeout) or code_of(error) == _TIME_CODE:
        return SearchTimeout(
            f"The question is too broad: it was not done after {SEARCH_S_MAX:g} s; name rarer words, narrower"
            " bounds, or fields that have an index"
        )
    if not isinstance(error, OperationFailure) or isinstance(error, WTimeoutError):
        return unavailable(error)
    code = code_of(error)
    if code in UNAVAILABLE_CODES or error.has_error_label("RetryableWriteError"):
        return unavailable(error)
    if code in _MEMORY_CODES:
        return InvalidSearch(
            "The question takes more memory than MongoDB allows for one: narrow the filter, ask for fewer"
            " documents, or sort and group by less"
        )
    if code in TOO_LARGE_CODES:
        return InvalidSearch("The question makes a document that is larger than MongoDB allows (16 MiB)")
    return InvalidSearch(f"MongoDB can't answer this question: {said(error)}")


def unavailable(error: Exception) -> StoreUnavailable:
    """The sentence for a database that can't be had, or does not let itself be used."""
    if isinstance(error, ServerSelectionTimeoutError):
        return StoreUnavailable("MongoDB can't be reached, or has no primary")
    if isinstance(error, NetworkTimeout):
        return StoreUnavailable("MongoDB does not answer")
    if isinstance(error, ConnectionFailure):
        return StoreUnavailable("The connection to MongoDB was lost")
    return StoreUnavailable(f"MongoDB can't be used: {said(error)}")


def said(error: Exception) -> str:
    """What the database said of itself, on one line and not too long."""
    text = ""
    if isinstance(error, BulkWriteError):
        # Its own text has the documents in it, which are nobody's business in a log.
        failed = (error.details or {}).get("writeErrors") or (error.details or {}).get("writeConcernErrors")
        text = str((failed or [{}])[0].get("errmsg") or "some of the documents were not written")
    elif isinstance(error, OperationFailure) and not isinstance(error, DuplicateKeyError):
        text = str((error.details or {}).get("errmsg") or "")
    text = " ".join((text or str(error)).split()).rstrip(".")
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[:TEXT_CHARS_MAX]}…"


def code_of(error: Exception) -> int:
    """The number of MongoDB's error, 0 if it has none."""
    return (error.code or 0) if isinstance(error, OperationFailure) else 0
