"""The two drivers of operations: over ``httpx.Client``, and over ``httpx.AsyncClient``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Self, TypeVar

import httpx

from ray_app.client.steps import Operation, Patience, Pause, Request
from ray_app.errors import InputError

T = TypeVar("T")


class BearerKey(httpx.Auth):
    """Sends the API key; shows it nowhere."""

    def __init__(self, key: str) -> None:
        # The HTTP library quotes a header that it cannot send, key and all.
        if not key or not all("!" <= letter <= "~" for letter in key):
            raise InputError(
                "The API key is empty, or has spaces or letters that no key has.",
                hint="Was a line break or a quotation mark copied along?",
            )
        self._header = f"Bearer {key}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = self._header
        yield request

    def __repr__(self) -> str:
        return "BearerKey(********)"


def check_url(url: str) -> str:
    """``url`` when it can be a server's. Raises InputError."""
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        raise InputError("The server's address must look like http://host:8000 and hold no key or password.")
    return url


class Connection:
    """What the synchronous clients have in common. Thread-safe; close it, or use it in a ``with``."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout: float = 60.0,
        max_wait: float = 120.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``timeout``: seconds for one answer. ``max_wait``: seconds for which one request is tried again.

        ``transport`` replaces the network, for proxies, private certificates and tests.

        Raises:
            InputError: the address or the key cannot be one.
        """
        self._url = check_url(url)
        self._http = httpx.Client(base_url=url, auth=BearerKey(key), timeout=timeout, transport=transport)
        self._sleep = sleep
        self._patience = Patience(max_wait, clock)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._url!r})"

    def _run(self, operation: Callable[[Patience], Operation[T]]) -> T:
        steps = operation(self._patience)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    self._sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    response = self._http.request(**_arguments(step))
                except httpx.RequestError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(response)
        except StopIteration as end:
            value: T = end.value
            return value


class AsyncConnection:
    """What the asynchronous clients have in common; close it, or use it in an ``async with``."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout: float = 60.0,
        max_wait: float = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """As ``Connection``."""
        self._url = check_url(url)
        self._http = httpx.AsyncClient(
            base_url=url, auth=BearerKey(key), timeout=timeout, transport=transport
        )
        self._sleep = sleep
        self._patience = Patience(max_wait, clock)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._url!r})"

    async def _run(self, operation: Callable[[Patience], Operation[T]]) -> T:
        steps = operation(self._patience)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    await self._sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    response = await self._http.request(**_arguments(step))
                except httpx.RequestError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(response)
        except StopIteration as end:
            value: T = end.value
            return value


def _arguments(request: Request) -> dict[str, Any]:
    headers = dict(request.headers)
    if request.body is not None:
        headers["content-type"] = "application/json"
    return {
        "method": request.method,
        "url": request.path,
        "content": request.body,
        "params": dict(request.query) or None,
        "headers": headers,
    }
