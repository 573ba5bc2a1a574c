"""From texts to vectors, one part at a time. A text at fault costs its record, never its batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from ray_app.errors import ItemError
from ray_app.parts import Fault, Part
from ray_app.providers.port import Embedded, EmbeddingProvider
from ray_app.reuse import TextReuse
from ray_app.text import SNIPPET_CHARS


def encode_part(
    part: Part,
    provider: EmbeddingProvider,
    reuse: TextReuse | None = None,
    turn: Callable[[Sequence[str]], AbstractContextManager[object]] | None = None,
) -> Part:
    """The part with its texts embedded by ``provider``, those left out that ``reuse`` has vectors of.

    Without ``reuse``, each distinct text of the part is embedded. ``turn``, of the texts to embed,
    is held while the provider works, for those who share one.

    Raises:
        ProviderUnavailable: the provider is down; the part is as it was and can be tried again.
    """
    if not part.texts:
        return part
    if reuse is None:
        reuse = TextReuse(provider.space, lambda _: {}, capacity=len(part.texts))
    seconds = 0.0

    def embed(texts: Sequence[str]) -> Embedded:
        nonlocal seconds
        with turn(texts) if turn is not None else nullcontext():
            started = time.perf_counter()
            answer = provider.embed_documents(texts)
            seconds += time.perf_counter() - started
        if answer.vectors.dtype != np.float32 or answer.vectors.shape[0] != len(texts):
            raise ValueError(
                f"Provider {provider.name} answered {answer.vectors.shape} for {len(texts)} texts."
            )
        return answer

    answer = reuse.embed(part.texts, embed)
    embedded = answer.embedded
    faults = {
        part.record_ids[place]: item_fault(part.record_ids[place], part.hashes[place], error)
        for place, error in sorted(embedded.faults.items(), reverse=True)
    }
    return part.encoded(
        embedded.vectors,
        list(faults.values()),
        provider=provider.name,
        tokens=embedded.tokens,
        cost=embedded.cost,
        seconds=seconds,
        sent=answer.sent,
    )


def item_fault(record_id: str, content_hash: str, error: ItemError) -> Fault:
    """The fault of a record whose text a model refused."""
    return Fault(
        record_id=record_id,
        content_hash=content_hash,
        stage="embed",
        error_class=type(error).__name__,
        message=str(error)[:SNIPPET_CHARS],
    )
