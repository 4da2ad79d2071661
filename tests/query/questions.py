"""Random documents and random questions about them, for tests that compare two answers."""

from typing import Any

from hypothesis import strategies as st

KEYS = st.sampled_from(["a", "b", "0", "1"])
INTEGERS = st.sampled_from([0, 1, -1, 2, 3, 2**31, 2**53, 2**53 + 1, -(2**63), 2**63 - 1])
FLOATS = st.sampled_from([0.0, -0.0, 1.0, 2.5, -1.5, 1e-9, 2.0**53, 2.0**63, 1e300])
TEXTS = st.sampled_from(["", "a", "b", "B", "ab", "1", "é", "\U0001f600", "\ufffd", "a\0b"])
SCALARS = st.none() | st.booleans() | INTEGERS | FLOATS | TEXTS


def in_order(value: dict[str, Any]) -> dict[str, Any]:
    """With its keys in order, as in all documents."""
    return {key: value[key] for key in sorted(value)}


VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3).map(in_order),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(st.just("data"), VALUES, max_size=1)
PATHS = st.lists(KEYS, max_size=3).map(lambda parts: ".".join(["data", *parts]))
BOUNDS = st.booleans() | INTEGERS | FLOATS | TEXTS


def _tests(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "$eq": VALUES,
            "$ne": VALUES,
            "$gt": BOUNDS,
            "$gte": BOUNDS,
            "$lt": BOUNDS,
            "$lte": BOUNDS,
            "$in": st.lists(VALUES, max_size=3),
            "$nin": st.lists(VALUES, max_size=3),
            "$exists": st.booleans(),
            "$not": inner,
        },
    ).filter(lambda made: 0 < len(made) < 4)


_SIMPLE = _tests(st.builds(lambda value: {"$eq": value}, VALUES))
TESTS = _SIMPLE | _tests(_SIMPLE)
FIELDS = st.dictionaries(PATHS, VALUES | TESTS, min_size=1, max_size=2)
FILTERS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    FIELDS,
    lambda inner: st.dictionaries(
        st.sampled_from(["$and", "$or", "$nor"]),
        st.lists(inner, min_size=1, max_size=3),
        min_size=1,
        max_size=1,
    ),
    max_leaves=4,
)
"""Filters of the language that both stores answer."""

SORTS = st.dictionaries(PATHS, st.sampled_from([1, -1]), min_size=1, max_size=3)
