"""Calls too large for one provider's queue, split and put together again by position."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np

from ray_app.errors import ItemError
from ray_app.providers.batching import RequestLimits, cut
from ray_app.providers.port import Embedded
from ray_app.serving.port import EmbedCall, EmbeddingBackend, Served

#: What goes to a provider at once: enough to fill its batches, and no more than a message can hold.
PART: Final = RequestLimits(max_inputs=256, max_tokens=32_768)
#: Parts of one call under way at once; the others wait, so that one call does not fill a queue.
PARALLEL: Final = 4


@dataclass(frozen=True)
class Share:
    """What one provider did for a call."""

    provider: str
    texts: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Joined:
    """The answers of all parts as one, positions counted over the whole call."""

    embedded: Embedded
    shares: Sequence[Share]

    @property
    def providers(self) -> list[str]:
        return sorted({share.provider for share in self.shares})


async def embed_in_parts(
    backend: EmbeddingBackend, call: EmbedCall, *, limits: RequestLimits = PART, parallel: int = PARALLEL
) -> Joined:
    """The vectors of ``call``; when one part fails the others are given up.

    Raises:
        ProviderUnavailable, Overloaded, BudgetExhausted, ConfigError: as ``EmbeddingBackend.embed``.
    """
    runs = cut(call.tokens, limits)
    if len(runs) == 1:
        return _join(call, runs, [await backend.embed(call)])
    turns = asyncio.Semaphore(parallel)

    async def ask(run: range) -> Served:
        async with turns:
            return await backend.embed(call.part(run.start, run.stop))

    tasks = [asyncio.ensure_future(ask(run)) for run in runs]
    try:
        answers = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return _join(call, runs, answers)


def _join(call: EmbedCall, runs: Sequence[range], answers: Sequence[Served]) -> Joined:
    vectors = np.zeros((len(call.texts), call.space.dimensions), np.float32)
    faults: dict[int, ItemError] = {}
    for run, answer in zip(runs, answers, strict=True):
        vectors[run.start : run.stop] = answer.embedded.vectors
        faults |= {run.start + place: fault for place, fault in answer.embedded.faults.items()}
    tokens = sum(answer.embedded.tokens for answer in answers)
    cost = sum((answer.embedded.cost for answer in answers), Decimal(0))
    shares = [
        Share(answer.provider, len(run), answer.embedded.tokens, answer.seconds)
        for run, answer in zip(runs, answers, strict=True)
    ]
    return Joined(Embedded(vectors, tokens, cost, faults), shares)
