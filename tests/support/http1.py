"""A minimal HTTP/1.1 client for tests that post thousands of requests from one process.

One request at a time on each connection, no redirects, no retries, no chunked bodies: a dropped connection is
an answer that the tests want to see, so it is raised as `ConnectionError` and never hidden.
"""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, NamedTuple, Self


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The `message` of an error, or the whole body as text."""
        try:
            return str(self.json()["message"])
        except (ValueError, KeyError, TypeError):
            return self.body.decode(errors="replace")


class Connection:
    """One keep-alive connection, opened with the first request and opened again after it was lost."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def get(self, path: str) -> Answer:
        return await self.request("GET", path)

    async def post(self, path: str, body: bytes, content_type: str = "application/json") -> Answer:
        return await self.request("POST", path, body, content_type)

    async def request(self, method: str, path: str, body: bytes = b"", content_type: str = "") -> Answer:
        """Raises ConnectionError when there was no whole answer."""
        try:
            return await self._request(method, path, body, content_type)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise ConnectionError(f"no answer to {method} {path}: {error!r}") from error
        except asyncio.CancelledError:
            self.close()
            raise

    async def _request(self, method: str, path: str, body: bytes, content_type: str) -> Answer:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        head = f"{method} {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
        if body:
            head += f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
        self._writer.write(head.encode() + b"\r\n" + body)
        status_line, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {}
        for line in filter(None, lines):
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.get("transfer-encoding"):
            raise ConnectionError("a chunked answer, which this client does not read")
        content = await self._reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(int(status_line.split(" ", 2)[1]), headers, content)
