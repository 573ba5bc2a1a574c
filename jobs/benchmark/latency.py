"""Asking a server for embeddings, and what the answers took."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Answers:
    """Every request of a run: its status, or the name of the error, and its time in seconds."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, outcome: str, seconds: float) -> None:
        self.outcomes[outcome] += 1
        self.seconds.setdefault(outcome, []).append(seconds)

    def percentile(self, share: float, outcome: str = "200") -> float:
        """Milliseconds within which ``share`` of the requests of that outcome were answered."""
        times = sorted(self.seconds.get(outcome, []))
        return round(times[min(int(share * len(times)), len(times) - 1)] * 1000, 1) if times else float("nan")

    def summary(self) -> dict[str, Any]:
        return {
            "requests": sum(self.outcomes.values()),
            "outcomes": dict(self.outcomes),
            **{f"p{share:.0%}"[:-1]: self.percentile(share) for share in (0.5, 0.95, 0.99)},
        }


async def ask(client: httpx.AsyncClient, model: str, text: str, answers: Answers) -> None:
    """One request for one text."""
    began = time.perf_counter()
    try:
        answer = await client.post("/v1/embeddings", json={"model": model, "input": text})
    except httpx.HTTPError as error:
        answers.add(type(error).__name__, time.perf_counter() - began)
        return
    answers.add(str(answer.status_code), time.perf_counter() - began)


async def steadily(client: httpx.AsyncClient, model: str, seconds: float, period: float) -> Answers:
    """One short text every ``period`` seconds, whether the one before is answered or not.

    A caller that waited for its answer would leave out the requests that a slow one delays.
    """
    answers, asking = Answers(), set()
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        asking.add(asyncio.create_task(ask(client, model, f"login fails on page {number}", answers)))
        number += 1
        await asyncio.sleep(period)
    await asyncio.gather(*asking)
    return answers
