"""Aggregations: the stages of a pipeline that may be asked for, read into what MongoDB may be told.

No stage writes, reads another collection or runs code, and none makes documents grow without bound. A stage
that is not on the list is refused by name.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from query import filters, sorting
from query.errors import InvalidSearch
from query.expressions import Copy, Expressions
from query.paths import (
    EncodeKey,
    is_integer,
    is_number,
    joined,
    kind,
    operand,
    parse_path,
    require_object,
    shown,
    suggestion,
)

STAGES_MAX = 20
PIPELINE_BYTES_MAX = 64 * 1024
"""Size of a pipeline as compact JSON."""
BOUNDARIES_MAX = 1_000
GROWTH_MAX = 32
"""How many times as large as its values a document may become by copies, over all stages."""

Stage = Mapping[str, Any]

WHY_NOT = {
    **dict.fromkeys(("$lookup", "$graphLookup", "$unionWith"), "an aggregation reads one collection only"),
    **dict.fromkeys(("$out", "$merge"), "nothing is written by asking"),
    **dict.fromkeys(("$function", "$where"), "it would run a program in the database"),
    **dict.fromkeys(("$sample",), "the same question must have the same answer"),
    **dict.fromkeys(("$facet",), "its pipelines can be asked one by one"),
    **dict.fromkeys(("$replaceRoot", "$replaceWith"), "$project can name the fields"),
    **dict.fromkeys(
        ("$collStats", "$indexStats", "$currentOp", "$listSessions", "$planCacheStats"),
        "it tells of the database, not of documents",
    ),
}


def check(pipeline: Any, collection: str) -> list[Stage]:
    """A copy of a pipeline all of whose stages are allowed.

    Paths begin with fields of the collection until a stage changes the shape of documents; behind it they are
    free. Raises `InvalidSearch`, which names the stage, operator, path or bound.
    """
    if not isinstance(pipeline, list | tuple):
        raise InvalidSearch(f"A pipeline is an array of stages, not {kind(pipeline)}")
    try:
        encoded = msgspec.json.encode(pipeline)
    except (RecursionError, TypeError, ValueError, OverflowError):
        raise InvalidSearch("The pipeline is nested too deep, or holds what JSON can't hold") from None
    if len(encoded) > PIPELINE_BYTES_MAX:
        raise InvalidSearch(f"The pipeline has {len(encoded):,} bytes; {PIPELINE_BYTES_MAX:,} are allowed")
    if len(pipeline) > STAGES_MAX:
        raise InvalidSearch(f"The pipeline has {len(pipeline)} stages; {STAGES_MAX} are allowed")
    _Reader(lambda key: key, collection).pipeline(pipeline)
    copied: list[Stage] = msgspec.json.decode(encoded)
    return copied


def to_mongo(stages: Sequence[Stage], encode_key: EncodeKey) -> list[dict[str, Any]]:
    """Stages that `check` has let through as MongoDB takes them. `encode_key` gives the stored name of a key.

    They may be those behind a leading `$match` that is told apart from them. Documents must come without
    anything in them that `documents.FIELDS` does not tell of.
    """
    return _Reader(encode_key, None).pipeline(stages)


class _Reader:
    """Reads the stages of one pipeline."""

    def __init__(self, encode_key: EncodeKey, collection: str | None) -> None:
        self._encode_key = encode_key
        self._first = True
        self._expressions = Expressions(encode_key, collection)
        self._growth = 1
        self._stages: Mapping[str, Callable[[Any], Any]] = {
            "$match": self._match,
            "$group": self._group,
            "$sort": self._sort,
            "$limit": self._limit,
            "$skip": self._skip,
            "$project": self._project,
            "$addFields": self._add_fields,
            "$set": self._add_fields,
            "$unset": self._unset,
            "$unwind": self._unwind,
            "$count": self._count,
            "$sortByCount": self._sort_by_count,
            "$bucket": self._bucket,
        }

    def pipeline(self, stages: Sequence[Any]) -> list[dict[str, Any]]:
        return [self._stage(stage, number) for number, stage in enumerate(stages)]

    def _stage(self, stage: Any, number: int) -> dict[str, Any]:
        asked = require_object(stage, f"Stage {number + 1} of the pipeline")
        if len(asked) != 1:
            raise InvalidSearch(f"Stage {number + 1} of the pipeline has {len(asked)} keys, not one")
        ((name, given),) = asked.items()
        read = self._stages.get(name)
        if read is None:
            why = WHY_NOT.get(name)
            raise InvalidSearch(
                f"The stage {shown(name)} is not offered"
                + (f", as {why}" if why else "")
                + suggestion(name, tuple(self._stages))
            )
        self._expressions.copies.clear()
        made = read(given)
        self._first = False
        keeps = name in ("$addFields", "$set")
        self._growth *= _growth(self._expressions.copies, keeps=keeps)
        if self._growth > GROWTH_MAX:
            raise InvalidSearch(
                f"{name}: the pipeline copies values into more and more fields; at most {GROWTH_MAX} copies "
                "of a value are allowed in all"
            )
        if name not in ("$match", "$sort", "$limit", "$skip"):
            self._expressions.collection = None
        return {name: made}

    # --- stages that leave documents as they are ---

    def _match(self, given: Any) -> dict[str, Any]:
        collection = self._expressions.collection
        found = filters.parse(given, collection)
        if not self._first and any(isinstance(part, filters.Text) for part in filters.conjuncts(found)):
            raise InvalidSearch("$text may stand in the first stage only")
        return filters.to_mongo(found, self._encode_key)

    def _sort(self, given: Any) -> dict[str, int]:
        sort = sorting.parse(given, self._expressions.collection)
        if not sort:
            raise InvalidSearch("$sort takes at least one path")
        return sorting.to_mongo(sort, self._encode_key)

    def _limit(self, given: Any) -> int:
        if not is_integer(given, 1):
            raise InvalidSearch("$limit takes an integer from 1")
        return int(given)

    def _skip(self, given: Any) -> int:
        if not is_integer(given, 0):
            raise InvalidSearch("$skip takes an integer from 0")
        return int(given)

    # --- stages that make others of them ---

    def _group(self, given: Any) -> dict[str, Any]:
        asked = require_object(given, "$group")
        if "_id" not in asked:
            raise InvalidSearch("$group needs `_id`, the expression to group by; null makes one group of all")
        return {"_id": self._expressions.read(asked["_id"], "$group")} | self._gathered(asked, "$group")

    def _gathered(self, asked: Mapping[str, Any], where: str) -> dict[str, Any]:
        read = self._expressions
        return {
            read.name(name, where): read.gathered(each, f"{where}, field {shown(name)}")
            for name, each in asked.items()
            if name != "_id"
        }

    def _project(self, given: Any) -> dict[str, Any]:
        asked = require_object(given, "$project")
        if not asked:
            raise InvalidSearch("$project takes at least one field")
        return self._shape(asked, "$project", 1, choosing=True)

    def _add_fields(self, given: Any) -> dict[str, Any]:
        asked = require_object(given, "$addFields")
        if not asked:
            raise InvalidSearch("$addFields takes at least one field")
        return self._shape(asked, "$addFields", 1, choosing=False)

    def _shape(
        self, asked: Mapping[str, Any], where: str, depth: int, *, choosing: bool, above: str = ""
    ) -> dict[str, Any]:
        """Fields by their paths. With `choosing` 1 and 0 keep them or leave them out."""
        made: dict[str, Any] = {}
        for text, given in asked.items():
            path = parse_path(text)
            if any(part.startswith("$") for part in path):
                raise InvalidSearch(f"{where}: {shown(text)} is no name for a field: no $ in front")
            whole = f"{above}{text}"
            self._expressions.count(depth)
            if isinstance(given, Mapping) and given and not any(name.startswith("$") for name in given):
                value: Any = self._shape(given, where, depth + 1, choosing=choosing, above=f"{whole}.")
            elif choosing and (isinstance(given, bool) or is_number(given)):
                value = 1 if given else 0
                if given:
                    self._expressions.note(tuple(whole.split(".")))
            else:
                value = self._expressions.read(given, f"{where}, field {shown(whole)}", depth)
            made[joined(path, self._encode_key)] = value
        return made

    def _unset(self, given: Any) -> list[str]:
        paths = [given] if isinstance(given, str) else given
        if (
            not isinstance(paths, list | tuple)
            or not paths
            or not all(isinstance(each, str) for each in paths)
        ):
            raise InvalidSearch("$unset takes a path or an array of paths")
        return [joined(parse_path(each, self._expressions.collection), self._encode_key) for each in paths]

    def _unwind(self, given: Any) -> dict[str, Any]:
        asked = {"path": given} if isinstance(given, str) else require_object(given, "$unwind")
        for name in asked:
            if name not in _UNWIND:
                raise InvalidSearch(f"$unwind has no argument {shown(name)}" + suggestion(name, _UNWIND))
        path = asked.get("path")
        if not isinstance(path, str) or not path.startswith("$") or path.startswith("$$"):
            raise InvalidSearch('$unwind takes a path with a $ in front, like "$data.parts"')
        made: dict[str, Any] = {"path": self._expressions.uncopied(path, "$unwind")}
        if "includeArrayIndex" in asked:
            name = asked["includeArrayIndex"]
            if not isinstance(name, str):
                raise InvalidSearch(f"$unwind: includeArrayIndex takes a name, not {kind(name)}")
            made["includeArrayIndex"] = self._expressions.name(name, "$unwind")
        if "preserveNullAndEmptyArrays" in asked:
            if not isinstance(asked["preserveNullAndEmptyArrays"], bool):
                raise InvalidSearch("$unwind: preserveNullAndEmptyArrays takes true or false")
            made["preserveNullAndEmptyArrays"] = asked["preserveNullAndEmptyArrays"]
        return made

    def _count(self, given: Any) -> str:
        if not isinstance(given, str):
            raise InvalidSearch(f"$count takes a name for the field with the number, not {kind(given)}")
        return self._expressions.name(given, "$count")

    def _sort_by_count(self, given: Any) -> Any:
        return self._grouping(given, "$sortByCount")

    def _grouping(self, given: Any, where: str) -> Any:
        is_path = isinstance(given, str) and given.startswith("$")
        is_operator = isinstance(given, Mapping) and len(given) == 1 and next(iter(given)).startswith("$")
        if not is_path and not is_operator:
            raise InvalidSearch(f'{where} takes a path like "$data.kind", or an operator')
        return self._expressions.read(given, where)

    def _bucket(self, given: Any) -> dict[str, Any]:
        asked = require_object(given, "$bucket")
        for name in asked:
            if name not in _BUCKET:
                raise InvalidSearch(f"$bucket has no argument {shown(name)}" + suggestion(name, _BUCKET))
        made = {
            "groupBy": self._grouping(asked.get("groupBy"), "$bucket"),
            "boundaries": _boundaries(asked.get("boundaries")),
        }
        if "default" in asked:
            default = asked["default"]
            if isinstance(default, Mapping | list | tuple) or (
                isinstance(default, str) and default.startswith("$")
            ):
                raise InvalidSearch(
                    "$bucket: default takes a constant: a number, a text without a $ in front, …"
                )
            made["default"] = operand(default, "$bucket")
        if "output" in asked:
            output = require_object(asked["output"], "$bucket: output")
            made["output"] = self._gathered(output, "$bucket")
        return made


_UNWIND = ("path", "includeArrayIndex", "preserveNullAndEmptyArrays")
_BUCKET = ("groupBy", "boundaries", "default", "output")


def _boundaries(given: Any) -> list[Any]:
    if not isinstance(given, list | tuple) or not 2 <= len(given) <= BOUNDARIES_MAX:
        raise InvalidSearch(f"$bucket takes boundaries, an array of 2 to {BOUNDARIES_MAX:,} constants")
    numbers = all(is_number(each) for each in given)
    texts = all(isinstance(each, str) and not each.startswith("$") for each in given)
    if not numbers and not texts:
        raise InvalidSearch("$bucket: boundaries are all numbers, or all texts without a $ in front")
    if any(low >= high for low, high in pairwise(given)):
        raise InvalidSearch("$bucket: boundaries stand in order, each above the one before")
    return [operand(each, "$bucket") for each in given]


def _growth(copies: Sequence[Copy], *, keeps: bool) -> int:
    """How many times a value may stand in what a stage makes; with `keeps` it stays where it is, too."""
    most = 0
    for copy in copies:
        path = copy.path
        overlapping = sum(
            other.weight
            for other in copies
            if other.path[: len(path)] == path or path[: len(other.path)] == other.path
        )
        most = max(most, overlapping)
    return max(1, most + keeps) if copies else 1
