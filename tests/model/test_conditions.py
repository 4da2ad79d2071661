"""Conditions: golden URIs, one URI each, trees that are refused, and signing."""

import string
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bcdb.model import limits
from bcdb.model.conditions import (
    Condition,
    Details,
    condition_of,
    decode_fulfillment,
    ed25519_details,
    issuer_details,
    sign_fulfillment,
    threshold_details,
)
from bcdb.model.errors import (
    InvalidCondition,
    InvalidPublicKey,
    InvalidSignature,
    LimitExceeded,
    ThresholdTooDeep,
    TransactionOwnerError,
    ValidationError,
)
from bcdb.model.keys import encode_key
from tests.model.trees import BY_KEY, PAIRS, trees
from tests.support.vectors import CONDITIONS, MESSAGE, TRANSACTIONS

KEYS = [pair.public_key for pair in PAIRS]
LEAVES = [ed25519_details(key) for key in KEYS]
URIS = [golden["uri"] for golden in CONDITIONS]


def details_of(document: object) -> Details:
    return msgspec.convert(document, Details)


@pytest.mark.parametrize("golden", CONDITIONS, ids=lambda golden: golden["name"])
def test_golden_conditions(golden: dict[str, object]) -> None:
    details = details_of(golden["details"])
    condition, keys = condition_of(details)
    assert condition.uri == golden["uri"]
    assert list(keys) == sorted(set(keys))
    assert Condition.from_uri(condition.uri) == condition


@pytest.mark.parametrize("golden", TRANSACTIONS, ids=lambda golden: golden["name"])
def test_golden_outputs(golden: dict[str, object]) -> None:
    transaction = golden["transaction"]
    assert isinstance(transaction, dict)
    for output in transaction["outputs"]:
        condition, keys = condition_of(details_of(output["condition"]["details"]))
        assert condition.uri == output["condition"]["uri"]
        assert list(keys) == sorted(output["public_keys"])


def test_details_are_written_in_canonical_order() -> None:
    encoder = msgspec.json.Encoder(order="deterministic")
    details = threshold_details(1, [ed25519_details(KEYS[0])])
    assert encoder.encode(details) == (
        b'{"subconditions":[{"public_key":"%b","type":"ed25519-sha-256"}],"threshold":1,"type":"threshold-sha-256"}'
        % KEYS[0].encode()
    )
    assert encoder.encode(details) == encoder.encode(msgspec.to_builtins(details))


@given(trees(), st.randoms())
@settings(max_examples=50)
def test_the_order_of_subconditions_does_not_matter(details: Details, random: object) -> None:
    def shuffled(node: Details) -> Details:
        if not isinstance(node.subconditions, list):
            return node
        nodes = [shuffled(below) for below in node.subconditions]
        random.shuffle(nodes)  # type: ignore[attr-defined]
        return msgspec.structs.replace(node, subconditions=nodes)

    assert condition_of(shuffled(details)) == condition_of(details)


@given(trees(distinct=False))
@settings(max_examples=50)
def test_keys_are_named_once_and_sorted(details: Details) -> None:
    condition, keys = condition_of(details)
    assert list(keys) == sorted(set(keys))
    assert Condition.from_uri(condition.uri) == condition


def assert_refused_or_another(text: str, uri: str) -> None:
    """`text` is no URI at all, or the one spelling of something else."""
    try:
        read = Condition.from_uri(text)
    except InvalidCondition:
        return
    assert read.uri == text
    assert read != Condition.from_uri(uri)


@pytest.mark.parametrize("uri", [URIS[0], URIS[2]], ids=["one key", "threshold"])
def test_no_respelling_of_a_uri_is_the_same_condition(uri: str) -> None:
    for place in range(len(uri) + 1):
        for character in string.printable + "é":
            for text in (uri[:place] + character + uri[place:], uri[:place] + character + uri[place + 1 :]):
                if text != uri:
                    assert_refused_or_another(text, uri)


