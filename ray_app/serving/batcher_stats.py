"""What a batcher can be asked about itself."""

from __future__ import annotations

from dataclasses import dataclass

from ray_app.serving.port import Load


@dataclass(frozen=True)
class BatcherStats:
    """What a batcher has before it, and what it has done since it was made."""

    load: Load
    #: Tokens that wait, those being encoded not counted.
    waiting_interactive: int
    waiting_bulk: int
    batches: int
    #: Texts encoded; equal ones that were encoded together count once.
    texts: int
    #: Tokens read, and positions computed for them, padding included.
    tokens: int
    padded_tokens: int

    @property
    def texts_per_batch(self) -> float:
        return self.texts / self.batches if self.batches else 0.0

    @property
    def padding(self) -> float:
        """The share of the work that went into padding, 0 to 1."""
        return 1 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0
