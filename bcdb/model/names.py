"""The rules for what an app puts in `asset.data` and `metadata`: key names and the values under `language`.

They exist because the query store indexes these documents; they are part of the format, so they must stay
as they are even for a store that could do without them.
"""

from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Any

from bcdb.model import limits
from bcdb.model.errors import LimitExceeded, ValidationError
from bcdb.model.explain import shown

_LANGUAGE_NAMES = (
    "none danish dutch english finnish french german hungarian italian norwegian portuguese romanian russian "
    "spanish swedish turkish"
)
_LANGUAGE_CODES = "da nl en fi fr de hu it nb pt ro ru es sv tr"
LANGUAGES = frozenset(f"{_LANGUAGE_NAMES} {_LANGUAGE_CODES}".split(" "))
"""What the value under a key `language` may be: the text search languages of MongoDB."""


PLAIN = 0
FLOATS = 1
DOUBTFUL = 2
"""What `survey` says of a document; the worst of its parts counts."""


def survey(document: dict[str, Any], depth: int) -> int:
    """Look over `document`, which stands at `depth` of the JSON text.

    PLAIN: key names in order, no `language`, integers and depth within the limits. FLOATS: the same, but
    there are floats. DOUBTFUL: something needs a closer look, maybe for nothing. It is on the way of every
    transaction, so it names no fault and raises nothing.
    """
    if depth > limits.JSON_DEPTH_MAX:
        return DOUBTFUL
    for key in document:
        if (
            (not key.isidentifier() and ("." in key or "\0" in key or key[:1] == "$"))
            or key == "language"
            or len(key) > limits.JSON_KEY_CHARS_MAX
        ):
            return DOUBTFUL
    return _survey_values(document.values(), depth)


def _survey_values(values: Iterable[Any], depth: int) -> int:
    found = PLAIN
    for value in values:
        kind = type(value)
        if kind is str or value is None or kind is bool:
            continue
        if kind is int:
            if not limits.INTEGER_MIN <= value <= limits.INTEGER_MAX:
                return DOUBTFUL
        elif kind is float:
            if not isfinite(value):
                return DOUBTFUL
            found |= FLOATS
        elif kind is dict:
            found |= survey(value, depth + 1)
        elif depth < limits.JSON_DEPTH_MAX:
            found |= _survey_values(value, depth + 1)
        else:
            return DOUBTFUL
    return found


def check_names(asset_data: Any, metadata: Any) -> None:
    """Raise for the first key name, or else the first language, that is not allowed; asset first."""
    for place, document in (("asset", asset_data), ("metadata", metadata)):
        for key, _ in _pairs(document):
            if key.startswith("$") or "." in key or "\0" in key:
                raise ValidationError(
                    f'Invalid key name "{_cut(key)}" in {place} object. '
                    'The key name cannot contain characters ".", "$" or null characters'
                )
            if len(key) > limits.JSON_KEY_CHARS_MAX:
                raise LimitExceeded(
                    f"A key name in the {place} object has {len(key)} characters, "
                    f"the limit is {limits.JSON_KEY_CHARS_MAX}."
                )
    for document in (asset_data, metadata):
        for key, value in _pairs(document):
            if key == "language" and not (isinstance(value, str) and value in LANGUAGES):
                language = _cut(value) if isinstance(value, str) else shown(value)
                raise ValidationError(
                    f'MongoDB does not support text search for the language "{language}". If you do not '
                    'understand this error message then please rename key/field "language" to something '
                    'else like "lang".'
                )


def _cut(text: str) -> str:
    return text if len(text) <= limits.JSON_KEY_CHARS_MAX else text[: limits.JSON_KEY_CHARS_MAX] + "..."


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """All keys with their values at every depth, in the order of the text."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item
            yield from _pairs(item)
    elif isinstance(value, list):
        for item in value:
            yield from _pairs(item)
