"""The WebSocket streams: what was committed, told to whoever listens, each at their own pace.

A reader is a height up to which it has been told; what it is told next is read from the ledger, so a reader
that reads nothing costs one write buffer and holds up nobody. One that falls too far behind or takes nothing
at all is cut off and resumes with `from_height`. Nothing is told before it is durable.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from bcdb.http.answer import TEXT, Answer, Receive, Scope, Send, rfc3339, to_json
from bcdb.http.errors import ArgumentError, RequestError, answer_error, no_such_address, refusal
from bcdb.http.metrics import STREAM_READERS
from bcdb.http.params import Argument, Arguments, read_height
from bcdb.ledger import BlockRecord, SecondaryReader
from bcdb.model import limits
from bcdb.model.errors import BcdbError
from bcdb.node.link import NodeLink
from bcdb.node.reading import LedgerReader

if TYPE_CHECKING:
    from bcdb.http.services import Services

PREFIX = "/api/v1/streams/"
CLOSE_GOING_AWAY = 1001
CLOSE_TRY_AGAIN = 1013
CACHED_BLOCKS = 64
ABORT = "bcdb.abort"
"""Extension of the scope with a function that drops the connection, whatever waits to be written."""
_CLOSE_S = 1.0

Events = Callable[[SecondaryReader, BlockRecord], list[str]]


class _Asset(msgspec.Struct):
    id: str | None = None


class _Body(msgspec.Struct):
    asset: _Asset


_body_decoder = msgspec.json.Decoder(_Body)


def transaction_events(reader: SecondaryReader, block: BlockRecord) -> list[str]:
    """One text for each transaction of a block, in order."""
    events = []
    for transaction_id in block.ids:
        stored = reader.transaction(transaction_id)
        assert stored is not None, "what a block lists is stored"
        identity = transaction_id.hex()
        asset_id = _body_decoder.decode(stored.body).asset.id or identity
        events.append(f'{{"height":{block.height},"asset_id":"{asset_id}","transaction_id":"{identity}"}}')
    return events


def block_events(reader: SecondaryReader, block: BlockRecord) -> list[str]:
    """One text for a block."""
    about = {
        "height": block.height,
        "hash": block.block_hash.hex(),
        "time": rfc3339(block.time_ns),
        "transaction_ids": [transaction_id.hex() for transaction_id in block.ids],
    }
    return [to_json(about).decode()]


STREAMS: dict[str, Events] = {
    PREFIX + "valid_transactions": transaction_events,
    PREFIX + "valid_blocks": block_events,
}


def _from_height(from_height: int | None = None) -> int | None:
    return from_height


ARGUMENTS = Arguments(
    _from_height,
    from_height=Argument(
        read_height,
        "Begin with this block, to resume after a break; without it only new blocks are told.",
        {"type": "integer", "minimum": 0},
    ),
)


class Feed:
    """What there is to tell, block by block; the last blocks are kept so that many readers share the work."""

    def __init__(self, link: NodeLink, ledger: LedgerReader, backlog_blocks_max: int) -> None:
        self.link = link
        self.backlog_blocks_max = backlog_blocks_max
        self.readers = 0
        self._ledger = ledger
        self._cache: OrderedDict[tuple[Events, int], list[str]] = OrderedDict()

    async def events(self, kind: Events, height: int) -> list[str]:
        """The texts for a published height. Raises `Unavailable`, `StoreError`."""
        reader = await self._ledger.ready()
        found = self._cache.get((kind, height))
        if found is None:
            block = reader.block(height)
            found = [] if block is None else kind(reader, block)
            self._cache[kind, height] = found
            if len(self._cache) > CACHED_BLOCKS:
                self._cache.popitem(last=False)
        return found


async def serve_stream(services: "Services", scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one WebSocket connection until either side ends it. Only the exact paths exist."""
    kind = STREAMS.get(scope["path"])
    try:
        if kind is None:
            return await refuse(send, no_such_address())
        from_height = ARGUMENTS.parse(scope["query_string"])
        if services.feed.readers >= limits.STREAMS_PER_WORKER_MAX:
            raise RequestError(503, "Too many listeners; try again later", (b"retry-after", b"5"))
    except (ArgumentError, RequestError) as error:
        return await refuse(send, answer_error(error))
    await receive()
    services.feed.readers += 1
    STREAM_READERS.inc()
    try:
        await send({"type": "websocket.accept"})
        await _tell_until_gone(services.feed, kind, from_height, scope, receive, send)
    finally:
        services.feed.readers -= 1
        STREAM_READERS.dec()


async def _tell_until_gone(
    feed: Feed, kind: Events, from_height: int | None, scope: Scope, receive: Receive, send: Send
) -> None:
    telling = asyncio.ensure_future(_tell(feed, kind, from_height, send))
    listening = asyncio.ensure_future(_until_disconnected(receive))
    try:
        await asyncio.wait((telling, listening), return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            return
        code, reason = telling.result()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await send({"type": "websocket.close", "code": code, "reason": reason})
        except TimeoutError:
            abort = scope.get("extensions", {}).get(ABORT)
            if abort is not None:
                abort()
    except OSError:
        pass  # the client is gone; there is nobody to tell
    finally:
        for task in (telling, listening):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await task


async def _until_disconnected(receive: Receive) -> None:
    """Messages of clients mean nothing here, as in the reference."""
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def _tell(feed: Feed, kind: Events, from_height: int | None, send: Send) -> tuple[int, str]:
    """Tell block after block; returns the close code and the reason when that has to end."""
    link = feed.link
    height = link.head.height + 1 if from_height is None else max(from_height, 1)
    was_up_to_date = from_height is None
    try:
        while True:
            behind = link.head.height - height + 1
            if behind <= 0:
                was_up_to_date = True
                await link.wait_height(height)
                continue
            if was_up_to_date and behind > feed.backlog_blocks_max:
                return CLOSE_TRY_AGAIN, f"too slow: go on with ?from_height={height}"
            events = await feed.events(kind, height)
            try:
                async with asyncio.timeout(limits.STREAM_SEND_S_MAX):
                    for event in events:
                        await send({"type": "websocket.send", "text": event})
            except TimeoutError:
                return CLOSE_TRY_AGAIN, f"nothing was read: go on with ?from_height={height}"
            height += 1
            await asyncio.sleep(0)
    except BcdbError:
        return CLOSE_GOING_AWAY, f"the node is stopping: go on with ?from_height={height}"


async def refuse(send: Send, answer: Answer) -> None:
    """Answer a wish for a WebSocket as an ordinary request."""
    await send(
        {
            "type": "websocket.http.response.start",
            "status": answer.status,
            "headers": [(b"content-type", answer.media_type), *answer.headers],
        }
    )
    await send({"type": "websocket.http.response.body", "body": answer.body})


def plain_request(scope: Scope, head: dict[bytes, bytes]) -> Answer | None:
    """The answer to an ordinary request on the path of a stream; None for every other path."""
    if scope["path"] not in STREAMS:
        return None
    if scope["method"] not in ("GET", "HEAD"):
        return refusal(405, "A stream is opened with GET", (b"allow", b"GET, HEAD"))
    text = b"This address speaks WebSocket (RFC 6455): connect with a ws:// or wss:// client."
    return Answer(400, text, TEXT, ((b"upgrade", b"websocket"),))
