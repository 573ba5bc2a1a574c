"""Cutting texts into requests an endpoint accepts. Pure functions over sizes in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RequestLimits:
    """What one request may hold, in inputs and in estimated tokens."""

    max_inputs: int
    max_tokens: int

    def admits(self, sizes: Sequence[int]) -> bool:
        """Whether texts of these sizes go into one request; a single text always does, it cannot be cut."""
        return len(sizes) <= 1 or (len(sizes) <= self.max_inputs and sum(sizes) <= self.max_tokens)

    def lowered(self, *, max_inputs: int | None = None, max_tokens: int | None = None) -> RequestLimits:
        """These limits, tightened: nothing rises, and nothing sinks below 1."""
        inputs = self.max_inputs if max_inputs is None else min(self.max_inputs, max_inputs)
        tokens = self.max_tokens if max_tokens is None else min(self.max_tokens, max_tokens)
        return RequestLimits(max(1, inputs), max(1, tokens))


def cut(sizes: Sequence[int], limits: RequestLimits) -> list[range]:
    """Consecutive runs of positions, in order, each admitted by ``limits`` and as long as they allow."""
    runs: list[range] = []
    start = tokens = 0
    for position, size in enumerate(sizes):
        full = position - start >= limits.max_inputs or tokens + size > limits.max_tokens
        if full and position > start:
            runs.append(range(start, position))
            start, tokens = position, 0
        tokens += size
    if start < len(sizes):
        runs.append(range(start, len(sizes)))
    return runs