RESPELLINGS: list[Callable[[str], str]] = [
    lambda uri: uri + "&",
    lambda uri: uri + "#",
    lambda uri: uri + "\n",
    lambda uri: " " + uri,
    lambda uri: uri.upper(),
    lambda uri: uri.lower(),
    lambda uri: uri.replace("ni:///", "ni://example.org/"),
    lambda uri: uri.replace("ni:", "NI:"),
    lambda uri: uri.replace("sha-256;", "SHA-256;"),
    lambda uri: uri.replace("cost=", "cost=0"),
    lambda uri: uri.replace("cost=", "cost=+"),
    lambda uri: uri.replace("&cost=", "&cost=131072&cost="),
    lambda uri: uri.replace("cost=1", "cost=\N{ARABIC-INDIC DIGIT ONE}"),
    lambda uri: uri.replace("cost=", "cost=4294967296"),
    lambda uri: uri.replace("fpt=", "%66pt="),
    lambda uri: uri.replace("fpt=ed25519-sha-256&cost=131072", "cost=131072&fpt=ed25519-sha-256"),
    lambda uri: uri.replace("fpt=ed25519-sha-256&cost=131072", "fpt=ed25519-sha-256&cost=131073"),
    lambda uri: uri.replace("ed25519-sha-256", "preimage-sha-256", 1),
    lambda uri: uri.replace("?", "=?"),
    lambda uri: uri.replace("-", "+", 1),
    lambda uri: uri.replace("&subtypes=ed25519-sha-256", ""),
    lambda uri: uri.replace("subtypes=ed25519-sha-256", "subtypes=ed25519-sha-256,ed25519-sha-256"),
    lambda uri: uri.replace("subtypes=ed25519-sha-256", "subtypes=ed25519-sha-256,threshold-sha-256"),
    lambda uri: uri + ("" if "subtypes" in uri else "&subtypes=ed25519-sha-256"),
]


@pytest.mark.parametrize("uri", URIS, ids=[golden["name"] for golden in CONDITIONS])
def test_known_respellings_of_a_uri_are_refused(uri: str) -> None:
    for respell in RESPELLINGS:
        text = respell(uri)
        if text != uri:
            assert_refused_or_another(text, uri)


def test_spare_bits_in_a_uri_are_refused() -> None:
    start, middle, rest = URIS[0].partition("?")
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    place = alphabet.index(start[-1])
    assert place % 4 == 0
    for spare in (1, 2, 3):
        with pytest.raises(InvalidCondition):
            Condition.from_uri(start[:-1] + alphabet[place + spare] + middle + rest)


@given(st.text() | st.from_regex(r"ni:///sha-256;[A-Za-z0-9_-]{43}\?fpt=ed25519-sha-256&cost=[0-9]{1,7}"))
@settings(max_examples=300)
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        assert Condition.from_uri(text).uri == text
    except InvalidCondition:
        return


def nested(depth: int) -> Details:
    details = LEAVES[0]
    for _ in range(depth):
        details = threshold_details(1, [details])
    return details


@pytest.mark.parametrize(
    ("details", "error"),
    [
        (threshold_details(0, LEAVES[:2]), InvalidCondition),
        (threshold_details(-1, LEAVES[:2]), InvalidCondition),
        (threshold_details(3, LEAVES[:2]), InvalidCondition),
        (threshold_details(5, []), InvalidCondition),
        (threshold_details(1, []), InvalidCondition),
        (threshold_details(10**30, LEAVES), LimitExceeded),
        (threshold_details(101, [LEAVES[0]] * 101), LimitExceeded),
        (threshold_details(1, [LEAVES[0]] * limits.CONDITION_NODES_MAX), LimitExceeded),
        (nested(limits.CONDITION_DEPTH_MAX + 1), ThresholdTooDeep),
        (nested(900), ThresholdTooDeep),
        (ed25519_details(KEYS[0] + "1"), InvalidPublicKey),
        (threshold_details(1, [ed25519_details("")]), InvalidPublicKey),
        (Details(type="ed25519-sha-256"), InvalidCondition),
        (Details(type="ed25519-sha-256", public_key=KEYS[0], threshold=1), InvalidCondition),
        (Details(type="ed25519-sha-256", public_key=KEYS[0], subconditions=[]), InvalidCondition),
        (Details(type="threshold-sha-256", threshold=1), InvalidCondition),
        (Details(type="threshold-sha-256", subconditions=LEAVES[:1]), InvalidCondition),
        (
            Details(type="threshold-sha-256", threshold=1, subconditions=LEAVES[:1], public_key=KEYS[0]),
            InvalidCondition,
        ),
    ],
)
def test_trees_that_make_no_sense_are_refused(details: Details, error: type[ValidationError]) -> None:
    with pytest.raises(error) as caught:
        condition_of(details)
    assert len(caught.value.text) < 500


