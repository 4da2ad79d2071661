"""Each rule with its error: the name, the sentence, and which fault is named when there are several."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from bcdb.model import limits
from bcdb.model.build import prepare_create, prepare_transfer, sign
from bcdb.model.canonical import Form, encode_python
from bcdb.model.conditions import ed25519_details, threshold_details
from bcdb.model.errors import InvalidJson, ValidationError
from bcdb.model.reading import read_quickly
from bcdb.model.validation import verify, verify_canonical
from tests.support.transactions import Signed, alice, bob, carol, create, rehashed, signed, transfer

MADE = create(
    recipients=[([alice.public_key], 3), ([bob.public_key], 4)], asset={"a": 1}, metadata={"m": "x"}
)
MOVED = transfer([(MADE, 0)], [([bob.public_key], 3)])

Change = Callable[[dict[str, Any]], object]


def refusal(raw: bytes) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        verify(raw)
    with pytest.raises(ValidationError) as again:
        verify_canonical(raw)
    assert (again.value.name, again.value.text) == (caught.value.name, caught.value.text)
    return caught.value


def changed(made: Signed, change: Change) -> bytes:
    """What a stranger can make of it: the change, and the id that fits. The signatures stay."""
    tx = deepcopy(made.tx)
    change(tx)
    return rehashed(tx)


def put(*path: Any) -> Change:
    """A change that puts the last of `path` in the place that the others name."""

    def change(tx: Any) -> None:
        for step in path[:-2]:
            tx = tx[step]
        tx[path[-2]] = path[-1]

    return change


def drop(*path: Any) -> Change:
    def change(tx: Any) -> None:
        for step in path[:-1]:
            tx = tx[step]
        del tx[path[-1]]

    return change


NOT_A_TRANSACTION = [
    (b"[]", "[] is not of type 'object'"),
    (b"null", "None is not of type 'object'"),
    (b"1", "1 is not of type 'object'"),
    (b'"CREATE"', "'CREATE' is not of type 'object'"),
]


@pytest.mark.parametrize(("raw", "text"), NOT_A_TRANSACTION)
def test_a_body_that_is_no_object(raw: bytes, text: str) -> None:
    error = refusal(raw)
    assert error.message == f"Invalid transaction schema: {text}"


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff", b"{}{}", b'{"a":NaN}', b'{"a":"\\ud800"}', b"\xef\xbb\xbf{}"]
)
def test_a_body_that_is_no_json(raw: bytes) -> None:
    assert refusal(raw).name == "InvalidJson"


def test_the_id_is_checked_before_the_schema() -> None:
    assert refusal(b"{}").message == "Invalid transaction (InvalidHash): No transaction id found!"
    tx = deepcopy(MADE.tx)
    tx["extra"] = 1
    assert refusal(encode_python(tx)).message == (
        f"Invalid transaction (InvalidHash): The transaction's id '{tx['id']}' isn't equal to the hash of "
        "its body, i.e. it's not valid."
    )


@pytest.mark.parametrize(
    "wrong",
    [None, 1, 1.5, [], {}, "", "a", "0" * 64, MADE.tx["id"].upper(), MADE.tx["id"] + "\n", "x" * 100_000],
)
def test_a_wrong_id(wrong: Any) -> None:
    error = refusal(json.dumps({**MADE.tx, "id": wrong}).encode())
    assert error.name == "InvalidHash"
    assert "isn't equal to the hash of its body" in error.text
    assert len(error.text) < 1_000


SCHEMA = [
    (drop("version"), "'version' is a required property"),
    (drop("inputs"), "'inputs' is a required property"),
    (put("extra", 1), "Additional properties are not allowed ('extra' was unexpected)"),
    (lambda tx: tx.update(b=1, a=2), "Additional properties are not allowed ('a', 'b' were unexpected)"),
    (put("version", "3.0"), "'3.0' does not match '^2\\\\.0$'"),
    (put("version", "2.0\n"), "'2.0\\n' does not match '^2\\\\.0$'"),
    (put("version", 2.0), "2.0 is not of type 'string'"),
    (put("metadata", {}), "{} does not have enough properties"),
    (put("metadata", []), "[] is not of type 'object'"),
    (
        put("operation", "BURN"),
        "'BURN' is not one of ['CREATE', 'TRANSFER', 'VALIDATOR_ELECTION', 'CHAIN_MIGRATION_ELECTION', "
        "'VOTE']",
    ),
    (put("asset", None), "None is not of type 'object'"),
    (put("asset", {}), "'data' is a required property"),
    (put("asset", {"id": "0" * 64}), "Additional properties are not allowed ('id' was unexpected)"),
    (put("asset", "data", "text"), "'text' is not of type 'object'"),
    (put("inputs", []), "[] is too short"),
    (put("inputs", {}), "{} is not of type 'array'"),
    (lambda tx: tx["inputs"].append(tx["inputs"][0]), "is too long"),
    (drop("inputs", 0, "fulfills"), "'fulfills' is a required property"),
    (put("inputs", 0, "fulfillment", None), "None is not of type 'string'"),
    (put("inputs", 0, "fulfillment", "a b"), "'a b' does not match '^[a-zA-Z0-9_-]*$'"),
    (put("inputs", 0, "owners_before", None), "None is not of type 'array'"),
    (put("inputs", 0, "owners_before", []), "[] is too short"),
    (put("inputs", 0, "owners_before", ["0OIl"]), "'0OIl' does not match '^[1-9A-HJ-NP-Za-km-z]{32,44}$'"),
    (put("inputs", 0, "fulfills", {"output_index": 0, "transaction_id": "0" * 64}), "is not of type 'null'"),
    (put("outputs", []), "[] is too short"),
    (put("outputs", 0, "amount", 3), "3 is not of type 'string'"),
    (put("outputs", 0, "amount", "three"), "'three' does not match '^[0-9]{1,20}$'"),
    (put("outputs", 0, "amount", "\u0663"), "'\u0663' does not match '^[0-9]{1,20}$'"),
    (put("outputs", 0, "public_keys", None), "None is not of type 'array'"),
    (put("outputs", 0, "condition", "uri", "ni:///x"), "'ni:///x' does not match '^ni:///sha-256;"),
    (drop("outputs", 0, "condition", "uri"), "'uri' is a required property"),
    (put("outputs", 0, "condition", "details", "type", "preimage-sha-256"), "is not one of ['"),
    (
        put("outputs", 0, "condition", "details", "weight", 1),
        "Additional properties are not allowed ('weight' was",
    ),
]


@pytest.mark.parametrize(
    ("change", "text"), SCHEMA, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_schema_in_the_references_words(change: Change, text: str) -> None:
    message = refusal(changed(MADE, change)).message
    assert message.startswith("Invalid transaction schema: ")
    assert text in message


SCHEMA_OF_TRANSFER = [
    (put("asset", {"data": None}), "Additional properties are not allowed ('data' was unexpected)"),
    (put("asset", "id", "F" * 64), f"'{'F' * 64}' does not match '^[0-9a-f]{{64}}$'"),
    (put("inputs", []), "[] is too short"),
    (put("inputs", 0, "fulfills", None), "None is not of type 'object'"),
    (put("inputs", 0, "fulfills", "output_index", -1), "-1 is less than the minimum of 0"),
    (put("inputs", 0, "fulfills", "output_index", True), "True is not of type 'integer'"),
    (put("inputs", 0, "fulfills", "output_index", 0.0), "0.0 is not of type 'integer'"),
    (put("inputs", 0, "fulfills", "transaction_id", "0" * 63), "does not match '^[0-9a-f]{64}$'"),
]


@pytest.mark.parametrize(("change", "text"), SCHEMA_OF_TRANSFER)
def test_the_schema_of_a_transfer(change: Change, text: str) -> None:
    message = refusal(changed(MOVED, change)).message
    assert message.startswith("Invalid transaction schema: ")
    assert text in message


KEY_NAME = 'The key name cannot contain characters ".", "$" or null characters'
NAMES = [
    ({"$a": 1}, None, f'Invalid key name "$a" in asset object. {KEY_NAME}'),
    ({"a.b": 1}, None, f'Invalid key name "a.b" in asset object. {KEY_NAME}'),
    ({"a": [{"b": [{"c\0": 1}]}]}, None, f'Invalid key name "c\0" in asset object. {KEY_NAME}'),
    (None, {"x": {"y.": 1}}, f'Invalid key name "y." in metadata object. {KEY_NAME}'),
    ({"language": "klingon"}, {"$": 1}, f'Invalid key name "$" in metadata object. {KEY_NAME}'),
    ({"language": "klingon"}, None, 'MongoDB does not support text search for the language "klingon".'),
    (None, {"a": [{"language": 5}]}, 'MongoDB does not support text search for the language "5".'),
    (None, {"language": {"x": "en"}}, "MongoDB does not support text search for the language"),
    (None, {"k" * 1_025: 1}, "A key name in the metadata object has 1025 characters, the limit is 1024."),
]


@pytest.mark.parametrize(("asset", "metadata", "text"), NAMES)
def test_key_names_and_languages(asset: Any, metadata: Any, text: str) -> None:
    def change(tx: dict[str, Any]) -> None:
        tx["asset"]["data"], tx["metadata"] = asset, metadata

    assert refusal(changed(MADE, change)).text.startswith(text)


@pytest.mark.parametrize(
    "data", [{"a$": {"": 1, "é☃": [{"language": "german"}]}}, {"language": "none"}, {"k" * 1_024: 1}]
)
def test_names_that_are_allowed(data: dict[str, Any]) -> None:
    made = create(asset=data, metadata=data)
    assert json.loads(made.raw)["asset"]["data"] == data


def prepared(change: Change) -> dict[str, Any]:
    tx = prepare_create(issuers=[alice.public_key], recipients=[([alice.public_key], 1)], asset={"a": 1})
    change(tx)
    return tx


KEY = alice.public_key
OTHER_URI = MOVED.tx["outputs"][0]["condition"]["uri"]
DETAILS = ("outputs", 0, "condition", "details")


def threshold(number: Any, *nodes: dict[str, Any]) -> dict[str, Any]:
    return {"type": "threshold-sha-256", "threshold": number, "subconditions": list(nodes)}


def nested(depth: int) -> dict[str, Any]:
    node: dict[str, Any] = {"type": "ed25519-sha-256", "public_key": KEY}
    for _ in range(depth):
        node = threshold(1, node)
    return node


# Even the owner of the keys can't make these: they are signed properly.
RULES = [
    (put("outputs", 0, "amount", "0"), "AmountError", "An amount must be at least 1, it is 0."),
    (put("outputs", 0, "amount", "01"), "AmountError", "The amount '01' must be written without"),
    (put("outputs", 0, "amount", "9000000000000000001"), "AmountError", "which is 9000000000000000000"),
    (put("outputs", 0, "amount", "9" * 20), "AmountError", f"The amount {'9' * 20} is over the limit"),
    (put("outputs", 0, "condition", "uri", OTHER_URI), "InvalidCondition", "must be the one computed from"),
    (put("outputs", 0, "public_keys", [bob.public_key]), "InvalidCondition", "must be the keys in"),
    (put("outputs", 0, "public_keys", [KEY, bob.public_key]), "InvalidCondition", "must be the keys in"),
    (put("outputs", 0, "public_keys", [KEY[:-1]]), "InvalidCondition", "must be the keys in"),
    (put(*DETAILS, "public_key", "1" * 44), "InvalidPublicKey", "is not the base58 form of 32 bytes"),
    (put(*DETAILS, threshold(2, nested(0))), "InvalidCondition", "A threshold of 2 over 1 subconditions"),
    (put(*DETAILS, threshold(1, nested(0), nested(0))), "InvalidCondition", "keys that differ"),
    (
        put(*DETAILS, nested(17)),
        "ThresholdTooDeep",
        "Thresholds are nested 17 deep or more, the limit is 16.",
    ),
    (put("asset", "data", {"a": 2**63}), "LimitExceeded", "An integer must be within"),
    (put("asset", "data", {"a": -(2**63) - 1}), "LimitExceeded", "An integer must be within"),
    (lambda tx: tx["outputs"].extend(tx["outputs"] * 1_000), "LimitExceeded", "has 1001 outputs"),
    (put("outputs", 0, "public_keys", [KEY] * 1_001), "LimitExceeded", "has 1001 keys"),
    (put("metadata", {"m": "x" * 2**20}), "LimitExceeded", "the limit is 1048576 bytes."),
]


@pytest.mark.parametrize(("change", "name", "text"), RULES)
def test_rules_bind_the_owner_too(change: Change, name: str, text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        signed(prepared(change), [alice])
    assert caught.value.name == name
    assert text in caught.value.text


def test_the_schemas_thresholds() -> None:
    for number, text in (
        (0, "0 is less than the minimum of 1"),
        (101, "101 is greater than the maximum of 100"),
    ):
        with pytest.raises(ValidationError) as caught:
            signed(prepared(put(*DETAILS, threshold(number, nested(0)))), [alice])
        assert caught.value.message == f"Invalid transaction schema: {text}"


def test_json_is_at_most_so_deep() -> None:
    def data(depth: int) -> dict[str, Any]:
        value: Any = 1
        for _ in range(depth - 3):
            value = [value]
        return {"a": value}

    deepest = create(asset=data(limits.JSON_DEPTH_MAX))
    assert verify(deepest.raw.replace(b'"a"', b'"\\u0061"')) == deepest.verified
    assert verify(deepest.raw.replace(b'"a":', b'"a" :').replace(b"2.0", b"2\\u002e0")) == deepest.verified
    error = refusal(changed(MADE, put("asset", "data", data(limits.JSON_DEPTH_MAX + 1))))
    assert error.name == "LimitExceeded"
    assert "64 deep" in error.text
    assert "65 deep" in error.text


def test_the_sum_of_amounts_is_limited() -> None:
    half = limits.AMOUNT_MAX // 2
    assert create(recipients=[([KEY], half), ([KEY], half)]).verified.outputs[1].amount == half
    with pytest.raises(ValidationError, match="add up to `9000000000000000001`"):
        create(recipients=[([KEY], half), ([KEY], half + 1)])


def test_public_keys_are_compared_as_a_set() -> None:
    pair = threshold_details(2, [ed25519_details(KEY), ed25519_details(bob.public_key)])
    tx = prepare_create(issuers=[KEY], recipients=[(pair, 1)])
    tx["outputs"][0]["public_keys"] = [bob.public_key, KEY, bob.public_key]
    assert signed(tx, [alice]).verified.outputs[0].public_keys == tuple(sorted([KEY, bob.public_key]))


def test_a_fulfillment_that_is_none() -> None:
    for text in ("", "pGSA", "x", MADE.tx["inputs"][0]["fulfillment"] + "A"):
        error = refusal(changed(MADE, put("inputs", 0, "fulfillment", text)))
        assert error.message == "Invalid transaction (InvalidSignature): Fulfillment URI couldn't been parsed"


def test_a_wrong_signature_is_found_last() -> None:
    error = refusal(changed(MADE, put("metadata", {"m": "y"})))
    assert error.message == "Invalid transaction (InvalidSignature): Transaction signature is invalid."
    error = refusal(changed(MOVED, put("inputs", 0, "fulfills", "output_index", 1)))
    assert error.message == "Invalid transaction (InvalidSignature): Transaction signature is invalid."


def test_an_output_index_has_a_limit() -> None:
    error = refusal(changed(MOVED, put("inputs", 0, "fulfills", "output_index", 1_000)))
    assert error.text.startswith("`output_index` is 1000, the limit is 999")


def test_limits_on_lists_of_inputs_and_owners() -> None:
    error = refusal(changed(MOVED, lambda tx: tx["inputs"].extend(tx["inputs"] * 1_000)))
    assert error.text == "The transaction has 1001 inputs, the limit is 1000."
    error = refusal(changed(MOVED, put("inputs", 0, "owners_before", [KEY] * 1_001)))
    assert "`owners_before` has 1001 keys" in error.text


def test_signatures_are_counted_before_they_are_verified() -> None:
    keys = [KEY] * 50
    source = create(recipients=[(keys, 1)] * 21)
    tx = prepare_transfer(inputs=[(source.tx, index) for index in range(21)], recipients=[([KEY], 21)])
    with pytest.raises(ValidationError) as caught:
        signed(tx, [alice])
    assert caught.value.text == "The transaction has 1050 signatures, the limit is 1000."


def test_the_fault_that_comes_first_is_named() -> None:
    faults: list[tuple[Change, str]] = [
        (put("extra", 1), "SchemaValidationError"),
        (put("metadata", {"$": 1}), "ValidationError"),
        (put("inputs", 0, "fulfillment", "AAAA"), "InvalidSignature"),
        (put("outputs", 0, "condition", "uri", OTHER_URI), "InvalidCondition"),
        (put("outputs", 1, "amount", "0"), "AmountError"),
        (put("inputs", 0, "owners_before", [bob.public_key]), "TransactionOwnerError"),
    ]
    for first, (_, name) in enumerate(faults):

        def change(tx: dict[str, Any], first: int = first) -> None:
            for apply, _ in faults[first:]:
                apply(tx)

        assert refusal(changed(MADE, change)).name == name


def test_only_the_canonical_spelling_is_canonical() -> None:
    assert verify_canonical(MADE.raw) == MADE.verified
    for raw in (b" " + MADE.raw, json.dumps(MADE.tx).encode(), MADE.raw.replace(b"CREATE", b"CR\\u0045ATE")):
        assert verify(raw) == MADE.verified
        with pytest.raises(InvalidJson, match="not its canonical form"):
            verify_canonical(raw)


ODD = {
    "tiny": 0.000001,
    "low": 1e-7,
    "high": 1e21,
    "whole": 5.0,
    "control": "\x0b\x1f",
    "é\U0001f600": 1,
    "\ufb00": 2,
}


@pytest.mark.parametrize("form", list(Form))
def test_both_canonical_forms_are_valid(form: Form) -> None:
    made = create(asset=ODD, metadata=ODD, form=form)
    assert verify_canonical(made.raw) == made.verified
    moved = transfer([(made, 0)], [([bob.public_key], 1)], metadata=ODD, form=form)
    assert verify_canonical(moved.raw) == moved.verified
    assert (b'"tiny":0.000001' in made.raw) == (form is Form.JAVASCRIPT)
    assert (b"\\u001F" in made.raw) == (form is Form.PYTHON)


def test_common_spellings_are_read_the_quick_way() -> None:
    for made in (MADE, MOVED, create([alice, bob]), *(create(asset=ODD, form=form) for form in Form)):
        for raw in (made.raw, json.dumps(made.tx).encode(), json.dumps(made.tx, indent=2).encode()):
            assert read_quickly(raw) is not None


def test_the_forms_are_two_transactions() -> None:
    ids = {create(asset=ODD, form=form).verified.id for form in Form}
    assert len(ids) == 2
    assert len({create(asset={"a": [1, "é", None]}, form=form).verified.id for form in Form}) == 1


@pytest.mark.parametrize("number", [2**53, -(2**53), float(2**53), 1e20])
def test_the_javascript_form_needs_integers_that_javascript_has(number: float) -> None:
    assert create(asset={"n": number}).verified.operation == "CREATE"
    with pytest.raises(ValidationError) as caught:
        # The float beside it makes the two forms differ.
        create(asset={"n": number, "x": 0.000001}, form=Form.JAVASCRIPT)
    assert caught.value.name == "InvalidHash"


def test_a_document_of_a_mebibyte_is_refused_in_a_moment() -> None:
    """One that fits nowhere: the number of values is bounded, and so is the search for the sentence."""
    for hostile in ([1] * 400_000, [{}] * 300_000, [[]] * 300_000):
        assert refusal(rehashed({**MADE.tx, "outputs": hostile})).name == "LimitExceeded"
    for hostile in ([1] * 49_000, [{}] * 24_000, [[]] * 24_000, ["x" * 20] * 40_000):
        tx = deepcopy(MADE.tx)
        tx["outputs"][0]["condition"]["details"] = {"type": "threshold-sha-256", "subconditions": hostile}
        assert len(refusal(rehashed(tx)).message) < 2_000
        assert refusal(rehashed({**MADE.tx, "outputs": hostile})).name == "SchemaValidationError"


def test_carol_is_nobody_here() -> None:
    with pytest.raises(ValidationError, match="do not suffice"):
        transfer([(MADE, 0)], [([KEY], 3)], keypairs=[carol])


def test_the_canonical_form_is_bounded_too() -> None:
    # Posted as 1e15 a number has 4 characters, in the canonical form 18.
    asset = {"numbers": [1e15] * 48_000, "text": "x" * 200_000}
    raw = encode_python(sign(prepare_create(issuers=[alice.public_key], asset=asset), alice))
    assert len(raw) > limits.TRANSACTION_BYTES_MAX
    short = raw.replace(b"1000000000000000.0", b"1e15")
    assert len(short) < limits.TRANSACTION_BYTES_MAX
    with pytest.raises(ValidationError, match=r"The canonical form of the transaction has \d{7} bytes"):
        verify(short)


@pytest.mark.parametrize("text", ["[[],", "[1,"])
def test_the_values_of_a_document_are_bounded(text: str) -> None:
    few, many = limits.JSON_VALUES_MAX // 2 - 100, limits.JSON_VALUES_MAX
    value: Any = [] if text == "[[]," else 1
    assert create(asset={"v": [value] * few}).verified
    raw = changed(MADE, put("asset", "data", {"v": [value] * many, "text": ",[{" * 1_000}))
    error = refusal(raw)
    assert error.name == "LimitExceeded"
    assert error.text.endswith(f"JSON values, the limit is {limits.JSON_VALUES_MAX}.")


def test_what_stands_in_a_text_is_no_value() -> None:
    assert create(asset={"text": ',[{\\"' * 60_000}).verified
