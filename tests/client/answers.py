"""Nodes that say what a test wants: scripts of answers behind httpx's mock transport, for both clients.

For what takes long there is a clock that a test can turn, and `drive`, which runs a call by it.
"""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from bcdb.client import AsyncClient, Client
from bcdb.client.steps import Lost, Pause, Request, Response, Steps

T = TypeVar("T")
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


class Network:
    """Several nodes by the name of their host, each with a script of its own."""

    def __init__(self, **nodes: Script) -> None:
        self.nodes = nodes
        self.hosts: list[str] = []
        """Who was asked, in order."""

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(f"http://{name}:1" for name in self.nodes)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.hosts.append(request.url.host)
        return self.nodes[request.url.host](request)

    def told(self, name: str) -> list[str | None]:
        """The `min_height` of each request that a node got."""
        return [request.url.params.get("min_height") for request in self.nodes[name].requests]


class Clock:
    """Seconds that go on only when somebody waits."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def drive(steps: Steps[T], clock: Clock, node: Callable[[Request], Response | Lost]) -> T:
    """What a call gives; its pauses only turn the clock."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Pause):
                clock.now += step.seconds
                step = steps.send(None)
            else:
                step = steps.send(node(step))
    except StopIteration as done:
        result: T = done.value
        return result


def say(status: int, value: Any = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    if isinstance(value, bytes):
        return httpx.Response(status, content=value, headers=named)
    return httpx.Response(status, json=value, headers=named)


def refuse(name: str, text: str = "because") -> httpx.Response:
    return say(400, {"message": f"Invalid transaction ({name}): {text}", "status": 400})


class Caller:
    """Calls the method of this name on either client, so that one test holds for both."""

    def __init__(
        self, script: Script | Network, *urls: str, timeout_s: float = 2.0, is_async: bool, **more: Any
    ) -> None:
        self.script = script
        self.is_async = is_async
        self.urls = urls or (script.urls if isinstance(script, Network) else ("http://node:1",))
        self.more = {"timeout_s": timeout_s, **more}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            (found,) = self.each(lambda client: getattr(client, name)(*arguments, **named))
            return found

        return call

    def each(self, *calls: Callable[[Any], Any]) -> list[Any]:
        """What each of these makes of one and the same client, one after the other."""
        transport = httpx.MockTransport(self.script)
        if not self.is_async:
            with Client(*self.urls, transport=transport, **self.more) as client:
                return [call(client) for call in calls]

        async def run() -> list[Any]:
            async with AsyncClient(*self.urls, transport=transport, **self.more) as client:
                found: list[Any] = []
                for call in calls:
                    value = call(client)
                    found.append(await value if inspect.isawaitable(value) else value)
                return found

        return asyncio.run(run())
