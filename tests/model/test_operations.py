"""What each operation adds: who signs a CREATE, what a TRANSFER may spend, and what is not let in yet."""

from copy import deepcopy
from typing import Any

import msgspec
import pytest

from bcdb.model.build import prepare_create, prepare_transfer
from bcdb.model.conditions import ed25519_details, issuer_details, threshold_details
from bcdb.model.errors import DoubleSpend, OperationNotSupported, SchemaValidationError, TransactionOwnerError
from bcdb.model.operations import OPERATIONS
from bcdb.model.operations.base import is_hex_id
from bcdb.model.validation import verify
from tests.support.transactions import alice, bob, carol, create, rehashed, signed, transfer

A, B, C = alice.public_key, bob.public_key, carol.public_key


def signed_as(owners: list[str], details: Any, *keypairs: Any) -> bytes:
    """A CREATE by `owners` whose fulfillment is of another condition."""
    tx = prepare_create(issuers=owners)
    tx["inputs"][0]["fulfillment"] = msgspec.to_builtins(details)
    return signed(tx, keypairs).raw


@pytest.mark.parametrize(
    ("owners", "details"),
    [
        pytest.param([A], ed25519_details(B), id="forged"),
        pytest.param([A, B], ed25519_details(B), id="one of two"),
        pytest.param([A], issuer_details([A, B]), id="one more than named"),
        pytest.param([A], threshold_details(1, [ed25519_details(A)]), id="wrapped"),
        pytest.param([A, B], threshold_details(1, [ed25519_details(A), ed25519_details(B)]), id="any of two"),
        pytest.param([A, B], threshold_details(1, [issuer_details([A, B])]), id="both, wrapped"),
        pytest.param([A, A], ed25519_details(A), id="twice named"),
    ],
)
def test_a_create_is_signed_by_its_issuers(owners: list[str], details: Any) -> None:
    with pytest.raises(
        TransactionOwnerError, match="must be signed by all of `owners_before` and nobody else"
    ):
        signed_as(owners, details, alice, bob)


def test_issuers_in_any_number() -> None:
    assert create([alice, bob, carol]).verified.issuers == tuple(sorted([A, B, C]))
    assert create([alice, alice]).verified.issuers == (A,)


def test_the_order_of_the_issuers_is_signed() -> None:
    made = create([alice, bob])
    tx = deepcopy(made.tx)
    tx["inputs"][0]["owners_before"].reverse()
    with pytest.raises(Exception, match=r"Transaction signature is invalid\."):
        verify(rehashed(tx))


def test_a_transfer_spends_several_outputs() -> None:
    made = create(recipients=[([A], 1), ([A, B], 2)])
    moved = transfer([(made, 1), (made, 0)], [([C], 3)])
    assert [(spend.output_index, spend.owners) for spend in moved.verified.spends] == [
        (1, tuple(sorted([A, B]))),
        (0, (A,)),
    ]
    assert moved.verified.asset_id == made.verified.id


def test_a_transfer_spends_an_output_once() -> None:
    made = create()
    with pytest.raises(DoubleSpend, match="twice"):
        transfer([(made, 0), (made, 0)], [([C], 2)])


def test_the_sum_of_a_transfer_is_limited() -> None:
    made = create(recipients=[([A], 9 * 10**18)])
    with pytest.raises(Exception, match="add up to"):
        transfer([(made, 0)], [([A], 9 * 10**18), ([A], 1)])


def test_an_asset_of_its_own_may_be_named() -> None:
    made, other = create(), create(asset={"b": 1})
    assert transfer([(made, 0)], [([A], 1)], asset_id=other.tx["id"]).verified.asset_id == other.verified.id


ELECTION = {"node_id": "n", "power": 1, "public_key": {"type": "ed25519-base64", "value": "v"}}


@pytest.mark.parametrize(
    ("operation", "data"),
    [
        ("VALIDATOR_ELECTION", ELECTION),
        ("VALIDATOR_ELECTION", {**ELECTION, "seed": "s"}),
        ("CHAIN_MIGRATION_ELECTION", {}),
    ],
)
def test_elections_have_a_shape_and_no_rules(operation: str, data: Any) -> None:
    tx = prepare_create(issuers=[A], asset=data)
    tx["operation"] = operation
    with pytest.raises(
        OperationNotSupported, match=f"The operation {operation} has no rules in this version"
    ):
        signed(tx, [alice])


def test_a_vote_has_a_shape_and_no_rules() -> None:
    tx = prepare_transfer(inputs=[(create().tx, 0)], recipients=[([A], 1)])
    tx["operation"] = "VOTE"
    with pytest.raises(OperationNotSupported, match="The operation VOTE has no rules in this version"):
        signed(tx, [alice])


@pytest.mark.parametrize(
    ("operation", "data", "text"),
    [
        ("VALIDATOR_ELECTION", {**ELECTION, "power": -1}, "-1 is less than the minimum of 0"),
        ("VALIDATOR_ELECTION", {**ELECTION, "power": True}, "True is not of type 'integer'"),
        ("VALIDATOR_ELECTION", {"power": 1}, "'node_id' is a required property"),
        ("CHAIN_MIGRATION_ELECTION", {"x": 1}, "('x' was unexpected)"),
        ("VOTE", {}, "Additional properties are not allowed ('data' was unexpected)"),
    ],
)
def test_misshapen_elections(operation: str, data: Any, text: str) -> None:
    tx = prepare_create(issuers=[A], asset=data)
    tx["operation"] = operation
    with pytest.raises(SchemaValidationError) as caught:
        signed(tx, [alice])
    assert text in caught.value.text


def test_types_are_named_after_their_operation() -> None:
    for operation in OPERATIONS.values():
        name = "".join(word.capitalize() for word in operation.NAME.split("_"))
        assert operation.DECODER.type is getattr(operation, name)


@pytest.mark.parametrize(
    "text", ["", "0" * 63, "0" * 65, "A" * 64, " " * 64, "g" * 64, "0 " * 32, "\u0660" * 64, "0" * 63 + "\n"]
)
def test_what_is_no_id(text: str) -> None:
    assert not is_hex_id(text)
    assert is_hex_id("0a" * 32)
