"""What the builder makes is what the reference's drivers make, and it verifies."""

from copy import deepcopy
from typing import Any

import pytest

from bcdb.model.build import prepare_create, prepare_transfer, sign
from bcdb.model.canonical import Form, encode_python
from bcdb.model.conditions import ed25519_details, threshold_details
from bcdb.model.errors import ValidationError
from bcdb.model.keys import KeyPair
from bcdb.model.validation import verify
from tests.support.transactions import alice, bob, carol, create, everyone
from tests.support.vectors import TRANSACTIONS

A, B, C = alice.public_key, bob.public_key, carol.public_key


@pytest.mark.parametrize("vector", TRANSACTIONS, ids=lambda vector: vector["name"])
def test_the_golden_transactions_are_made_again(vector: dict[str, Any]) -> None:
    golden = vector["transaction"]
    recipients = [(output["public_keys"], int(output["amount"])) for output in golden["outputs"]]
    if golden["operation"] == "CREATE":
        prepared = prepare_create(
            issuers=golden["inputs"][0]["owners_before"],
            recipients=recipients,
            asset=golden["asset"]["data"],
            metadata=golden["metadata"],
        )
    else:
        known = {other["transaction"]["id"]: other["transaction"] for other in TRANSACTIONS}
        links = [item["fulfills"] for item in golden["inputs"]]
        prepared = prepare_transfer(
            inputs=[(known[link["transaction_id"]], link["output_index"]) for link in links],
            recipients=recipients,
            metadata=golden["metadata"],
        )
    before = deepcopy(prepared)
    assert sign(prepared, everyone) == golden
    assert prepared == before


def test_signing_takes_one_pair_or_many() -> None:
    prepared = prepare_create(issuers=[A], asset={"x": 1})
    assert sign(prepared, alice) == sign(prepared, [bob, alice]) == sign(prepared, iter(everyone))


def test_defaults() -> None:
    tx = prepare_create(issuers=[A, B])
    assert (tx["asset"], tx["metadata"], tx["id"], tx["version"]) == ({"data": None}, None, None, "2.0")
    assert [(output["amount"], output["public_keys"]) for output in tx["outputs"]] == [("1", [A, B])]
    made = create()
    moved = prepare_transfer(inputs=[(made.tx, 0)], recipients=[([B], 1)])
    assert moved["asset"] == {"id": made.tx["id"]}
    again = prepare_transfer(inputs=[(sign(moved, alice), 0)], recipients=[([C], 1)])
    assert again["asset"] == {"id": made.tx["id"]}


def test_conditions_of_ones_own() -> None:
    details = threshold_details(
        2, [ed25519_details(A), threshold_details(1, [ed25519_details(B), ed25519_details(C)])]
    )
    made = create(recipients=[(details, 4)])
    prepared = prepare_transfer(inputs=[(made.tx, 0)], recipients=[([A], 4)])
    for pairs in ([alice, bob], [alice, carol], everyone):
        assert (
            verify(encode_python(sign(prepared, pairs))).spends[0].condition
            == made.verified.outputs[0].condition
        )
    with pytest.raises(ValidationError, match="do not suffice"):
        sign(prepared, [bob, carol])


def test_mistakes_have_sentences() -> None:
    made = create()
    for index in (1, -1):
        with pytest.raises(ValidationError, match=f"has 1 outputs, none at {index}"):
            prepare_transfer(inputs=[(made.tx, index)], recipients=[([A], 1)])
    with pytest.raises(ValidationError, match="needs at least one input"):
        prepare_transfer(inputs=[], recipients=[([A], 1)])
    with pytest.raises(ValidationError, match="not the details of a condition"):
        sign(made.tx, alice)
    with pytest.raises(ValidationError, match="do not suffice"):
        sign(prepare_create(issuers=[A]), bob)
    with pytest.raises(ValidationError):
        prepare_create(issuers=[])
    with pytest.raises(ValidationError):
        prepare_create(issuers=["nobody"])
    with pytest.raises(ValidationError, match="amount"):
        prepare_create(issuers=[A], recipients=[([A], 0)])


def test_a_new_pair_can_sign() -> None:
    pair = KeyPair.generate()
    for form in Form:
        tx = sign(prepare_create(issuers=[pair.public_key], asset={"x": 0.5}), pair, form=form)
        assert verify(encode_python(tx)).issuers == (pair.public_key,)
