"""The `details` of an output's condition: the tree of keys and thresholds that its URI is made from.

Every tree that passes can be satisfied, in a way that no stranger can respell. This module must never let one
through whose fulfillment could be put together differently from the same signatures.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from bcdb.model import limits
from bcdb.model.conditions.condition import (
    ED25519,
    THRESHOLD,
    Condition,
    ed25519_condition,
    threshold_condition,
)
from bcdb.model.errors import InvalidCondition, LimitExceeded, ThresholdTooDeep, TransactionOwnerError
from bcdb.model.keys import decode_key

_DETAILS_CACHED = 16_384


class Details(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node: a key (`public_key`), or a `threshold` over `subconditions`.

    As in the reference there are no weights: who shall count twice stands twice. The fields stand in the
    order of canonical JSON. `condition_of` says whether the tree below makes sense.
    """

    public_key: str | UnsetType = UNSET
    subconditions: "list[Details] | UnsetType" = UNSET
    threshold: int | UnsetType = UNSET
    type: Literal["ed25519-sha-256", "threshold-sha-256"]


def ed25519_details(public_key: str) -> Details:
    """The node of one key, base58. The key is not checked."""
    return Details(type=ED25519, public_key=public_key)


def threshold_details(threshold: int, subconditions: Sequence[Details]) -> Details:
    """The node that asks for `threshold` of the subconditions. The numbers are not checked."""
    return Details(type=THRESHOLD, threshold=threshold, subconditions=list(subconditions))


def issuer_details(owners_before: Sequence[str]) -> Details:
    """The only condition that a CREATE by these owners may fulfil: the key of one, or all of several.

    Without it a stranger could wrap an issuer's signature in a threshold of one and so mint a twin. Raises
    TransactionOwnerError when there is nobody.
    """
    if not owners_before:
        raise TransactionOwnerError("owners_before is empty: a CREATE has at least one issuer.")
    if len(owners_before) == 1:
        return ed25519_details(owners_before[0])
    return threshold_details(len(owners_before), [ed25519_details(owner) for owner in owners_before])


def condition_of(details: Details) -> tuple[Condition, tuple[str, ...]]:
    """The condition of a tree, and the base58 keys in it, sorted, each once.

    Raises InvalidPublicKey; ThresholdTooDeep and LimitExceeded for a tree that is too large; InvalidCondition
    for a node that is neither key nor threshold, can't be satisfied, or is ambiguous: where less than all
    subconditions suffice anywhere, a key may occur only once in the whole tree, or one signature could be
    used in two places.
    """
    if details.type == ED25519 and details.subconditions is UNSET and details.threshold is UNSET:
        public_key = details.public_key
        if public_key is not UNSET:
            return _of_key(public_key)
    walk = _Walk()
    condition = walk.condition(details, 0)
    keys = tuple(sorted(set(walk.keys)))
    if walk.has_choice and len(keys) != len(walk.keys):
        raise InvalidCondition(
            "A threshold below the number of its subconditions needs keys that differ; "
            f"{len(walk.keys)} keys are named, {len(keys)} of them different."
        )
    return condition, keys


@lru_cache(maxsize=_DETAILS_CACHED)
def _of_key(public_key: str) -> tuple[Condition, tuple[str, ...]]:
    return ed25519_condition(decode_key(public_key)), (public_key,)


class _Walk:
    """One pass over a tree, with what must be known of the whole of it."""

    __slots__ = ("has_choice", "keys", "nodes")

    def __init__(self) -> None:
        self.nodes = 0
        self.keys: list[str] = []
        self.has_choice = False

    def condition(self, details: Details, depth: int) -> Condition:
        self.nodes += 1
        if self.nodes > limits.CONDITION_NODES_MAX:
            raise LimitExceeded(
                f"A condition has {limits.CONDITION_NODES_MAX + 1} nodes or more, "
                f"the limit is {limits.CONDITION_NODES_MAX}."
            )
        if details.type == ED25519:
            return self._key(details)
        if depth >= limits.CONDITION_DEPTH_MAX:
            raise ThresholdTooDeep(
                f"Thresholds are nested {limits.CONDITION_DEPTH_MAX + 1} deep or more, "
                f"the limit is {limits.CONDITION_DEPTH_MAX}."
            )
        return self._threshold(details, depth)

    def _key(self, details: Details) -> Condition:
        key = details.public_key
        if key is UNSET or details.subconditions is not UNSET or details.threshold is not UNSET:
            raise InvalidCondition(f"Details of type {ED25519} have a public_key and nothing else.")
        self.keys.append(key)
        return _of_key(key)[0]

    def _threshold(self, details: Details, depth: int) -> Condition:
        threshold, subconditions = details.threshold, details.subconditions
        if threshold is UNSET or subconditions is UNSET or details.public_key is not UNSET:
            raise InvalidCondition(
                f"Details of type {THRESHOLD} have threshold and subconditions and nothing else."
            )
        if threshold > limits.THRESHOLD_MAX:
            raise LimitExceeded(f"A threshold is at most {limits.THRESHOLD_MAX}, not {threshold}.")
        if not 1 <= threshold <= len(subconditions):
            raise InvalidCondition(
                f"A threshold of {threshold} over {len(subconditions)} subconditions can't be: "
                "it is at least 1 and at most their number."
            )
        self.has_choice |= threshold < len(subconditions)
        return threshold_condition(threshold, [self.condition(node, depth + 1) for node in subconditions])
