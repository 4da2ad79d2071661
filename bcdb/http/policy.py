"""Whose transactions this node takes over HTTP: with `write_keys` set, what those keys issued and nothing
else.

This is the node's own door, not a rule of the chain: it must never be asked about what comes from a peer.
"""

from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from bcdb.model.errors import NotAllowed
from bcdb.model.transaction import Verified
from bcdb.node.reading import LedgerReader

CACHED_ASSETS_MAX = 16_384


class _Input(msgspec.Struct):
    owners_before: list[str]


class _Issued(msgspec.Struct):
    inputs: list[_Input]


_decoder = msgspec.json.Decoder(_Issued)


class WritePolicy:
    """Tells whether a verified transaction may be written here. No keys: everybody may."""

    def __init__(self, write_keys: Iterable[str], ledger: LedgerReader) -> None:
        self._keys = frozenset(write_keys)
        self._ledger = ledger
        self._assets: OrderedDict[bytes, bool] = OrderedDict()

    @property
    def is_open(self) -> bool:
        return not self._keys

    async def check(self, verified: Verified) -> None:
        """Raise `NotAllowed` unless every issuer of the asset is one of the keys.

        The issuers of an asset are read in its committed CREATE. While that is not committed no output of the
        asset can be spent, so such a TRANSFER is left to the node, which says what is missing.
        """
        if not self._keys:
            return
        if verified.operation == "CREATE":
            if not self._keys.issuperset(verified.issuers):
                raise NotAllowed(
                    "This node takes only assets of certain issuers, and this issuer is none of them"
                )
        elif not await self._was_issued_here(verified.asset_id):
            raise NotAllowed(
                "This node takes only assets of certain issuers, and this asset is of another issuer"
            )

    async def _was_issued_here(self, asset_id: bytes) -> bool:
        known = self._assets.get(asset_id)
        if known is not None:
            return known
        found = (await self._ledger.ready()).transaction(asset_id)
        if found is None:
            return True
        issuers = {key for given in _decoder.decode(found.body).inputs for key in given.owners_before}
        self._assets[asset_id] = allowed = self._keys.issuperset(issuers)
        if len(self._assets) > CACHED_ASSETS_MAX:
            self._assets.popitem(last=False)
        return allowed
