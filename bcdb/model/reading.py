"""From posted bytes to a typed transaction whose id is right: the quick way and the exact way.

The quick way only ever says yes, for the common spelling; every no, and every doubt, is settled by the
exact way, which finds the first fault in the reference's order and words. So the two must never disagree on
a yes.
"""

import re
from hashlib import sha3_256
from typing import Any

import msgspec
from msgspec import Struct

from bcdb.model import limits
from bcdb.model.canonical import (
    Form,
    encode,
    encode_javascript,
    encode_python,
    javascript_representable,
    load,
)
from bcdb.model.errors import InvalidHash, LimitExceeded, SchemaValidationError
from bcdb.model.explain import shown, why_not
from bcdb.model.names import DOUBTFUL, FLOATS, PLAIN, check_names, survey
from bcdb.model.operations import OPERATIONS, Operation
from bcdb.model.schema import common
from bcdb.model.transaction import Transaction

_COMMON_SCHEMA = common(list(OPERATIONS))

_DATA_DEPTH = 3
_METADATA_DEPTH = 2
"""Where these documents stand in the JSON text; the transaction itself is at depth 1."""


class Read(Struct, gc=False):
    """A transaction whose id is the hash of its body.

    `unsigned` is its canonical text with null for the id and every fulfillment, `body` the one with both in
    place.
    """

    operation: Operation
    transaction: Transaction[Any]
    id: bytes
    unsigned: bytes
    body: bytes


class _Envelope(Struct, gc=False):
    operation: str


_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_peek = msgspec.json.Decoder(_Envelope).decode
_encode = msgspec.json.Encoder(order="deterministic").encode


def check_size(raw: bytes) -> None:
    """Refuse what would take long to read. Raises LimitExceeded; what is no JSON at all may pass."""
    if len(raw) > limits.TRANSACTION_BYTES_MAX:
        raise LimitExceeded(
            f"The transaction has {len(raw)} bytes, the limit is {limits.TRANSACTION_BYTES_MAX} bytes."
        )
    if _values(raw) > limits.JSON_VALUES_MAX:
        values = _values(_TEXT.sub(b"", raw))
        if values > limits.JSON_VALUES_MAX:
            raise LimitExceeded(
                f"The transaction has {values} JSON values, the limit is {limits.JSON_VALUES_MAX}."
            )


