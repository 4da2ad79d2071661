"""The shapes keep canonical order, and what verification returns survives the frames of the node."""

import msgspec
import pytest

from bcdb.model import transaction as shapes
from bcdb.model.conditions import Details
from bcdb.model.operations import OPERATIONS
from bcdb.model.transaction import Verified
from bcdb.model.validation import verify, verify_canonical
from tests.support.transactions import alice, bob, create, transfer
from tests.support.vectors import TRANSACTIONS

SHAPES = [
    shapes.DataAsset,
    shapes.Input,
    shapes.Link,
    shapes.LinkedAsset,
    shapes.Output,
    shapes.OutputCondition,
    shapes.Transaction,
    Details,
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_fields_stand_in_canonical_order(shape: type[msgspec.Struct]) -> None:
    assert list(shape.__struct_fields__) == sorted(shape.__struct_fields__)


@pytest.mark.parametrize("vector", TRANSACTIONS, ids=lambda vector: vector["name"])
def test_golden_transactions_are_valid(vector: dict) -> None:
    tx = vector["transaction"]
    verified = verify(msgspec.json.encode(tx))
    assert verified.id.hex() == tx["id"]
    assert verified.operation == tx["operation"]
    assert verified.body == vector["hashed"].replace('"id":null', f'"id":"{tx["id"]}"', 1).encode()
    assert msgspec.json.decode(verified.body) == tx
    assert verify_canonical(verified.body) == verified


def test_what_is_verified_of_a_create() -> None:
    tx, raw, verified = create(
        [bob, alice], recipients=[([bob.public_key, alice.public_key], 5), ([bob.public_key], 2)]
    )
    assert verified == Verified(
        id=bytes.fromhex(tx["id"]),
        operation="CREATE",
        asset_id=bytes.fromhex(tx["id"]),
        issuers=tuple(sorted([alice.public_key, bob.public_key])),
        spends=(),
        outputs=(
            shapes.NewOutput(
                5, tx["outputs"][0]["condition"]["uri"], tuple(sorted([alice.public_key, bob.public_key]))
            ),
            shapes.NewOutput(2, tx["outputs"][1]["condition"]["uri"], (bob.public_key,)),
        ),
        body=raw,
        signatures=2,
    )


def test_what_is_verified_of_a_transfer() -> None:
    made = create([bob, alice])
    tx, raw, verified = transfer([(made, 0)], [([bob.public_key], 1)])
    assert verified == Verified(
        id=bytes.fromhex(tx["id"]),
        operation="TRANSFER",
        asset_id=made.verified.id,
        issuers=(),
        spends=(
            shapes.Spend(
                made.verified.id,
                0,
                made.verified.outputs[0].condition,
                tuple(sorted([alice.public_key, bob.public_key])),
            ),
        ),
        outputs=(shapes.NewOutput(1, tx["outputs"][0]["condition"]["uri"], (bob.public_key,)),),
        body=raw,
        signatures=2,
    )


def test_verified_round_trips_through_messagepack() -> None:
    made = create(recipients=[([alice.public_key], 3)])
    for verified in (made.verified, transfer([(made, 0)], [([bob.public_key], 3)]).verified):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(verified), type=Verified) == verified


def test_every_operation_of_the_format_has_its_module() -> None:
    assert list(OPERATIONS) == [
        "CREATE",
        "TRANSFER",
        "VALIDATOR_ELECTION",
        "CHAIN_MIGRATION_ELECTION",
        "VOTE",
    ]
    assert all(name == operation.NAME for name, operation in OPERATIONS.items())
