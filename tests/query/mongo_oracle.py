"""A real MongoDB as the judge of what a filter, an order or a projection means."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from tests.support.mongod import shared


class Oracle:
    """One collection of a real mongod, whose documents can be replaced."""

    def __init__(self, collection: Collection[dict[str, Any]]) -> None:
        self._collection = collection

    def hold(self, documents: Sequence[Mapping[str, Any]]) -> None:
        """Hold these documents and no others; each is called by its place in the sequence."""
        self._collection.delete_many({})
        if documents:
            self._collection.insert_many([{**each, "_id": n} for n, each in enumerate(documents)])

    def matching(self, mongo_filter: Mapping[str, Any]) -> list[int]:
        return [found["_id"] for found in self._collection.find(mongo_filter, {"_id": 1}).sort("_id")]

    def ordered(self, sort: Mapping[str, int]) -> list[int] | None:
        """All documents in an order, those that it leaves equal by their places; None if it refuses."""
        try:
            found = self._collection.find({}, {"_id": 1}).sort([*sort.items(), ("_id", 1)])
            return [each["_id"] for each in found]
        except OperationFailure:
            return None

    def projected(self, projection: Mapping[str, int]) -> list[dict[str, Any]]:
        found = self._collection.find({}, {**projection, "_id": 0}).sort("_id")
        return list(found)

    def aggregated(self, stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return list(self._collection.aggregate([{"$sort": {"_id": 1}}, {"$unset": "_id"}, *stages]))


@contextmanager
def oracle() -> Iterator[Oracle]:
    with shared().client() as client:
        name = f"oracle_{os.getpid()}"
        try:
            yield Oracle(client[name]["documents"])
        finally:
            client.drop_database(name)
