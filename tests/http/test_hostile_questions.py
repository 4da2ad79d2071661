"""No question to the query store is answered 5xx, whatever it asks and whichever store answers.

What the language lets through, the database behind must take: an error of the database shows up here as 500.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from query.documents import COLLECTIONS
from query.expressions import ACCUMULATORS
from query.expressions import OPERATORS as EXPRESSIONS
from query.filters import LOGICAL, OPERATORS
from tests.http.world import World
from tests.support import mongod
from tests.support.transactions import alice, create, transfer

SIGNED = create(
    asset={"n": 1, "s": "text", "l": [1, "a", {"n": 2}], "o": {"n": 3.5, "d": "2026-01-01T00:00:00Z"}},
    metadata={"n": 1, "l": [[1], []], "s": "1"},
    recipients=[([alice.public_key], 5)],
)
MOVED = transfer([(SIGNED, 0)], [([alice.public_key], 5)])
PATHS = {
    "transactions": ("id", "operation", "time", "inputs", "inputs.fulfills.output_index", "height"),
    "assets": (
        "data",
        "data.n",
        "data.s",
        "data.l",
        "data.l.0",
        "data.l.n",
        "data.o.n",
        "data.o.d",
        "height",
    ),
    "metadata": ("metadata", "metadata.n", "metadata.l", "metadata.l.0.0", "metadata.s", "id", "position"),
    "outputs": ("amount", "public_keys", "public_keys.0", "spent_height", "spent_by", "output_index"),
    "blocks": ("height", "time", "hash", "transactions"),
}
MADE = ("_id", "a", "b", "b.c")
"""Names for what stages make."""
many = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Shared:
    """One world for all examples, on a loop of its own."""

    def __init__(self, kind: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._runner = asyncio.Runner()
        self.kind = kind
        self.world = self._runner.run(self._open())

    async def _open(self) -> World:
        chosen = {}
        if self.kind == "mongodb":
            name = f"hostile_{id(self)}"
            chosen = {"mongo_uri": mongod.shared().uri, "mongo_database": name}
        world = World(Path(self._folder.name) / "node", **chosen)
        await world.__aenter__()
        await world.commit(SIGNED, MOVED)
        return world

    def ask(self, path: str, question: Any) -> int:
        """The status of the answer to a question."""
        reply = self._runner.run(self.world.ask(path, json.dumps(question).encode(), min_height=0))
        assert reply.status in (200, 400), (reply, question)
        if reply.status == 200:
            assert isinstance(reply.json()["documents"], list)
        else:
            assert reply.json()["message"]
        return reply.status

    def close(self) -> None:
        self._runner.run(self.world.__aexit__(None, None, None))
        self._runner.close()
        self._folder.cleanup()
        if self.kind == "mongodb":
            with mongod.shared().client() as client:
                client.drop_database(self.world.settings.mongo_database)


@pytest.fixture(scope="module", params=["sqlite", "mongodb"])
def shared(request: pytest.FixtureRequest) -> Iterator[Shared]:
    opened = Shared(request.param)
    yield opened
    opened.close()


Draw = Callable[[st.SearchStrategy[Any]], Any]

names = st.sampled_from(MADE)
numbers = st.integers(-3, 3) | st.sampled_from([0.5, 1.0, -1e300, 2**62, -(2**63)])
texts = st.sampled_from(["text", "1", "", "a.*", "^t[a-z]+$", "(", "\0", "number", "ü", "CREATE", "day", "i"])
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def filters(draw: Draw, paths: tuple[str, ...], depth: int = 2) -> Any:
    """A filter, mostly one that is allowed."""
    if depth and draw(st.integers(0, 2)) == 0:
        return {draw(st.sampled_from(LOGICAL)): draw(st.lists(filters(paths, depth - 1), max_size=3))}
    return {
        draw(st.sampled_from(paths)): draw(conditions(paths, depth)) for _ in range(draw(st.integers(0, 2)))
    }


@st.composite
def conditions(draw: Draw, paths: tuple[str, ...], depth: int) -> Any:
    operator = draw(st.sampled_from(("", *OPERATORS)))
    if not operator:
        return draw(values)
    operands: dict[str, st.SearchStrategy[Any]] = {
        **dict.fromkeys(("$gt", "$gte", "$lt", "$lte"), numbers | texts | st.booleans()),
        **dict.fromkeys(("$in", "$nin", "$all"), st.lists(values, max_size=3)),
        "$exists": st.booleans(),
        "$size": st.integers(0, 3),
        "$type": st.sampled_from(["number", "string", "array", "null", 1, 2, "x"]),
        "$mod": st.lists(st.integers(-3, 3), min_size=2, max_size=2),
        "$regex": texts,
    }
    if operator in ("$not", "$elemMatch"):
        inner = conditions(paths, depth - 1) if depth else st.just({"$gt": 0})
        return {operator: draw(inner | filters(paths, 0) if operator == "$elemMatch" else inner)}
    return {operator: draw(operands.get(operator, values))}


@st.composite
def expressions(draw: Draw, paths: tuple[str, ...], depth: int = 2) -> Any:
    """An expression, mostly one that is allowed; whether the types fit is another matter."""
    if not depth or draw(st.integers(0, 2)) == 0:
        return draw(st.sampled_from(("$$ROOT", *("$" + path for path in paths))) | scalars)
    name = draw(st.sampled_from(sorted(EXPRESSIONS)))
    takes, inner = EXPRESSIONS[name], expressions(paths, depth - 1)
    if name == "$switch":
        branches = st.lists(st.fixed_dictionaries({"case": inner, "then": inner}), min_size=1, max_size=2)
        return {name: draw(st.fixed_dictionaries({"branches": branches, "default": inner}))}
    if takes.named:
        optional = {each: inner | texts for each in takes.named if each not in takes.needed}
        return {name: draw(st.fixed_dictionaries(dict.fromkeys(takes.needed, inner), optional=optional))}
    most = min(takes.most, takes.least + 2)
    return {name: draw(st.lists(inner, min_size=takes.least, max_size=max(most, takes.least)))}


@st.composite
def stages(draw: Draw, paths: tuple[str, ...]) -> Any:
    """A stage, mostly one that is allowed."""
    inner = expressions(paths)
    gathered = st.sampled_from(sorted(ACCUMULATORS)).flatmap(
        lambda name: st.just({name: {}}) if name == "$count" else inner.map(lambda read: {name: read})
    )
    references = st.sampled_from(["$" + path for path in paths])
    one = {"min_size": 1, "max_size": 2}
    groups = st.dictionaries(st.sampled_from(("a", "b")), gathered, max_size=2)
    boundaries = st.lists(st.integers(-3, 9), min_size=2, max_size=4, unique=True).map(sorted)
    bucket = {"groupBy": references, "boundaries": boundaries}
    unwind = {"path": references}
    return draw(
        st.one_of(
            filters(paths).map(lambda read: {"$match": read}),
            st.tuples(inner, groups).map(lambda both: {"$group": {"_id": both[0], **both[1]}}),
            sorts(paths).map(lambda read: {"$sort": read}),
            st.integers(0, 3).map(lambda read: {"$limit": read}),
            st.integers(0, 3).map(lambda read: {"$skip": read}),
            st.dictionaries(names, inner | st.sampled_from([0, 1]), **one).map(
                lambda read: {"$project": read}
            ),
            st.dictionaries(names | st.sampled_from(paths), inner, **one).map(lambda read: {"$set": read}),
            st.sampled_from(paths).map(lambda read: {"$unset": read}),
            st.fixed_dictionaries(
                unwind, optional={"includeArrayIndex": names, "preserveNullAndEmptyArrays": st.booleans()}
            ).map(lambda read: {"$unwind": read}),
            names.map(lambda read: {"$count": read}),
            references.map(lambda read: {"$sortByCount": read}),
            st.fixed_dictionaries(bucket, optional={"default": scalars, "output": groups}).map(
                lambda read: {"$bucket": read}
            ),
            values,
        )
    )


@st.composite
def sorts(draw: Draw, paths: tuple[str, ...]) -> Any:
    return draw(st.dictionaries(st.sampled_from(paths), st.sampled_from([1, -1]), min_size=1, max_size=3))


@st.composite
def questions(draw: Draw) -> tuple[str, dict[str, Any]]:
    collection = draw(st.sampled_from(COLLECTIONS))
    paths = PATHS[collection]
    keep = draw(st.sampled_from([0, 1]))
    question = {
        "filter": draw(filters(paths)),
        "sort": draw(st.none() | sorts(paths)),
        "projection": draw(st.none() | st.dictionaries(st.sampled_from(paths), st.just(keep), max_size=2)),
        "limit": draw(st.integers(1, 3)),
    }
    return collection, question


@st.composite
def aggregations(draw: Draw) -> tuple[str, list[Any]]:
    collection = draw(st.sampled_from(COLLECTIONS))
    first = draw(st.lists(stages(PATHS[collection]), max_size=2))
    return collection, [*first, *draw(st.lists(stages(MADE), max_size=1))]


@many
@given(questions())
def test_any_question(shared: Shared, asked: tuple[str, dict[str, Any]]) -> None:
    shared.ask(*asked)


@many
@given(aggregations())
@example(("assets", [{"$project": {"x": {"$divide": ["$data.n", 0]}}}]))
@example(("assets", [{"$project": {"x": {"$toInt": "$data.s"}}}]))
@example(("assets", [{"$project": {"x": {"$size": "$data.n"}}}]))
@example(("assets", [{"$group": {"_id": "$data", "a": {"$push": "$$ROOT"}}}]))
@example(("assets", [{"$sort": {"data.l": 1, "data.o": 1}}, {"$unwind": "$data.l"}, {"$unwind": "$data.o"}]))
def test_any_aggregation(shared: Shared, asked: tuple[str, list[Any]]) -> None:
    collection, pipeline = asked
    status = shared.ask(f"{collection}/aggregate", {"pipeline": pipeline})
    assert status == 400 or shared.kind == "mongodb"


@many
@given(st.sampled_from(["assets", "metadata"]), st.text(max_size=20) | texts, st.text(max_size=5))
def test_any_search(shared: Shared, kind: str, text: str, after: str) -> None:
    question = {"filter": {"$text": {"$search": text}}, "after": after or None}
    shared.ask(kind, json.loads(json.dumps(question).encode("utf-8", "replace")))


@pytest.mark.parametrize("path", [*COLLECTIONS, "assets/aggregate"])
def test_any_value_as_a_body(shared: Shared, path: str) -> None:
    for body in (1, None, [], "x", {"filter": []}, {"pipeline": {}}, {"pipeline": [[]]}, {"limit": -1}):
        shared.ask(path, body)
