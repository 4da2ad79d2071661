"""Nobody but the signers can make a second transaction of a signed one.

A stranger has the signed bytes and no keys. Whatever else he writes in the place of anything, with the id
that fits: it is refused, or it is the very same transaction, byte for byte.
"""

import base64
import json
from collections.abc import Iterator
from copy import deepcopy
from itertools import permutations
from typing import Any

import pytest

from bcdb.model.canonical import Form
from bcdb.model.conditions import decode_fulfillment, ed25519_details, threshold_details
from bcdb.model.conditions.fulfillment import ThresholdFulfillment
from bcdb.model.errors import ValidationError
from bcdb.model.validation import verify
from tests.support.transactions import Signed, alice, bob, carol, create, rehashed, transfer

TWO_OF_THREE = threshold_details(2, [ed25519_details(pair.public_key) for pair in (alice, bob, carol)])
NESTED = threshold_details(
    2,
    [
        ed25519_details(carol.public_key),
        TWO_OF_THREE.subconditions[0],
        threshold_details(1, [ed25519_details(bob.public_key)]),
    ],
)  # type: ignore[index]

PLAIN = create(
    recipients=[([alice.public_key], 7), (TWO_OF_THREE, 2)], asset={"a": {"b": 1}}, metadata={"m": [1, "x:y"]}
)
PAIR = create([alice, bob], recipients=[(NESTED, 5)], asset={"a": 1})
MOVED = transfer([(PLAIN, 0)], [([bob.public_key], 7)], metadata={"m": 1.0})
SHARED = transfer([(PLAIN, 1)], [([bob.public_key], 2)])
DEEP = transfer([(PAIR, 0)], [([bob.public_key], 5)])
ODD = create(asset={"n": 0.000001, "t": "\x1f"}, form=Form.JAVASCRIPT)
ALL = {"plain": PLAIN, "pair": PAIR, "moved": MOVED, "shared": SHARED, "deep": DEEP, "odd": ODD}

everything = pytest.mark.parametrize("made", ALL.values(), ids=ALL.keys())


def same_or_refused(made: Signed, raw: bytes) -> bool:
    """True when it is the same transaction; False when it is refused; anything else fails the test."""
    try:
        verified = verify(raw)
    except ValidationError:
        return False
    assert verified == made.verified, f"a second transaction from the same signatures: {raw!r}"
    return True


def no_twin_with(made: Signed, fulfillment: str) -> None:
    """With this fulfillment it is refused, or can't spend what `made` spends.

    A strict fulfillment of another condition is valid for a TRANSFER as far as the model can see; the ledger
    compares the condition with that of the output that is spent.
    """
    tx = deepcopy(made.tx)
    tx["inputs"][0]["fulfillment"] = fulfillment
    try:
        verified = verify(rehashed(tx))
    except ValidationError:
        return
    assert verified.spends, f"a second CREATE from the same signatures: {fulfillment}"
    assert verified.spends[0].condition != made.verified.spends[0].condition


# --- fulfillments ---


def to_text(der: bytes) -> str:
    return base64.urlsafe_b64encode(der).decode().rstrip("=")


