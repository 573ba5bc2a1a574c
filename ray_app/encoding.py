"""From texts to vectors, one part at a time. A text at fault costs its record, never its batch."""

from __future__ import annotations

import time

import numpy as np

from ray_app.errors import ItemError
from ray_app.parts import Fault, Part
from ray_app.providers.port import EmbeddingProvider
from ray_app.text import SNIPPET_CHARS


def encode_part(part: Part, provider: EmbeddingProvider) -> Part:
    """The part with its texts embedded by ``provider``.

    Raises:
        ProviderUnavailable: the provider is down; the part is as it was and can be tried again.
    """
    if not part.texts:
        return part
    started = time.perf_counter()
    answer = provider.embed_documents(part.texts)
    seconds = time.perf_counter() - started
    if answer.vectors.dtype != np.float32 or answer.vectors.shape[0] != len(part.texts):
        raise ValueError(
            f"Provider {provider.name} answered {answer.vectors.shape} for {len(part.texts)} texts."
        )
    faults = {
        part.record_ids[place]: item_fault(part.record_ids[place], part.hashes[place], error)
        for place, error in sorted(answer.faults.items(), reverse=True)
    }
    return part.encoded(
        answer.vectors,
        list(faults.values()),
        provider=provider.name,
        tokens=answer.tokens,
        cost=answer.cost,
        seconds=seconds,
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
