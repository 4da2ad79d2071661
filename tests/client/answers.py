"""A node that says what a test wants: a script of answers behind httpx's mock transport, for both clients."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import httpx

from bcdb.client import AsyncClient, Client

Answer = httpx.Response | Exception
Handler = Callable[[httpx.Request], Answer]


class Script:
    """Gives the answers one after the other, the last one again and again, and keeps the requests."""

    def __init__(self, *answers: Answer | Handler) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer) and not isinstance(answer, httpx.Response):
            answer = answer(request)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def say(status: int, value: Any = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    if isinstance(value, bytes):
        return httpx.Response(status, content=value, headers=named)
    return httpx.Response(status, json=value, headers=named)


def refuse(name: str, text: str = "because") -> httpx.Response:
    return say(400, {"message": f"Invalid transaction ({name}): {text}", "status": 400})


class Caller:
    """Calls the method of this name on either client, so that one test holds for both."""

    def __init__(self, script: Script, *urls: str, timeout_s: float = 2.0, is_async: bool) -> None:
        self.script = script
        self.is_async = is_async
        self.urls = urls or ("http://node:1",)
        self.timeout_s = timeout_s

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            transport = httpx.MockTransport(self.script)
            if not self.is_async:
                with Client(*self.urls, timeout_s=self.timeout_s, transport=transport) as client:
                    return getattr(client, name)(*arguments, **named)

            async def run() -> Any:
                async with AsyncClient(*self.urls, timeout_s=self.timeout_s, transport=transport) as client:
                    found = getattr(client, name)(*arguments, **named)
                    assert inspect.isawaitable(found)
                    return await found

            return asyncio.run(run())

        return call