def to_der(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def tlv(tag: int, content: bytes, *, padding: int = 0) -> bytes:
    """A DER element; `padding` surplus bytes in its length make it BER."""
    if len(content) < 128 and not padding:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes(max(1, (len(content).bit_length() + 7) // 8) + max(0, padding - 1), "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def parts(der: bytes) -> list[tuple[int, bytes]]:
    """The elements that follow each other in `der`."""
    found = []
    while der:
        size, start = der[1], 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(der[2:start], "big")
        found.append((der[0], der[start : start + size]))
        der = der[start + size :]
    return found


def other_texts(text: str) -> Iterator[str]:
    """Other texts for the same bytes, for lenient readers of base64."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    yield from (text + "=", text + "==", text + "\n", " " + text, text + "A", text + "AAAA", text[:-1])
    yield from (f"{text[:40]}\n{text[40:]}", f"{text[:40]} {text[40:]}", text[:40] + "." + text[40:])
    yield text.replace("-", "+").replace("_", "/") if set(text) & set("-_") else text + "+"
    if len(text) % 4:
        last = alphabet.index(text[-1])
        yield from (text[:-1] + alphabet[last ^ bit] for bit in (1, 2, 3))
    yield from (f"ni:///{text}", f"cf:4:{text}", text.swapcase())


def other_ders(der: bytes) -> Iterator[bytes]:
    """Other bytes for the same tree, for lenient readers of DER."""
    ((tag, content),) = parts(der)
    yield from (der + b"\0", der + der, b"\0" + der, der + tlv(5, b""))
    yield from (tlv(tag, content, padding=size) for size in (1, 2, 4))
    yield bytes([tag, 0x80]) + content + b"\0\0"
    yield tlv(0x30, der)
    yield tlv(tag & ~0x20, content)
    inside = parts(content)
    for position, (inner_tag, inner) in enumerate(inside):
        for size in (1, 2):
            respelt = tlv(inner_tag, inner, padding=size)
            yield tlv(
                tag, b"".join(respelt if n == position else tlv(*part) for n, part in enumerate(inside))
            )
        if inner_tag & 0x20:
            members = [tlv(*part) for part in parts(inner)]
            for order in permutations(members):
                yield tlv(
                    tag,
                    b"".join(
                        tlv(inner_tag, b"".join(order)) if n == position else tlv(*part)
                        for n, part in enumerate(inside)
                    ),
                )
            for member in members:
                more = b"".join(sorted([*members, member]))
                yield tlv(
                    tag,
                    b"".join(
                        tlv(inner_tag, more) if n == position else tlv(*part) for n, part in enumerate(inside)
                    ),
                )
    yield tlv(tag, b"".join(tlv(*part) for part in reversed(inside)))
    yield tlv(tag, content + tlv(0x82, b""))


def other_trees(text: str) -> Iterator[str]:
    """Strictly spelt fulfillments of other conditions, made of the same signatures."""
    fulfillment = decode_fulfillment(text)
    leaves = fulfillment.leaves()
    stranger = decode_fulfillment(SHARED.tx["inputs"][0]["fulfillment"]).condition
    yield ThresholdFulfillment((fulfillment,), ()).encode()
    yield ThresholdFulfillment((fulfillment,), (stranger,)).encode()
    yield ThresholdFulfillment((fulfillment, fulfillment), ()).encode()
    yield ThresholdFulfillment((ThresholdFulfillment((fulfillment,), ()),), ()).encode()
    yield ThresholdFulfillment(tuple(leaves), ()).encode()
    yield from (leaf.encode() for leaf in leaves)
    if isinstance(fulfillment, ThresholdFulfillment):
        conditions = fulfillment.conditions
        yield ThresholdFulfillment(
            fulfillment.fulfillments[:-1], (*conditions, fulfillment.fulfillments[-1].condition)
        ).encode()
        yield ThresholdFulfillment(fulfillment.fulfillments, (*conditions, stranger)).encode()
        yield ThresholdFulfillment(fulfillment.fulfillments, conditions[1:]).encode()


@everything
def test_another_fulfillment(made: Signed) -> None:
    text = made.tx["inputs"][0]["fulfillment"]
    der = to_der(text)
    assert to_text(der) == text
    others = {*other_texts(text), *(to_text(other) for other in other_ders(der)), *other_trees(text)} - {text}
    assert len(others) > 30
    for other in others:
        no_twin_with(made, other)


@everything
def test_a_flipped_bit_in_a_fulfillment(made: Signed) -> None:
    der = to_der(made.tx["inputs"][0]["fulfillment"])
    for place in range(len(der)):
        no_twin_with(made, to_text(der[:place] + bytes([der[place] ^ 1 << place % 8]) + der[place + 1 :]))


# --- everything else ---


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every place in a JSON document, with what stands there."""
    if path:
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def with_at(tx: Any, path: tuple[Any, ...], value: Any) -> Any:
    copy = deepcopy(tx)
    below = copy
    for step in path[:-1]:
        below = below[step]
    below[path[-1]] = value
    return copy


def respellings(value: Any) -> Iterator[Any]:
    """What a lenient reader might take for `value`."""
    if isinstance(value, str):
        yield from (
            value + "\n",
            value + " ",
            " " + value,
            "\ufeff" + value,
            value + "\0",
            value.upper(),
            value.lower(),
        )
        yield from (
            "0" + value,
            "+" + value,
            value + ".0",
            value + "e0",
            "1" + value,
            value + "&",
            [value],
            {"$": value},
        )
        yield from (value.swapcase(), value.replace("-", "+").replace("_", "/"), value + "=")
        if value.isdigit():
            yield from (int(value), float(value), "٣", f"{value}_", hex(int(value)))
        if value.startswith("ni:"):
            head, _, query = value.partition("?")
            turned = "&".join(reversed(query.split("&")))
            yield from (f"{head}?{turned}", value.replace("cost=", "cost=0"), value.replace("ni:", "NI:"))
            yield from (value.replace("///", "//host/"), value + "#", value.replace("sha-256;", "sha-256;="))
            yield from (
                value + "&subtypes=ed25519-sha-256",
                value + "&fpt=ed25519-sha-256",
                value.replace("&", "&&"),
            )
    elif isinstance(value, bool) or value is None:
        yield from (0, 1, "", [], {}, "null", not value)
    elif isinstance(value, int | float):
        yield from (float(value) + 0.5, -value - 1, str(value), bool(value), None, value + 1, [value])
        if isinstance(value, int):
            yield float(value)
    elif isinstance(value, list):
        yield from (
            None,
            {},
            [*value, *value],
            [value],
            list(reversed(value)),
            value[:-1],
            {str(n): item for n, item in enumerate(value)},
        )
        yield [*value, None]
    else:
        yield from (None, [], {**value, "extra": None}, {**value, "": 1}, [value], {"$ref": value})
        for name in value:
            others = {key: value[key] for key in value if key != name}
            yield others
            yield from ({**others, other: value[name]} for other in (name.upper(), f"{name} ", f"{name}\0"))


@everything
def test_any_value_written_otherwise(made: Signed) -> None:
    tried = 0
    for path, value in places(made.tx):
        for other in respellings(value):
            tx = with_at(made.tx, path, other)
            if (tx, str(tx)) == (made.tx, str(made.tx)):
                continue
            tried += 1
            if path[0] == "id":
                assert not same_or_refused(made, json.dumps(tx).encode())
                continue
            for form in Form:
                # JavaScript writes 1.0 and 1 alike, so in its form they are one transaction.
                same_or_refused(made, rehashed(tx, form=form))
    assert tried > 200


@everything
def test_a_key_twice(made: Signed) -> None:
    text = made.raw.decode()
    for path, value in places(made.tx):
        if isinstance(path[-1], int):
            continue
        member = (
            f'"{path[-1]}":{json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)}'
        )
        escaped = f'"\\u{ord(path[-1][0]):04x}{path[-1][1:]}"'
        for first in (member, f'"{path[-1]}":null', f"{escaped}:1", f'{escaped}:"\\u003a"'):
            for again in (
                text.replace(member, f"{first},{member}"),
                text.replace(member, f"{member},{first}"),
            ):
                if again != text:
                    assert not same_or_refused(made, again.encode()), again


@everything
def test_free_spellings_of_the_same_document(made: Signed) -> None:
    text = made.raw.decode()
    same = [
        json.dumps(made.tx),
        json.dumps(made.tx, indent=3, ensure_ascii=False),
        "".join(
            f"\\u{ord(char):04x}" if char.isalpha() and text[place - 1] == '"' else char
            for place, char in enumerate(text)
        ),
        text.replace(":", " :\t").replace("ni :\t", "ni:").replace("x :\ty", "x:y"),
        text.replace("ni:", "ni\\u003A").replace("x:y", "x\\u003ay"),
        text.replace("/", "\\/"),
        f"\r\n\t {text} \n",
    ]
    for spelling in same:
        assert same_or_refused(made, spelling.encode()), spelling
    turned = json.dumps({key: made.tx[key] for key in reversed(made.tx)}).encode()
    assert same_or_refused(made, turned)


@everything
def test_what_no_json_reader_should_take(made: Signed) -> None:
    text = made.raw
    for raw in (
        b"\xef\xbb\xbf" + text,
        text + text,
        text + b"\0",
        text + b"]",
        text[:-1] + b",}",
        text[:-1],
        text.replace(b'"', b"'"),
        text.replace(b'"version"', b"version"),
        text.replace(b"null", b"undefined").replace(b"1", b"01"),
        text[:-1] + b"/**/}",
        text.decode().encode("utf-16"),
        text.replace(b"2.0", b"2.0\xc0\x80"),
        text.replace(b"2.0", b"2.0\\ud800"),
    ):
        assert not same_or_refused(made, raw), raw