def _values(raw: bytes) -> int:
    """How many values a document has at most; what stands in texts counts too if they were not cut out."""
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{") + 1


def read_quickly(raw: bytes) -> Read | None:
    """Read a transaction in a common spelling; None when there is any doubt. Raises nothing."""
    try:
        read = _read(raw)
    except (KeyError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return read if read is None or len(read.body) <= limits.TRANSACTION_BYTES_MAX else None


def _read(raw: bytes) -> Read | None:
    """`read_quickly`, which catches what the decoder raises."""
    operation = OPERATIONS[_peek(raw).operation]
    transaction: Transaction[Any] = operation.DECODER.decode(raw)
    data = transaction.asset.data
    metadata = transaction.metadata
    found = PLAIN if data is None else survey(data, _DATA_DEPTH)
    if metadata is not None:
        found |= survey(metadata, _METADATA_DEPTH)
    if found >= DOUBTFUL or not operation.fits(transaction):
        return None
    proposed = transaction.id
    transaction.id = None
    hashed = _encode(transaction)
    # The decoder drops keys that come twice: then colons are missing, unless some were hidden as escapes.
    if raw.count(b":") != hashed.count(b":") or (b"\\" in raw and b"\\u003" in raw):
        return None
    # Floats and control characters (written \u00XX) are what the canonical forms write in ways of their own.
    if found == FLOATS or (b"\\" in hashed and b"\\u00" in hashed):
        return _read_in_form(operation, transaction, proposed, found == FLOATS)
    transaction_id = sha3_256(hashed).digest()
    if transaction_id.hex() != proposed:
        return None
    return _finished(operation, transaction, transaction_id)


def _read_in_form(
    operation: Operation, transaction: Transaction[Any], proposed: str | None, floats: bool
) -> Read | None:
    """`read_quickly` for a document that the two canonical forms may write differently.

    What differs can only be in the asset and the metadata, so these are written once and then copied.
    """
    asset, metadata = transaction.asset, transaction.metadata
    for form in Form:
        if form is Form.JAVASCRIPT and not javascript_representable([asset, metadata]):
            break
        transaction.asset = msgspec.Raw(encode(asset, form, floats=floats))
        transaction.metadata = msgspec.Raw(encode(metadata, form, floats=floats))  # type: ignore[assignment]
        transaction_id = sha3_256(_encode(transaction)).digest()
        if transaction_id.hex() == proposed:
            read = _finished(operation, transaction, transaction_id)
            transaction.asset, transaction.metadata = asset, metadata
            return read
    return None


def _finished(operation: Operation, transaction: Transaction[Any], transaction_id: bytes) -> Read:
    fulfillments = [item.fulfillment for item in transaction.inputs]
    for item in transaction.inputs:
        item.fulfillment = None
    unsigned = _encode(transaction)
    for item, fulfillment in zip(transaction.inputs, fulfillments, strict=True):
        item.fulfillment = fulfillment
    transaction.id = transaction_id.hex()
    return Read(operation, transaction, transaction_id, unsigned, _encode(transaction))


def read_exactly(raw: bytes) -> Read:
    """Read a transaction in any spelling. Raises the `ValidationError` for the first fault."""
    document = load(raw)
    if not isinstance(document, dict):
        raise SchemaValidationError(f"{shown(document)} is not of type 'object'")
    form = _form(document)
    operation = _schema(document)
    body = encode(document, form, floats=True)
    if len(body) > limits.TRANSACTION_BYTES_MAX:
        # Canonical floats may be longer than they were posted: 1e15 becomes 1000000000000000.0.
        raise LimitExceeded(
            f"The canonical form of the transaction has {len(body)} bytes, "
            f"the limit is {limits.TRANSACTION_BYTES_MAX} bytes."
        )
    try:
        transaction = operation.DECODER.decode(body)
    except msgspec.MsgspecError as error:
        raise SchemaValidationError(str(error)) from None
    if not operation.fits(transaction):
        raise SchemaValidationError(f"This is not the shape of a transaction of operation {operation.NAME}.")
    check_names(document["asset"].get("data"), document["metadata"])
    inputs = [{**item, "fulfillment": None} for item in document["inputs"]]
    unsigned = encode({**document, "id": None, "inputs": inputs}, form, floats=True)
    return Read(operation, transaction, bytes.fromhex(document["id"]), unsigned, body)


def _form(document: dict[str, Any]) -> Form:
    """The canonical form that the id was made with. Raises InvalidHash if it is neither."""
    if "id" not in document:
        raise InvalidHash("No transaction id found!")
    proposed = document["id"]
    hashed = {**document, "id": None}
    if sha3_256(encode_python(hashed, floats=True)).hexdigest() == proposed:
        return Form.PYTHON
    if javascript_representable(hashed):
        javascript = encode_javascript(hashed, floats=True)
        if sha3_256(javascript).hexdigest() == proposed:
            return Form.JAVASCRIPT
    text = proposed if isinstance(proposed, str) and len(proposed) <= 128 else shown(proposed)
    raise InvalidHash(
        f"The transaction's id '{text}' isn't equal to the hash of its body, i.e. it's not valid."
    )


def _schema(document: dict[str, Any]) -> Operation:
    """The operation of a document that fits its schema."""
    fault = why_not(_COMMON_SCHEMA, document)
    if fault is None:
        operation = OPERATIONS[document["operation"]]
        fault = why_not(operation.SCHEMA, document)
        if fault is None:
            return operation
    raise SchemaValidationError(fault)
