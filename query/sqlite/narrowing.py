"""SQL that most documents which a filter can't match fail, so that Python need not look at them.

A condition made here follows from the filter and never says more than it: whether a document matches is
decided by `query.matching` alone. Values reach SQL as parameters only.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from math import ceil, floor
from typing import Any

import msgspec

from query.documents import ID_BYTES
from query.filters import And, Equal, Exists, Filter, In, Not, Or, Range, conjuncts
from query.paths import is_number
from query.sqlite.rows import NUMBER
from query.sqlite.tables import (
    BODY_TABLES,
    HEIGHT_MAX,
    ID_KEY_BYTES,
    POSITION_BITS,
    is_plain,
    numbers_of,
    owner_key,
)

NEEDLES_MAX = 20
"""More values of one `$in` than that are not looked for one by one, where no index knows them."""

Condition = tuple[str, tuple[Any, ...]]
"""An SQL expression about a row `t`, and its parameters. ?1 and ?2 are the least and the greatest number."""

_NEVER: Condition = ("0", ())
_SPENT = (("spent_height",), ("spent_by",))


def condition_of(collection: str, wanted: Filter) -> Condition | None:
    """What holds for every row with a document that matches; None if nothing is known."""
    if isinstance(wanted, And):
        found = [part for each in wanted.parts if (part := condition_of(collection, each)) is not None]
        return _joined(" AND ", found) if found else None
    if isinstance(wanted, Or):
        parts = [condition_of(collection, each) for each in wanted.parts]
        known = [part for part in parts if part is not None]
        return _joined(" OR ", known) if known and len(known) == len(parts) else None
    if isinstance(wanted, Not):
        # Of no other field: in an array of arrays a path is neither null nor there.
        denied = wanted.part
        if isinstance(denied, Equal) and denied.value is None and denied.path in _SPENT:
            return "EXISTS (SELECT 1 FROM spends s WHERE s.number = t.number)", ()
        return None
    if isinstance(wanted, Equal | In | Range | Exists):
        return _test(collection, wanted)
    return None


def heights_in(wanted: Filter, last: int) -> tuple[int, int]:
    """The first and the last height up to `last` at which a document can match."""
    first = 1
    for part in conjuncts(wanted):
        if isinstance(part, Equal | In | Range) and part.path == ("height",):
            heights = _heights(part)
            first = max(first, min([low for low, _ in heights], default=last + 1))
            last = min(last, max([high for _, high in heights], default=0))
    return first, last


def owners_in(collection: str, wanted: Filter) -> frozenset[str] | None:
    """The keys of which an output must have one to match; None if nothing is known."""
    if collection == "outputs":
        for part in conjuncts(wanted):
            if isinstance(part, Equal | In) and part.path == ("public_keys",):
                keys = _values(part)
                if all(isinstance(key, str) for key in keys):
                    return frozenset(keys)
    return None


def _joined(word: str, parts: Sequence[Condition]) -> Condition:
    return "(" + word.join([text for text, _ in parts]) + ")", tuple(chain(*[values for _, values in parts]))


def _values(test: Equal | In) -> tuple[Any, ...]:
    return (test.value,) if isinstance(test, Equal) else test.values


def _test(collection: str, test: Equal | In | Range | Exists) -> Condition | None:
    field = test.path[0]
    if collection in BODY_TABLES and field == BODY_TABLES[collection][1]:
        return _in_body(collection, test)
    if isinstance(test, Exists):
        return None
    if field == "inputs":
        return _in_inputs(test)
    known = _FIELDS.get((collection, field))
    if known is None or len(test.path) > (2 if field == "public_keys" else 1):
        return None
    return known(collection, test)


# --- fields of a column -----------------------------------------------------------------------------------


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _ids(values: Iterable[Any]) -> list[bytes]:
    """The ids among the values. Whatever else there is equals no id."""
    found = []
    for value in values:
        if isinstance(value, str) and len(value) == 2 * ID_BYTES and set(value) <= set("0123456789abcdef"):
            found.append(bytes.fromhex(value))
    return found


def _with_ids(column: str, ids: Sequence[bytes], more: str = "") -> Condition:
    marks = _marks(len(ids))
    return (
        f"SELECT number FROM transactions WHERE substr({column}, 1, {ID_KEY_BYTES}) IN ({marks})"
        f" AND {column} IN ({marks}){more}",
        (*[each[:ID_KEY_BYTES] for each in ids], *ids),
    )


def _id(collection: str, test: Equal | In | Range) -> Condition | None:
    if isinstance(test, Range):
        return None
    ids = _ids(_values(test))
    if not ids:
        return _NEVER
    text, values = _with_ids("id", ids)
    return f"t.number IN ({text})", values


def _asset_id(collection: str, test: Equal | In | Range) -> Condition | None:
    if isinstance(test, Range):
        return None
    ids = _ids(_values(test))
    if not ids:
        return _NEVER
    within = " AND number BETWEEN ?1 AND ?2"
    others, other_values = _with_ids("asset", ids, f" AND asset IS NOT NULL{within}")
    own, own_values = _with_ids("id", ids, " AND asset IS NULL")
    return f"t.number IN ({others} UNION ALL {own})", (*other_values, *own_values)


def _public_keys(collection: str, test: Equal | In | Range) -> Condition | None:
    if isinstance(test, Range) or not all(isinstance(value, str) for value in _values(test)):
        return None
    keys = [_bytes_of(value) for value in _values(test)]
    owners = [owner_key(value) for value, raw in zip(_values(test), keys, strict=True) if raw is not None]
    if not owners:
        return _NEVER
    return (
        f"t.number IN (SELECT number FROM owners WHERE owner IN ({_marks(len(owners))})"
        " AND number BETWEEN ?1 AND ?2)",
        tuple(owners),
    )


def _height(collection: str, test: Equal | In | Range) -> Condition | None:
    # The plus keeps SQLite at ?1 and ?2, which `heights_in` has narrowed already.
    bounds = f"+{NUMBER[collection]} BETWEEN ? AND ?"
    parts = [(bounds, numbers_of(collection, first, last)) for first, last in _heights(test)]
    return _joined(" OR ", parts) if parts else _NEVER


def _heights(test: Equal | In | Range) -> list[tuple[int, int]]:
    """The heights that fit, each as the first and the last of some."""
    if not isinstance(test, Range):
        whole = [int(value) for value in _values(test) if is_number(value) and value == int(value)]
        whole = [value for value in whole if 0 <= value <= HEIGHT_MAX]
        if len(whole) > NEEDLES_MAX:
            return [(min(whole), max(whole))]
        return [(value, value) for value in whole]
    if not is_number(test.value):
        return []
    value = max(-1, min(test.value, HEIGHT_MAX))
    return [
        {
            "$gt": (floor(value) + 1, HEIGHT_MAX),
            "$gte": (ceil(value), HEIGHT_MAX),
            "$lt": (0, ceil(value) - 1),
            "$lte": (0, floor(value)),
        }[test.operator]
    ]


def _spent_height(collection: str, test: Equal | In | Range) -> Condition | None:
    if not isinstance(test, Range) and any(value is None for value in _values(test)):
        return None
    heights = _heights(test)
    if not heights:
        return _NEVER
    bounds = " OR ".join([f"s.by >> {POSITION_BITS} BETWEEN ? AND ?"] * len(heights))
    return (
        f"EXISTS (SELECT 1 FROM spends s WHERE s.number = t.number AND ({bounds}))",
        tuple(chain(*heights)),
    )


def _spent_by(collection: str, test: Equal | In | Range) -> Condition | None:
    if isinstance(test, Range) or any(value is None for value in _values(test)):
        return None
    ids = _ids(_values(test))
    if not ids:
        return _NEVER
    text, values = _with_ids("id", ids)
    return f"t.number IN (SELECT number FROM spends WHERE by IN ({text}))", values


def _column(column: str) -> Callable[[str, Equal | In | Range], Condition | None]:
    """A field that is a text, and stands in the column as it is."""

    def test_of(collection: str, test: Equal | In | Range) -> Condition | None:
        if isinstance(test, Range):
            raw = _bytes_of(test.value)
            sign = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}[test.operator]
            return None if raw is None else (f"{column} {sign} ?", (raw,))
        texts = [raw for value in _values(test) if (raw := _bytes_of(value)) is not None]
        return (f"{column} IN ({_marks(len(texts))})", tuple(texts)) if texts else _NEVER

    return test_of


def _digest(column: str) -> Callable[[str, Equal | In | Range], Condition | None]:
    """The same for a field that is a text of hexadecimal digits, and bytes in the column."""

    def test_of(collection: str, test: Equal | In | Range) -> Condition | None:
        if isinstance(test, Range):
            return None
        raw = []
        for value in _values(test):
            if isinstance(value, str) and set(value) <= set("0123456789abcdef") and len(value) % 2 == 0:
                raw.append(bytes.fromhex(value))
        return (f"{column} IN ({_marks(len(raw))})", tuple(raw)) if raw else _NEVER

    return test_of


def _condition(collection: str, test: Equal | In | Range) -> Condition | None:
    if isinstance(test, Range):
        return None
    return _needles("t.outputs", [_bytes_of(value) for value in _values(test)])


_FIELDS: dict[tuple[str, str], Callable[[str, Equal | In | Range], Condition | None]] = {
    ("transactions", "id"): _id,
    ("assets", "id"): _id,
    ("metadata", "id"): _id,
    ("outputs", "transaction_id"): _id,
    ("transactions", "asset_id"): _asset_id,
    ("outputs", "asset_id"): _asset_id,
    ("outputs", "public_keys"): _public_keys,
    ("outputs", "spent_height"): _spent_height,
    ("outputs", "spent_by"): _spent_by,
    ("outputs", "condition"): _condition,
    ("transactions", "operation"): _column("t.operation"),
    ("transactions", "time"): _column("b.time"),
    ("blocks", "time"): _column("t.time"),
    ("blocks", "hash"): _digest("t.hash"),
    ("blocks", "app_hash"): _digest("t.app_hash"),
    ("blocks", "proposer"): _digest("t.proposer"),
    **{(collection, "height"): _height for collection in NUMBER},
}


# --- within packed values and JSON ------------------------------------------------------------------------


def _bytes_of(value: Any) -> bytes | None:
    """A text as it stands in a row; None for what is no text, or has half of a surrogate pair."""
    try:
        return value.encode() if isinstance(value, str) else None
    except UnicodeEncodeError:
        return None


def _needles(column: str, needles: Sequence[bytes | None]) -> Condition | None:
    if len(needles) > NEEDLES_MAX or not needles or None in needles:
        return None
    return "(" + " OR ".join([f"instr({column}, ?) > 0"] * len(needles)) + ")", tuple(needles)


def _in_inputs(test: Equal | In | Range) -> Condition | None:
    if isinstance(test, Range):
        return None
    texts = [_bytes_of(value) for value in _values(test)]
    if None in texts:
        return None
    return _needles("t.inputs", [*texts, *_ids(_values(test))])


def _in_body(collection: str, test: Equal | In | Range | Exists) -> Condition | None:
    """The strings and keys of a plain document stand in its bytes as they are."""
    column = f"t.{BODY_TABLES[collection][1]}"
    if isinstance(test, Equal | In):
        values = _values(test)
        if any(value is None for value in values):
            return None  # matches where there is nothing, too
        if len(values) <= NEEDLES_MAX and all(isinstance(value, str) for value in values):
            return _quoted(column, values)
    elif isinstance(test, Exists) and not test.wanted:
        return None
    keys = [part for part in test.path[1:] if not part.isdigit()]
    return _quoted(column, keys[-1:]) if keys else None


def _quoted(column: str, texts: Sequence[str]) -> Condition | None:
    needles = []
    for each in texts:
        try:
            needle = msgspec.json.encode(each)
        except UnicodeEncodeError:
            continue
        if is_plain(needle):
            needles.append(needle)
    if not needles:
        return "t.plain = 0", ()
    text = " OR ".join([f"instr({column}, ?) > 0"] * len(needles))
    return f"(t.plain = 0 OR {text})", tuple(needles)
