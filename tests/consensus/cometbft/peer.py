"""CometBFT's side of the ABCI socket, for tests: sends requests as frames and reads the answers in order."""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from consensus.cometbft.messages import CLASSES, Request, Response

ANSWER_S_MAX = 10


def frame(kind: str, **fields: Any) -> bytes:
    """A request as CometBFT sends it."""
    name = "Request" + "".join(part.capitalize() for part in kind.split("_"))
    body: bytes = Request(**{kind: CLASSES[name](**fields)}).SerializeToString()
    return uvarint(len(body)) + body


def uvarint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*parts, value))


class Peer:
    """One connection to the socket at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __aenter__(self) -> Self:
        self._reader, self.writer = await asyncio.open_unix_connection(str(self._path), limit=2**28)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()

    def send(self, kind: str, **fields: Any) -> None:
        self.writer.write(frame(kind, **fields))

    async def answer(self) -> tuple[str, Any]:
        """The next answer: its kind and its message. Raises `IncompleteReadError` when the server is gone."""
        async with asyncio.timeout(ANSWER_S_MAX):
            length = shift = 0
            while True:
                (byte,) = await self._reader.readexactly(1)
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            response = Response.FromString(await self._reader.readexactly(length))
        kind = response.WhichOneof("value")
        return kind, getattr(response, kind)

    async def ask(self, kind: str, **fields: Any) -> Any:
        self.send(kind, **fields)
        seen, message = await self.answer()
        assert seen == kind, (seen, message)
        return message
