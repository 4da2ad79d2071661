"""`bcdb tx`: making, signing, sending and showing transactions."""

from pathlib import Path
from typing import Any

import msgspec

from bcdb.cli.screen import UsageError, note, print_json, say
from bcdb.cli.talk import connect
from bcdb.client import Client, NotFound, prepare_create, prepare_transfer, sign
from bcdb.client.results import Document, Mode
from bcdb.model import limits
from bcdb.model.errors import BcdbError, DuplicateTransaction, InvalidPublicKey
from bcdb.model.keys import decode_key
from bcdb.node.keyfile import read_key_file

MODES: tuple[Mode, ...] = ("commit", "sync", "async")
Recipient = tuple[list[str], int]


class SpendError(BcdbError):
    """The transaction has no such output to spend, or its output holds less than is given."""


def create(
    nodes: list[str] | None,
    key: Path,
    *,
    asset: str,
    metadata: str | None,
    to: list[str],
    mode: str,
    as_json: bool,
) -> None:
    pair = read_key_file(key)
    prepared = prepare_create(
        issuers=[pair.public_key],
        recipients=[_recipient(text) for text in to] or None,
        asset=_json_object("--asset", asset),
        metadata=None if metadata is None else _json_object("--metadata", metadata),
    )
    signed = sign(prepared, pair)
    how = _mode(mode)
    with connect(nodes) as client:
        _send(client, signed, how, as_json)


def transfer(
    nodes: list[str] | None,
    transaction_id: str,
    key: Path,
    *,
    to: list[str],
    output: int | None,
    metadata: str | None,
    mode: str,
    as_json: bool,
) -> None:
    pair = read_key_file(key)
    recipients = [_recipient(text) for text in to]
    about = None if metadata is None else _json_object("--metadata", metadata)
    how = _mode(mode)
    with connect(nodes) as client:
        spent = _committed(client, transaction_id)
        index = _output_of(spent, pair.public_key, output)
        amount = int(spent["outputs"][index]["amount"])
        if len(to) == 1 and ":" not in to[0]:
            recipients = [(recipients[0][0], amount)]
        left = amount - sum(given for _, given in recipients)
        if left < 0:
            raise SpendError(f"Output {index} of {transaction_id} holds {amount}: {-left} too little.")
        if left:
            recipients.append(([pair.public_key], left))
        prepared = prepare_transfer(inputs=[(spent, index)], recipients=recipients, metadata=about)
        _send(client, sign(prepared, pair), how, as_json)


def get(nodes: list[str] | None, transaction_id: str, *, status_only: bool, as_json: bool) -> None:
    with connect(nodes) as client:
        if not status_only:
            print_json(_committed(client, transaction_id))
            return
        found = client.status(transaction_id)
    if as_json:
        print_json(found)
    elif found.status == "committed":
        say(f"committed at height {found.height}, position {found.position}")
    elif found.error is not None:
        say(f"rejected: {found.error.name}: {found.error.text}")
    else:
        say(found.status)


def _send(client: Client, signed: Document, mode: Mode, as_json: bool) -> None:
    try:
        client.send(signed, mode=mode)
        done = "committed" if mode == "commit" else "accepted and durable"
    except DuplicateTransaction:
        # The same key and the same content make the same transaction: there is nothing more to do.
        done = f"there already ({client.status(signed['id']).status})"
    if as_json:
        print_json(signed)
    else:
        say(signed["id"])
        note(f"The {signed['operation']} is {done}.")


def _committed(client: Client, transaction_id: str) -> Document:
    try:
        return client.transaction(transaction_id)
    except NotFound:
        raise NotFound(
            f"Not found: no block holds a transaction {transaction_id}; "
            "`bcdb tx get --status` tells whether it is pending or was rejected."
        ) from None


def _output_of(transaction: Document, key: str, wanted: int | None) -> int:
    """The index of the output to spend: the one wanted, else the only one that `key` alone can spend."""
    outputs = transaction["outputs"]
    if wanted is not None:
        if not 0 <= wanted < len(outputs):
            raise SpendError(f"Transaction {transaction['id']} has {len(outputs)} outputs, none at {wanted}.")
        return wanted
    own = [index for index, output in enumerate(outputs) if output["public_keys"] == [key]]
    if not own:
        raise SpendError(f"Transaction {transaction['id']} has no output that this key can spend alone.")
    if len(own) > 1:
        raise SpendError(
            f"Transaction {transaction['id']} has {len(own)} outputs of this key; name one with --output."
        )
    return own[0]


def _recipient(text: str) -> Recipient:
    key, _, amount = text.partition(":")
    try:
        decode_key(key)
    except InvalidPublicKey as error:
        raise UsageError(f"--to: {error.text}") from None
    if amount and not (amount.isascii() and amount.isdigit() and 0 < int(amount[:30]) <= limits.AMOUNT_MAX):
        raise UsageError(f"An amount is a whole number from 1 to {limits.AMOUNT_MAX}, not {amount!r}.")
    return [key], int(amount or 1)


def _mode(text: str) -> Mode:
    for mode in MODES:
        if text == mode:
            return mode
    raise UsageError(f"--mode is one of {', '.join(MODES)}, not {text!r}.")


def _json_object(option: str, text: str) -> dict[str, Any]:
    """The JSON object in `text`, or in the file that an `@` before its name points to."""
    content = text.encode("utf-8", "surrogateescape")
    if text.startswith("@"):
        try:
            content = Path(text[1:]).read_bytes()
        except OSError as error:
            raise UsageError(f"{option}: the file {text[1:]} can't be read: {error.strerror}.") from None
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{option} is a JSON object or @FILE: {error}.") from None
