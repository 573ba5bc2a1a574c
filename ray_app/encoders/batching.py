"""Batches that waste little padding, and a text at fault found without losing its batch. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from ray_app.encoders.port import FloatArray

#: What a model raises for a text it cannot take; running out of memory is a ``RuntimeError`` in torch.
#: Errors of Rowbeam's own pass through: they are not about a text.
MODEL_FAULTS: Final = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class BatchBudget:
    """What one forward pass may hold: its longest text's tokens times its texts, and its texts."""

    max_tokens: int
    max_texts: int

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.max_texts < 1:
            raise ValueError("a batch must hold at least one token and one text")


#: Measured on a CPU with all-MiniLM-L6-v2, commit texts, calls of 150: 256 to 512 tokens embed 1.8 times as
#: many texts a second as batches of 32 texts do, 1024 tokens 1.5, 2048 tokens 1.3; in calls of 2,000 texts
#: 512 to 2048 are level. On OpenVINO 256 to 1024 are level, 2048 take 12 % and 4096 take 26 % more processor
#: time. Not measured: 16,384, which text-embeddings-inference starts with on a GPU.
DEFAULT_BUDGETS: Final[Mapping[str, BatchBudget]] = {
    "cpu": BatchBudget(max_tokens=512, max_texts=64),
    "mps": BatchBudget(max_tokens=16_384, max_texts=512),
    "cuda": BatchBudget(max_tokens=16_384, max_texts=512),
}


def budget_batches(lengths: Sequence[int], budget: BatchBudget) -> list[list[int]]:
    """The positions of ``lengths`` (tokens) in batches within ``budget``, longest text first.

    Sorting by length keeps padding low, and the longest first finds out at once whether the
    budget fits the memory. A single text over the budget is a batch of its own.
    """
    batches: list[list[int]] = []
    width = 0
    for position in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        batch = batches[-1] if batches else None
        if batch is None or len(batch) >= budget.max_texts or width * (len(batch) + 1) > budget.max_tokens:
            batch = []
            batches.append(batch)
            width = lengths[position]
        batch.append(position)
    return batches


def padding_of(lengths: Sequence[int], budget: BatchBudget) -> int:
    """Positions that texts of these ``lengths`` need beside their tokens, batched within ``budget``."""
    batches = budget_batches(lengths, budget)
    return sum(lengths[batch[0]] * len(batch) for batch in batches) - sum(lengths)


@dataclass(frozen=True)
class Failure:
    """Why a text could not be encoded: the name of the error's class.

    Never the error itself: its traceback would keep the failed batch's tensors in memory.
    """

    reason: str


Outcome: TypeAlias = FloatArray | Failure


def run_bisecting(
    batch: list[int], forward: Callable[[list[int]], FloatArray]
) -> Iterator[tuple[list[int], Outcome]]:
    """Run ``forward`` on the batch, halving it while it raises, down to the single text at fault.

    ``forward`` takes positions and returns their vectors. Yields the positions of each part with
    its vectors, or one position with its failure; every position comes exactly once.
    """
    waiting = [batch]
    while waiting:
        part = waiting.pop()
        try:
            outcome: Outcome = forward(part)
        except MODEL_FAULTS as error:
            if len(part) > 1:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
                continue
            outcome = Failure(type(error).__name__)
        yield part, outcome


def unit_rows(vectors: FloatArray) -> tuple[FloatArray, list[int]]:
    """The rows scaled to length 1, and the rows that cannot be: not finite, or all zero. Those are zeroed."""
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    bad = ~np.isfinite(norms) | (norms == 0)
    norms[bad] = 1
    unit = (vectors / norms[:, None]).astype(np.float32)
    unit[bad] = 0
    return unit, np.flatnonzero(bad).tolist()
