"""The gate in front of the API: open, closed, and waiting for the last request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from deployments.draining import DrainGate


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


class Client:
    """One request through the gate, and what it answers."""

    def __init__(self, gate: DrainGate, path: str = "/v1/embeddings") -> None:
        self.messages: list[Message] = []
        self._scope = {"type": "http", "path": path, "headers": []}
        self.task = asyncio.ensure_future(gate(self._scope, _nothing, self._send))

    async def _send(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])


class SlowApp:
    """Answers 200 when it is told to."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.may_end.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def run(test: Callable[[DrainGate, SlowApp], Any]) -> None:
    async def with_gate() -> None:
        app = SlowApp()
        await test(DrainGate(app), app)

    asyncio.run(with_gate())


def test_a_closed_gate_refuses_and_lets_the_request_under_way_end() -> None:
    async def test(gate: DrainGate, app: SlowApp) -> None:
        early = Client(gate)
        await asyncio.sleep(0)
        gate.close()
        late, alive = Client(gate), Client(gate, "/healthz")
        await late.task
        assert late.status == 503
        assert int(dict(late.messages[0]["headers"])[b"retry-after"]) > 0
        assert json.loads(late.messages[1]["body"])["error"]["code"] == "shutting_down"
        assert not await gate.wait_idle(0)
        waiting = asyncio.ensure_future(gate.wait_idle(60))
        app.may_end.set()
        assert await waiting
        assert (early.status, alive.status, gate.under_way) == (200, 200, 0)

    run(test)


def test_a_cancelled_or_failed_request_is_not_waited_for() -> None:
    async def test(gate: DrainGate, app: SlowApp) -> None:
        client = Client(gate)
        await asyncio.sleep(0)
        assert gate.under_way == 1
        client.task.cancel()
        await asyncio.gather(client.task, return_exceptions=True)
        gate.close()
        assert await gate.wait_idle(0)

    run(test)


def test_it_opens_again() -> None:
    async def test(gate: DrainGate, app: SlowApp) -> None:
        gate.close()
        gate.open()
        app.may_end.set()
        client = Client(gate)
        await client.task
        assert client.status == 200

    run(test)
