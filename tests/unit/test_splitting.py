"""Large calls in parts: the same answer as in one, whatever the parts and the order they come back in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.encoders.stub import STUB_SPACE, StubEncoder
from ray_app.errors import ProviderUnavailable
from ray_app.providers.batching import RequestLimits
from ray_app.providers.port import Embedded
from ray_app.serving.port import EmbedCall, Load, Served
from ray_app.serving.splitting import embed_in_parts
from ray_app.spaces import EmbeddingSpace

TEXTS = st.lists(st.sampled_from(["a", "b c", "d e f", "g", "has rowbeam-poison"]), min_size=1, max_size=40)


@dataclass
class ScriptedBackend:
    """Answers with the stub's vectors, each call after as many turns of the loop as ``delays`` says."""

    delays: Sequence[int] = (0,)
    fails_at: int | None = None
    calls: list[EmbedCall] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    ended: int = 0

    async def embed(self, call: EmbedCall) -> Served:
        number = len(self.calls)
        self.calls.append(call)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            for _ in range(self.delays[number % len(self.delays)]):
                await asyncio.sleep(0)
            if number == self.fails_at:
                raise ProviderUnavailable("Gone.")
        finally:
            self.under_way -= 1
        self.ended += 1
        encoded = StubEncoder().encode(call.texts)
        embedded = Embedded(encoded.vectors, encoded.tokens, faults=encoded.faults)
        return Served(embedded, f"provider-{number % 2}", 0.5)

    def spaces(self) -> Sequence[EmbeddingSpace]:
        return [STUB_SPACE]

    def load(self, space: EmbeddingSpace) -> Load:
        return Load(0, 0.0)

    async def not_ready(self) -> Sequence[str]:
        return ()


def call_of(texts: list[str]) -> EmbedCall:
    return EmbedCall(STUB_SPACE, texts, [len(text.split()) for text in texts], UUID(int=7))


@given(
    texts=TEXTS,
    max_inputs=st.integers(1, 45),
    max_tokens=st.integers(1, 100),
    parallel=st.integers(1, 5),
    delays=st.lists(st.integers(0, 12), min_size=1, max_size=8),
)
def test_parts_make_the_whole(
    texts: list[str], max_inputs: int, max_tokens: int, parallel: int, delays: list[int]
) -> None:
    backend = ScriptedBackend(delays)
    limits = RequestLimits(max_inputs, max_tokens)
    joined = asyncio.run(embed_in_parts(backend, call_of(texts), limits=limits, parallel=parallel))
    direct = StubEncoder().encode(texts)
    assert joined.embedded.vectors.tobytes() == direct.vectors.tobytes()
    assert joined.embedded.tokens == direct.tokens
    assert joined.embedded.faults.keys() == direct.faults.keys()
    assert sum(share.texts for share in joined.shares) == len(texts)
    assert backend.most_under_way <= parallel
    assert all(limits.admits(call.tokens) for call in backend.calls)
    assert {call.incarnation for call in backend.calls} == {UUID(int=7)}


def test_a_part_that_fails_ends_the_others() -> None:
    backend = ScriptedBackend([50, 1, 50, 50], fails_at=1)

    async def run() -> None:
        with pytest.raises(ProviderUnavailable):
            await embed_in_parts(backend, call_of(["a"] * 10), limits=RequestLimits(1, 9), parallel=3)
        for _ in range(60):
            await asyncio.sleep(0)

    asyncio.run(run())
    assert (backend.under_way, backend.ended) == (0, 0)
    assert len(backend.calls) <= 4  # those under way, and one that took the failed one's turn


def test_a_call_that_is_cancelled_ends_all_parts() -> None:
    backend = ScriptedBackend([1000])

    async def run() -> None:
        task = asyncio.ensure_future(
            embed_in_parts(backend, call_of(["a"] * 10), limits=RequestLimits(1, 9), parallel=3)
        )
        for _ in range(5):
            await asyncio.sleep(0)
        assert backend.under_way == 3
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert (backend.under_way, len(backend.calls)) == (0, 3)


def test_vectors_of_two_rows_are_not_mixed_up() -> None:
    joined = asyncio.run(embed_in_parts(ScriptedBackend(), call_of(["a", "b", "a"])))
    first, second, third = joined.embedded.vectors
    assert (first == third).all()
    assert not np.allclose(first, second)
    assert joined.providers == ["provider-0"]
