"""Random trees, compared with the crypto-conditions package that the unmodified JavaScript driver uses."""

import json
import random
import subprocess
from pathlib import Path
from typing import Any

from msgspec import UNSET

from bcdb.model.conditions import (
    Details,
    Ed25519Fulfillment,
    Fulfillment,
    ThresholdFulfillment,
    condition_of,
    decode_fulfillment,
    ed25519_details,
    threshold_details,
)
from bcdb.model.keys import decode_key, encode_key
from tests.support.nodejs import environment, node_path

SCRIPT = Path(__file__).with_name("conditions_oracle.js")
TREES = 300


def tree(dice: random.Random, depth: int) -> Details:
    if depth == 0 or dice.random() < 0.4:
        return ed25519_details(encode_key(dice.randbytes(32)))
    nodes = [tree(dice, depth - 1) for _ in range(dice.randint(1, 5))]
    return threshold_details(dice.randint(1, len(nodes)), nodes)


def fulfilled(dice: random.Random, details: Details) -> tuple[Fulfillment, dict[str, Any]]:
    """A fulfillment with made-up signatures, and the same for the script."""
    if details.public_key is not UNSET:
        leaf = Ed25519Fulfillment(decode_key(details.public_key), dice.randbytes(64))
        return leaf, {"key": leaf.public_key.hex(), "signature": leaf.signature.hex()}
    assert details.subconditions is not UNSET
    assert details.threshold is not UNSET
    made = [fulfilled(dice, node) for node in details.subconditions]
    chosen = set(dice.sample(range(len(made)), details.threshold))
    fulfillment = ThresholdFulfillment(
        tuple(made[place][0] for place in sorted(chosen)),
        tuple(made[place][0].condition for place in range(len(made)) if place not in chosen),
    )
    members = [text if place in chosen else {"open": text} for place, (_, text) in enumerate(made)]
    return fulfillment, {"threshold": details.threshold, "members": members}


def test_both_make_the_same() -> None:
    dice = random.Random(2)
    trees = [tree(dice, 4) for _ in range(TREES)]
    made = [fulfilled(dice, details) for details in trees]
    said = subprocess.run(
        [str(node_path()), str(SCRIPT)],
        input="\n".join(json.dumps(text) for _, text in made),
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
        timeout=60,
    ).stdout.splitlines()
    assert len(said) == TREES
    for details, (fulfillment, _), line in zip(trees, made, said, strict=True):
        expected = json.loads(line)
        assert condition_of(details)[0].uri == fulfillment.uri == expected["uri"]
        assert fulfillment.encode() == expected["fulfillment"]
        assert decode_fulfillment(expected["fulfillment"]) == fulfillment
