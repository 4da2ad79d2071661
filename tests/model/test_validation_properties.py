"""Hypothesis: no bytes make verification raise anything but a ValidationError, and its two ways agree."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bcdb.model.build import prepare_create, prepare_transfer, sign
from bcdb.model.canonical import Form, encode
from bcdb.model.errors import ValidationError
from bcdb.model.reading import read_exactly, read_quickly
from bcdb.model.transaction import Verified
from bcdb.model.validation import verify, verify_canonical
from tests.support.transactions import alice, bob, carol, create, rehashed, transfer

KEYS = [alice.public_key, bob.public_key, carol.public_key]
MADE = create([alice, bob], recipients=[(KEYS, 3), (KEYS[:1], 4)], asset={"a": 1.5}, metadata={"m": "x"})
MOVED = transfer([(MADE, 0), (MADE, 1)], [(KEYS[:2], 7)], metadata={"language": "en"})

numbers = st.integers(-(2**66), 2**66) | st.floats() | st.sampled_from([0, 1, -0.0, 1e-6, 1e21, 2**53, 2**63])
texts = st.text(max_size=8) | st.sampled_from(
    ["$a", "a.b", "language", "\x1f", "\U0001f600", "\ufb00", *KEYS]
)
scalars = st.none() | st.booleans() | numbers | texts
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
kind_keys = st.text(max_size=8).filter(
    lambda key: key[:1] != "$" and not set(key) & {".", "\0"} and key != "language"
)
kind_numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
kind_documents = st.dictionaries(
    kind_keys,
    st.recursive(
        st.none() | st.booleans() | kind_numbers | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(kind_keys, inner, max_size=4),
        max_leaves=12,
    ),
    max_size=4,
)


def told(raw: bytes) -> Verified | tuple[str, str]:
    """What verification says; an exception of another kind goes through and fails the test."""
    said = answer(verify, raw)
    if isinstance(said, Verified):
        assert verify_canonical(said.body) == said
    else:
        assert answer(verify_canonical, raw) == said
        assert 0 < len(said[1]) < 4_000
    return said


def answer(ask: Callable[[bytes], Verified], raw: bytes) -> Verified | tuple[str, str]:
    try:
        return ask(raw)
    except ValidationError as error:
        return error.name, error.text


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes(raw: bytes) -> None:
    assert not isinstance(told(raw), Verified)


@settings(max_examples=200)
@given(documents)
def test_any_document(document: Any) -> None:
    assert not isinstance(told(json.dumps(document).encode()), Verified)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = [found for key, item in items for found in paths(item, (*path, key))]
    return [path, *below] if path else below


@st.composite
def mutations(draw: st.DrawFn) -> dict[str, Any]:
    """A valid transaction with one to three places changed, removed, swapped or added."""
    tx = deepcopy(draw(st.sampled_from([MADE, MOVED])).tx)
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from(paths(tx)))
        place = tx
        for step in above:
            place = place[step]
        what = draw(st.sampled_from(["put", "drop", "copy", "text", "add"]))
        if what == "put":
            place[last] = draw(documents)
        elif what == "drop":
            del place[last]
        elif what == "copy":
            *other, other_last = draw(st.sampled_from(paths(MOVED.tx)))
            source = MOVED.tx
            for step in other:
                source = source[step]
            place[last] = deepcopy(source[other_last])
        elif what == "text" and isinstance(place[last], str):
            at = draw(st.integers(0, len(place[last])))
            place[last] = place[last][:at] + draw(texts) + place[last][at + draw(st.integers(0, 2)) :]
        elif isinstance(place, dict):
            place[draw(texts)] = draw(scalars)
        else:
            place.append(deepcopy(place[last]))
        if not paths(tx):
            break
    return tx


def bytes_with_id(tx: dict[str, Any], form: Form) -> bytes:
    try:
        return rehashed(tx, form=form)
    except (ValidationError, ValueError, OverflowError):
        return json.dumps(tx).encode()


@settings(max_examples=400)
@given(mutations(), st.sampled_from(Form))
def test_mutated_transactions_with_the_id_that_fits(tx: dict[str, Any], form: Form) -> None:
    raw = bytes_with_id(tx, form)
    result = told(raw)
    if not isinstance(result, Verified):
        return
    made = MADE if tx["operation"] == "CREATE" else MOVED
    # Only what a signature does not cover can have changed: nothing, up to the spelling of a number.
    assert result == made.verified


@settings(max_examples=200)
@given(mutations(), st.sampled_from(Form))
def test_mutated_transactions_signed_again(tx: dict[str, Any], form: Form) -> None:
    prepared = (
        prepare_create(issuers=KEYS[:2], recipients=[(KEYS, 3), (KEYS[:1], 4)])
        if tx.get("operation") == "CREATE"
        else prepare_transfer(inputs=[(MADE.tx, 0), (MADE.tx, 1)], recipients=[(KEYS[:2], 7)])
    )
    prepared.update(
        {name: tx[name] for name in ("asset", "metadata", "operation", "outputs", "version") if name in tx}
    )
    try:
        made = sign(prepared, [alice, bob, carol], form=form)
    except (ValidationError, OverflowError, ValueError):
        return
    told(encode(made, form))


@settings(max_examples=300)
@given(st.none() | kind_documents, kind_documents, st.sampled_from(Form), st.booleans())
def test_the_quick_way_and_the_exact_way_read_the_same(
    asset: dict[str, Any] | None, metadata: dict[str, Any], form: Form, escaped: bool
) -> None:
    tx = sign(prepare_create(issuers=KEYS[:1], asset=asset, metadata=metadata or None), alice, form=form)
    raw = json.dumps(tx, ensure_ascii=escaped).encode()
    quick = read_quickly(raw)
    verified = told(raw)
    if not isinstance(verified, Verified):
        # JavaScript would have written an integer otherwise.
        assert quick is None
        assert form is Form.JAVASCRIPT
        assert verified[0] == "InvalidHash"
        return
    exact = read_exactly(raw)
    if quick is not None:
        assert (quick.id, quick.unsigned, quick.body) == (exact.id, exact.unsigned, exact.body)
        assert quick.operation is exact.operation
        quick.transaction.asset = exact.transaction.asset
        quick.transaction.metadata = exact.transaction.metadata
        assert quick.transaction == exact.transaction
    assert verified.body == exact.body
