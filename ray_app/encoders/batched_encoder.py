"""What encoders have in common: tokenise once, run batches by tokens, find a text at fault."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Final, Generic, TypeVar

import numpy as np

from ray_app.encoders.batching import (
    MODEL_FAULTS,
    BatchBudget,
    Failure,
    Outcome,
    budget_batches,
    run_bisecting,
    unit_rows,
)
from ray_app.encoders.port import Encoded, FloatArray
from ray_app.errors import ItemError, ProviderUnavailable

#: Encoded to warm a model up and to see whether it works.
PROBES: Final = ("ready", "A second, longer text, so that the first one is padded.")
#: Characters tokenised for each token the model reads; what comes after could not be read anyway.
_CHARS_PER_TOKEN: Final = 250
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")

#: A call's texts as the model reads them, in whatever form a backend likes.
Tokens = TypeVar("Tokens")


class BatchedEncoder(ABC, Generic[Tokens]):
    """An ``Encoder`` whose calls tokenise their texts once, sort them by tokens and run batches.

    ``max_seq_length`` counts special tokens, of which each text gets ``specials``. A batch stays
    within ``budget``. A backend adds how to tokenise and how to run one batch.
    """

    def __init__(self, *, dimensions: int, max_seq_length: int, specials: int, budget: BatchBudget) -> None:
        self._dimensions = dimensions
        self._max_seq_length = max_seq_length
        self._specials = specials
        self._budget = budget
        # Neither a fast tokenizer ("Already borrowed") nor an inference request bears two threads.
        self._lock = Lock()

    @property
    @abstractmethod
    def device(self) -> str:
        """``cpu``, ``cuda`` or ``mps``."""

    @abstractmethod
    def _tokenize(self, texts: Sequence[str]) -> tuple[Tokens, list[int]]:
        """The texts as the model reads them, truncated, and the tokens of each, special ones included."""

    @abstractmethod
    def _forward(self, tokens: Tokens, positions: list[int]) -> FloatArray:
        """Vectors of the texts at ``positions`` in one pass: float32 of shape (positions, dimensions)."""

    def encode(self, texts: Sequence[str]) -> Encoded:
        """See ``Encoder``."""
        if not texts:
            return Encoded(np.zeros((0, self._dimensions), np.float32), [])
        with self._lock:
            encoded = self._encode(texts)
            if encoded.faults:
                self._prove_alive()
        return encoded

    def _encode(self, texts: Sequence[str]) -> Encoded:
        tokens, lengths = self._tokenize(self._readable(texts))
        vectors = np.zeros((len(texts), self._dimensions), np.float32)
        reasons: dict[int, str] = {}
        for positions, outcome in self._run(tokens, budget_batches(lengths, self._budget)):
            if isinstance(outcome, Failure):
                reasons[positions[0]] = outcome.reason
            else:
                vectors[positions] = outcome
        vectors, directionless = unit_rows(vectors)
        for position in directionless:
            reasons.setdefault(position, "its vector has no direction")
        faults = {
            position: ItemError(f"The model cannot embed this text: {reason}.")
            for position, reason in sorted(reasons.items())
        }
        read = [0 if place in faults else length - self._specials for place, length in enumerate(lengths)]
        return Encoded(vectors, read, faults)

    def _run(self, tokens: Tokens, batches: list[list[int]]) -> Iterator[tuple[list[int], Outcome]]:
        """Run all batches, each bisected when it fails; the outcomes in any order."""
        for batch in batches:
            yield from run_bisecting(batch, lambda part: self._forward(tokens, part))

    def _readable(self, texts: Sequence[str]) -> list[str]:
        """The part of each text that could be read, without lone surrogates, which no tokenizer takes."""
        longest = self._max_seq_length * _CHARS_PER_TOKEN
        return [_LONE_SURROGATE.sub("\ufffd", text[:longest]) for text in texts]

    def _prove_alive(self) -> None:
        """Tell a text at fault from a model that fails on everything.

        Raises:
            ProviderUnavailable: the model fails on a harmless text too.
        """
        try:
            alive = np.isfinite(self._forward(self._tokenize(PROBES[:1])[0], [0])).all()
        except MODEL_FAULTS as error:
            raise ProviderUnavailable(
                f"The local model has stopped working on {self.device} ({type(error).__name__}).",
                hint="Start the job again with --resume; if it happens again, look at the device's memory.",
            ) from error
        if not alive:
            raise ProviderUnavailable(f"The local model answers no finite numbers on {self.device}.")
