"""Condition trees drawn by Hypothesis, and everything that can be made of the signatures under one."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product

from hypothesis import strategies as st
from msgspec import UNSET

from bcdb.model.conditions import (
    Details,
    Ed25519Fulfillment,
    Fulfillment,
    ThresholdFulfillment,
    condition_of,
    ed25519_details,
    threshold_details,
)
from bcdb.model.keys import KeyPair, decode_key

PAIRS = [KeyPair.from_seed(bytes([seed]) * 32) for seed in range(1, 33)]
BY_KEY = {pair.public_key: pair for pair in PAIRS}


@st.composite
def trees(draw: st.DrawFn, *, distinct: bool = True, depth: int = 3) -> Details:
    """A valid tree of at most `depth` thresholds. One that is not `distinct` needs all signatures."""
    unused = iter(draw(st.permutations(PAIRS)))

    def node(depth: int) -> Details:
        if depth == 0 or draw(st.booleans()):
            pair = next(unused) if distinct else draw(st.sampled_from(PAIRS[:3]))
            return ed25519_details(pair.public_key)
        nodes = [node(depth - 1) for _ in range(draw(st.integers(1, 3)))]
        return threshold_details(draw(st.integers(1, len(nodes))) if distinct else len(nodes), nodes)

    return node(depth)


def every_fulfillment(details: Details, signatures: Mapping[str, bytes]) -> Iterator[Fulfillment]:
    """Every fulfillment of the tree that the signatures (by base58 key) allow, surplus ones left out."""
    if details.public_key is not UNSET:
        if details.public_key in signatures:
            yield Ed25519Fulfillment(decode_key(details.public_key), signatures[details.public_key])
        return
    assert details.subconditions is not UNSET
    assert details.threshold is not UNSET
    nodes = details.subconditions
    made = [list(every_fulfillment(node, signatures)) for node in nodes]
    for chosen in combinations(range(len(nodes)), details.threshold):
        rest = [condition_of(nodes[place])[0] for place in range(len(nodes)) if place not in chosen]
        for fulfillments in product(*(made[place] for place in chosen)):
            yield ThresholdFulfillment(fulfillments, tuple(rest))


def signatures_in(fulfillments: Sequence[Fulfillment]) -> dict[str, bytes]:
    """What a stranger has seen: the signature of each key."""
    return {
        leaf.signers()[0]: leaf.signature for fulfillment in fulfillments for leaf in fulfillment.leaves()
    }
