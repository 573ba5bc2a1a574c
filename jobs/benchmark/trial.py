"""One provider tried out: speed on many texts, latency on single ones, and what it cost."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import cycle, islice
from statistics import median
from typing import Final

import numpy as np

from ray_app.baseline import ProviderMeasurement
from ray_app.encoders.agreement import agreement, mean_cosine
from ray_app.encoders.port import FloatArray
from ray_app.providers.port import EmbeddingProvider
from ray_app.spaces import EmbeddingSpace

#: Texts of one call, as a job sends them, and of the call that warms up.
_BATCH: Final = 200
_WARM: Final = 64
#: A search's text is a line, and not a long one.
_QUERY_CHARS: Final = 80
_NEIGHBOURS: Final = 10


@dataclass(frozen=True)
class Trial:
    """What a provider did with some texts."""

    #: float32 of shape (texts, dimensions).
    vectors: FloatArray
    #: Tokens of one round with all texts.
    tokens: int
    #: Seconds of each round, and of each single short text.
    rounds: Sequence[float]
    singles: Sequence[float]
    #: US dollars, for everything.
    cost: Decimal


def try_out(provider: EmbeddingProvider, texts: Sequence[str], rounds: int, queries: int) -> Trial:
    """Embed ``texts`` ``rounds`` times in batches, then ``queries`` single short ones, one after another.

    Raises ProviderUnavailable and ConfigError as the provider does.
    """
    cost = provider.embed_documents(texts[:_WARM]).cost
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        answers = [
            provider.embed_documents(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)
        ]
        took.append(time.perf_counter() - began)
        cost += sum((answer.cost for answer in answers), Decimal(0))
    singles = []
    for text in islice(cycle(texts), queries):
        began = time.perf_counter()
        cost += provider.embed_documents([text.partition("\n")[0][:_QUERY_CHARS]]).cost
        singles.append(time.perf_counter() - began)
    vectors = np.concatenate([answer.vectors for answer in answers])
    return Trial(vectors, sum(answer.tokens for answer in answers), took, singles, cost)


def measurement(
    name: str, space: EmbeddingSpace, trial: Trial, price: Decimal | None, reference: FloatArray | None
) -> ProviderMeasurement:
    """The figures of a trial. ``price`` is US dollars per million tokens, ``reference`` the true vectors."""
    texts, seconds = len(trial.vectors), median(trial.rounds)
    near = min(_NEIGHBOURS, texts - 1)
    return ProviderMeasurement(
        name=name,
        model=space.model,
        space_id=space.space_id,
        texts_per_second=round(texts / seconds, 2),
        tokens_per_second=round(trial.tokens / seconds, 2),
        p50_ms=_milliseconds(trial.singles, 0.5),
        p95_ms=_milliseconds(trial.singles, 0.95),
        dollars_per_million_tokens=None if price is None else float(price),
        dollars_per_million_rows=None if price is None else float(price * trial.tokens / texts),
        top_10_agreement=None if reference is None else round(agreement(trial.vectors, reference, near), 4),
        mean_cosine=None if reference is None else round(mean_cosine(trial.vectors, reference), 5),
    )


def _milliseconds(seconds: Sequence[float], share: float) -> float:
    """The time within which ``share`` of the calls were answered: the nearest rank."""
    ordered = sorted(seconds)
    return round(ordered[max(math.ceil(share * len(ordered)), 1) - 1] * 1000, 3)
