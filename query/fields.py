"""Projections: which fields of its documents a question wants answered.

They take away and never compute; a projection with operators is refused. Documents keep the order of their
fields.
"""

from typing import Any

from query.documents import Document
from query.errors import InvalidSearch
from query.paths import EncodeKey, Path, is_integer, joined, parse_path, require_object, shown

FIELDS_MAX = 50
"""Paths of a projection."""


def parse(value: Any, collection: str) -> tuple[tuple[Path, ...], bool]:
    """The paths of a JSON object, and whether they are to be left out instead of answered.

    `{"path": 1, …}` names all that is answered, `{"path": 0, …}` all that is not; `{}` answers everything.
    Raises `InvalidSearch`.
    """
    asked = require_object(value, "A projection")
    if len(asked) > FIELDS_MAX:
        raise InvalidSearch(f"A projection has at most {FIELDS_MAX} paths, this one {len(asked)}")
    paths: list[Path] = []
    wanted: set[bool] = set()
    for text, given in asked.items():
        path = parse_path(text, collection)
        if not isinstance(given, bool) and not is_integer(given, 0, 1):
            raise InvalidSearch(f"The projection takes 1 (answer it) or 0 (leave it out) for {shown(text)}")
        paths.append(path)
        wanted.add(bool(given))
    if len(wanted) > 1:
        raise InvalidSearch("A projection either answers paths (1) or leaves them out (0), not both")
    _refuse_collisions(paths)
    return tuple(paths), wanted == {False}


def apply(document: Document, fields: tuple[Path, ...], exclude: bool) -> Document:
    """What a projection leaves of a document. Paths reach into the objects of arrays, however nested.

    The document stays as it was; the result shares values with it.
    """
    if not fields:
        return document
    tree = _tree(fields)
    made: Document = _without(document, tree) if exclude else _only(document, tree)
    return made


def to_mongo(fields: tuple[Path, ...], exclude: bool, encode_key: EncodeKey) -> dict[str, int]:
    """The projection as MongoDB takes it, without a word on `_id`."""
    return {joined(path, encode_key): 0 if exclude else 1 for path in fields}


def _refuse_collisions(paths: list[Path]) -> None:
    named = set(paths)
    for path in paths:
        for length in range(1, len(path)):
            if path[:length] in named:
                raise InvalidSearch(
                    f"The projection names {shown('.'.join(path[:length]))} and, within it, "
                    f"{shown('.'.join(path))}; leave one of them out"
                )


_Tree = dict[str, "_Tree | None"]


def _tree(fields: tuple[Path, ...]) -> _Tree:
    """The paths by their parts; None where one ends."""
    tree: _Tree = {}
    for *parts, last in fields:
        below = tree
        for part in parts:
            inner = below.setdefault(part, {})
            assert inner is not None, "paths that lie within each other were refused"
            below = inner
        below[last] = None
    return tree


def _only(document: Document, tree: _Tree) -> Document:
    made: Document = {}
    for key, value in document.items():
        if key in tree:
            below = tree[key]
            if below is None:
                made[key] = value
            elif isinstance(value, dict):
                made[key] = _only(value, below)
            elif isinstance(value, list):
                made[key] = _only_in_array(value, below)
    return made


def _only_in_array(array: list[Any], tree: _Tree) -> list[Any]:
    """Of an array objects and arrays stay; for what else is in it the path leads nowhere."""
    return [
        _only(value, tree) if isinstance(value, dict) else _only_in_array(value, tree)
        for value in array
        if isinstance(value, dict | list)
    ]


def _without(value: Any, tree: _Tree) -> Any:
    if isinstance(value, list):
        return [_without(each, tree) for each in value]
    if not isinstance(value, dict):
        return value
    made: Document = {}
    for key, inner in value.items():
        if key not in tree:
            made[key] = inner
        elif (below := tree[key]) is not None:
            made[key] = _without(inner, below)
    return made
