"""The client for asyncio: every call is awaited.

Nothing is decided here: each method hands its arguments to the call of the same name in `bcdb.client.calls`
and has its docstring from there.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from bcdb.client.calls import Calls, Inputs, Json, Posted, Recipients
from bcdb.client.results import (
    Answers,
    BatchResult,
    Block,
    Document,
    FoundAsset,
    FoundMetadata,
    Holding,
    Mode,
    NodeStatus,
    OutputReference,
    Page,
    StoreStatus,
    TransactionStatus,
    Validator,
)
from bcdb.client.steps import Pause, Step, Steps
from bcdb.client.wire import DIRECT, Verify, documented, lost, outgoing, received
from bcdb.model.build import Recipient
from bcdb.model.keys import KeyPair

T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio: the same arguments and calls, each awaited. Use it in one event loop."""

    def __init__(
        self,
        *urls: str,
        timeout_s: float = 20.0,
        min_height: int = 0,
        verify: Verify = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._calls = Calls(urls, timeout_s=timeout_s, min_height=min_height)
        self._http = httpx.AsyncClient(
            verify=verify, transport=transport, mounts=None if transport else DIRECT
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @property
    @documented(Calls.height)
    def height(self) -> int:
        return self._calls.height()

    @documented(Calls.create)
    async def create(
        self,
        issuer: KeyPair,
        *,
        asset: Json = None,
        metadata: Json = None,
        recipients: Recipients = None,
        mode: Mode = "commit",
    ) -> Document:
        return await self._run(
            self._calls.create(issuer, asset=asset, metadata=metadata, recipients=recipients, mode=mode)
        )

    @documented(Calls.transfer)
    async def transfer(
        self,
        owner: KeyPair | Iterable[KeyPair],
        inputs: Inputs,
        recipients: Sequence[Recipient],
        *,
        metadata: Json = None,
        mode: Mode = "commit",
    ) -> Document:
        return await self._run(self._calls.transfer(owner, inputs, recipients, metadata=metadata, mode=mode))

    @documented(Calls.send)
    async def send(self, transaction: Posted, *, mode: Mode = "commit") -> Document:
        return await self._run(self._calls.send(transaction, mode=mode))

    @documented(Calls.wait)
    async def wait(self, transaction_id: str, *, timeout_s: float = 30.0) -> TransactionStatus:
        return await self._run(self._calls.wait(transaction_id, timeout_s=timeout_s))

    @documented(Calls.batch)
    async def batch(self, transactions: Iterable[Posted]) -> list[BatchResult]:
        return await self._run(self._calls.batch(transactions))

    @documented(Calls.transaction)
    async def transaction(self, transaction_id: str) -> Document:
        return await self._run(self._calls.transaction(transaction_id))

    @documented(Calls.status)
    async def status(self, transaction_id: str) -> TransactionStatus:
        return await self._run(self._calls.status(transaction_id))

    @documented(Calls.transactions)
    async def transactions(
        self,
        asset_id: str,
        *,
        operation: str | None = None,
        newest: bool | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Document]:
        return await self._run(
            self._calls.transactions(asset_id, operation=operation, newest=newest, limit=limit, after=after)
        )

    @documented(Calls.outputs)
    async def outputs(
        self,
        public_key: str,
        *,
        spent: bool | None = None,
        at_height: int | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[OutputReference]:
        return await self._run(
            self._calls.outputs(public_key, spent=spent, at_height=at_height, limit=limit, after=after)
        )

    @documented(Calls.asset)
    async def asset(self, asset_id: str, *, at_height: int | None = None) -> Document:
        return await self._run(self._calls.asset(asset_id, at_height=at_height))

    @documented(Calls.provenance)
    async def provenance(
        self,
        asset_id: str,
        *,
        at_height: int | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Answers[Document]:
        return await self._run(
            self._calls.provenance(asset_id, at_height=at_height, limit=limit, after=after)
        )

    @documented(Calls.holdings)
    async def holdings(
        self,
        public_key: str,
        *,
        at_height: int | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Answers[Holding]:
        return await self._run(
            self._calls.holdings(public_key, at_height=at_height, limit=limit, after=after)
        )

    @documented(Calls.find)
    async def find(
        self,
        collection: str,
        filter: Json = None,
        *,
        projection: Json = None,
        sort: Mapping[str, int] | None = None,
        limit: int | None = None,
        after: str | None = None,
        min_height: int | None = None,
    ) -> Answers[Document]:
        return await self._run(
            self._calls.find(
                collection,
                filter,
                projection=projection,
                sort=sort,
                limit=limit,
                after=after,
                min_height=min_height,
            )
        )

    @documented(Calls.aggregate)
    async def aggregate(
        self, collection: str, pipeline: Sequence[Mapping[str, Any]], *, min_height: int | None = None
    ) -> Answers[Document]:
        return await self._run(self._calls.aggregate(collection, pipeline, min_height=min_height))

    @documented(Calls.store)
    async def store(self) -> StoreStatus:
        return await self._run(self._calls.store())

    @documented(Calls.search_assets)
    async def search_assets(
        self, text: str, *, limit: int | None = None, after: str | None = None
    ) -> Page[FoundAsset]:
        return await self._run(self._calls.search_assets(text, limit=limit, after=after))

    @documented(Calls.search_metadata)
    async def search_metadata(
        self, text: str, *, limit: int | None = None, after: str | None = None
    ) -> Page[FoundMetadata]:
        return await self._run(self._calls.search_metadata(text, limit=limit, after=after))

    @documented(Calls.block)
    async def block(self, height: int) -> Block:
        return await self._run(self._calls.block(height))

    @documented(Calls.latest_block)
    async def latest_block(self) -> Block:
        return await self._run(self._calls.latest_block())

    @documented(Calls.blocks_of)
    async def blocks_of(self, transaction_id: str) -> list[int]:
        return await self._run(self._calls.blocks_of(transaction_id))

    @documented(Calls.validators)
    async def validators(self) -> list[Validator]:
        return await self._run(self._calls.validators())

    @documented(Calls.node)
    async def node(self) -> NodeStatus:
        return await self._run(self._calls.node())

    async def _run(self, steps: Steps[T]) -> T:
        try:
            step: Step = next(steps)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    outcome = received(await self._http.request(**outgoing(step)))
                except httpx.HTTPError as error:
                    step = steps.send(lost(error))
                else:
                    step = steps.send(outcome)
        except StopIteration as done:
            result: T = done.value
            return result
