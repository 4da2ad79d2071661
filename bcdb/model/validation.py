"""Everything about a transaction that can be checked without the ledger, cheap checks first, signatures last.

`verify` takes any bytes and either returns what was verified or raises a `ValidationError`; nothing else
ever gets out. The same bytes give the same answer on every node, so nothing here may depend on time, order
or memory.
"""

from hashlib import sha3_256

from bcdb.model import limits
from bcdb.model.conditions import Fulfillment, condition_of, decode_fulfillment
from bcdb.model.errors import (
    AmountError,
    InvalidCondition,
    InvalidJson,
    InvalidSignature,
    LimitExceeded,
    ValidationError,
)
from bcdb.model.explain import shown
from bcdb.model.keys import decode_key
from bcdb.model.operations import Ruling
from bcdb.model.reading import Read, check_size, read_exactly, read_quickly
from bcdb.model.transaction import Input, Link, NewOutput, Output, Verified

_AMOUNT_DIGITS_MAX = len(str(limits.AMOUNT_MAX))


def verify(raw: bytes) -> Verified:
    """Verify a transaction in any JSON spelling of its body: white space, key order and escapes are free.

    Raises a `ValidationError` whose name and text are those of the reference system where it has one, for
    the first fault in its order: JSON, id, schema, key names, fulfillments, outputs, rules of the
    operation, signatures.
    """
    check_size(raw)
    read = read_quickly(raw)
    if read is None:
        read = read_exactly(raw)
        fulfillments, outputs, ruling = _judge(read)
    else:
        try:
            fulfillments, outputs, ruling = _judge(read)
        except ValidationError:
            read = read_exactly(raw)
            fulfillments, outputs, ruling = _judge(read)
    signatures = _check_signatures(read.transaction.inputs, fulfillments, read.unsigned)
    return Verified(
        read.id,
        read.operation.NAME,
        ruling.asset_id,
        ruling.issuers,
        ruling.spends,
        outputs,
        read.body,
        signatures,
    )


def verify_canonical(raw: bytes) -> Verified:
    """Verify a transaction that must be spelt canonically, as it is in bundles and in the ledger.

    Raises what `verify` raises, and InvalidJson for another spelling.
    """
    verified = verify(raw)
    if verified.body != raw:
        raise InvalidJson("The transaction is valid, but these bytes are not its canonical form.")
    return verified


def digest_of(unsigned: bytes, link: Link | None) -> bytes:
    """The 32 bytes that an input's signatures cover.

    SHA3-256 of the canonical text without id and fulfillments, followed by the id and the decimal index of
    the output that the input spends, if it spends one.
    """
    digest = sha3_256(unsigned)
    if link is not None:
        digest.update(_suffix(link))
    return digest.digest()


def _suffix(link: Link) -> bytes:
    return f"{link.transaction_id}{link.output_index}".encode()


def _judge(read: Read) -> tuple[list[Fulfillment], tuple[NewOutput, ...], Ruling]:
    transaction = read.transaction
    if len(transaction.inputs) > limits.INPUTS_MAX:
        raise LimitExceeded(
            f"The transaction has {len(transaction.inputs)} inputs, the limit is {limits.INPUTS_MAX}."
        )
    if not 1 <= len(transaction.outputs) <= limits.OUTPUTS_MAX:
        raise LimitExceeded(
            f"The transaction has {len(transaction.outputs)} outputs, it needs at least one and the limit is "
            f"{limits.OUTPUTS_MAX}."
        )
    fulfillments = [_fulfillment(item) for item in transaction.inputs]
    outputs = tuple([_output(output) for output in transaction.outputs])
    ruling = read.operation.check(transaction, read.id, fulfillments, outputs)
    return fulfillments, outputs, ruling


def _fulfillment(item: Input) -> Fulfillment:
    owners = item.owners_before
    if not 1 <= len(owners) <= limits.OWNERS_MAX:
        raise LimitExceeded(
            f"`owners_before` has {len(owners)} keys, it needs at least one and the limit "
            f"is {limits.OWNERS_MAX}."
        )
    for owner in owners:
        decode_key(owner)
    link = item.fulfills
    if link is not None and link.output_index > limits.OUTPUT_INDEX_MAX:
        raise LimitExceeded(
            f"`output_index` is {link.output_index}, the limit is {limits.OUTPUT_INDEX_MAX}, because a "
            f"transaction has at most {limits.OUTPUTS_MAX} outputs."
        )
    if item.fulfillment is None:
        raise InvalidSignature("Fulfillment URI couldn't been parsed")
    return decode_fulfillment(item.fulfillment)


def _output(output: Output) -> NewOutput:
    condition, keys = condition_of(output.condition.details)
    uri = condition.uri
    if output.condition.uri != uri:
        raise InvalidCondition(
            f"`condition.uri` must be the one computed from `condition.details`, {uri}, "
            f"but it is {shown(output.condition.uri)}."
        )
    public_keys = output.public_keys
    if len(public_keys) > limits.OWNERS_MAX:
        raise LimitExceeded(f"`public_keys` has {len(public_keys)} keys, the limit is {limits.OWNERS_MAX}.")
    if tuple(public_keys) != keys and set(public_keys) != set(keys):
        raise InvalidCondition(
            f"`public_keys` must be the keys in `condition.details`, {shown(list(keys))}, "
            f"but it is {shown(public_keys)}."
        )
    return NewOutput(_amount(output.amount), uri, keys)


def _amount(text: str) -> int:
    if text == "1":
        return 1
    if not (text.isascii() and text.isdigit()):
        raise AmountError(f"An amount is decimal digits, not {shown(text)}.")
    if text[0] == "0":
        if text.strip("0"):
            raise AmountError(f"The amount {shown(text)} must be written without leading zeros.")
        raise AmountError("An amount must be at least 1, it is 0.")
    if len(text) > _AMOUNT_DIGITS_MAX or int(text) > limits.AMOUNT_MAX:
        raise AmountError(f"The amount {text[:40]} is over the limit, which is {limits.AMOUNT_MAX}.")
    return int(text)


def _check_signatures(inputs: list[Input], fulfillments: list[Fulfillment], unsigned: bytes) -> int:
    """Verify all signatures and count them; by now everything that is cheap has been checked."""
    count = sum([fulfillment.signature_count() for fulfillment in fulfillments])
    if count > limits.SIGNATURES_MAX:
        raise LimitExceeded(f"The transaction has {count} signatures, the limit is {limits.SIGNATURES_MAX}.")
    shared = sha3_256(unsigned)
    for item, fulfillment in zip(inputs, fulfillments, strict=True):
        digest = shared
        if item.fulfills is not None:
            # Copying the state keeps many inputs of a long transaction from hashing it once each.
            digest = shared.copy()
            digest.update(_suffix(item.fulfills))
        if not fulfillment.verify(digest.digest()):
            raise InvalidSignature("Transaction signature is invalid.")
    return count