def test_the_limits_themselves_are_allowed() -> None:
    condition_of(nested(limits.CONDITION_DEPTH_MAX))
    condition_of(threshold_details(limits.THRESHOLD_MAX, [LEAVES[0]] * limits.THRESHOLD_MAX))
    many = [ed25519_details(encode_key(number.to_bytes(32, "big"))) for number in range(999)]
    assert len(condition_of(threshold_details(1, many))[1]) == limits.CONDITION_NODES_MAX - 1


@pytest.mark.parametrize(
    "details",
    [
        threshold_details(1, [LEAVES[0], LEAVES[0]]),
        threshold_details(2, [LEAVES[0], LEAVES[0], LEAVES[1]]),
        threshold_details(1, [threshold_details(2, LEAVES[:2]), LEAVES[0]]),
        threshold_details(2, [threshold_details(1, LEAVES[:2]), LEAVES[0]]),
        threshold_details(2, [threshold_details(1, LEAVES[:2]), threshold_details(2, [LEAVES[3]] * 2)]),
    ],
)
def test_a_choice_between_places_of_one_key_is_refused(details: Details) -> None:
    with pytest.raises(InvalidCondition, match="keys that differ"):
        condition_of(details)


def test_the_issuers_of_a_create() -> None:
    assert issuer_details(KEYS[:1]) == LEAVES[0]
    assert issuer_details(KEYS[:3]) == threshold_details(3, LEAVES[:3])
    assert issuer_details([KEYS[0]] * 2) == threshold_details(2, [LEAVES[0]] * 2)
    assert condition_of(issuer_details(KEYS[:3])) == condition_of(issuer_details(KEYS[2::-1]))
    with pytest.raises(TransactionOwnerError):
        issuer_details([])


@pytest.mark.parametrize("golden", CONDITIONS, ids=lambda golden: golden["name"])
def test_golden_fulfillments_are_signed_the_same(golden: dict[str, list[str]]) -> None:
    pairs = {key: BY_KEY[key] for key in golden["signers"]}
    assert sign_fulfillment(details_of(golden["details"]), MESSAGE, pairs).encode() == golden["fulfillment"]


@given(trees(), st.sets(st.sampled_from(KEYS)), st.binary(max_size=40))
@settings(max_examples=60, deadline=None)
def test_signing_is_minimal_and_verifies(details: Details, keys: set[str], message: bytes) -> None:
    pairs = {key: BY_KEY[key] for key in keys}
    try:
        fulfillment = sign_fulfillment(details, message, pairs)
    except InvalidSignature:
        assert not keys.issuperset(condition_of(details)[1])
        return
    assert fulfillment.uri == condition_of(details)[0].uri
    assert fulfillment.verify(message)
    assert not fulfillment.verify(message + b"x")
    assert keys.issuperset(fulfillment.signers())
    assert len(fulfillment.signers()) == fulfillment.signature_count() <= limits.THRESHOLD_MAX
    assert decode_fulfillment(fulfillment.encode()) == fulfillment


def test_who_can_not_sign_is_named() -> None:
    with pytest.raises(InvalidSignature, match=f"do not suffice to sign; there is none for {KEYS[0]}"):
        sign_fulfillment(threshold_details(2, LEAVES[:2]), b"message", {KEYS[1]: PAIRS[1]})


def test_the_first_that_can_sign_do() -> None:
    pairs = {key: BY_KEY[key] for key in KEYS[1:4]}
    fulfillment = sign_fulfillment(threshold_details(2, LEAVES[:4]), b"message", pairs)
    assert sorted(fulfillment.signers()) == sorted(KEYS[1:3])
