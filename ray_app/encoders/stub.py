"""A stand-in for a model: deterministic vectors in microseconds, for benchmarks and tests.

Chosen with ``ROWBEAM_LOCAL_MODEL=stub``, or ``stub:20`` to take 20 ms for each call; ``stub@64`` is another
space, of 64 dimensions, to change models between. A text's
vector adds up directions hashed from its words, so texts that share words are near each other and
a search finds what it should. A text that contains ``rowbeam-poison`` is refused, as a text at
fault is.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np

from ray_app.encoders.batching import unit_rows
from ray_app.encoders.port import Encoded
from ray_app.errors import ConfigError, ItemError
from ray_app.spaces import EmbeddingSpace
from ray_app.text import Chunk, windows

#: A text that contains this is refused with an ``ItemError``.
POISON: Final = "rowbeam-poison"
STUB_NAME: Final = "stub"
STUB_SPACE: Final = EmbeddingSpace(model="stub", revision="1", dimensions=384, max_tokens=254)
_OVERLAP: Final = 32
#: White space parts words, and a longer run is several: a megabyte without spaces is cut too.
_WORD: Final = re.compile(r"\S{1,100}")
#: Directions one word adds to; more keep unrelated words apart.
_DIRECTIONS: Final = 4


@dataclass(frozen=True)
class StubOptions:
    """What ``stub[@dimensions][:milliseconds]`` asks for."""

    latency_ms: float = 0.0
    dimensions: int = STUB_SPACE.dimensions

    @property
    def space(self) -> EmbeddingSpace:
        return replace(STUB_SPACE, dimensions=self.dimensions)

    @classmethod
    def parse(cls, local_model: str) -> StubOptions | None:
        """None when ``local_model`` names no stub. Raises ConfigError for what is no number."""
        name, separator, latency = local_model.partition(":")
        name, _, size = name.partition("@")
        if name != STUB_NAME:
            return None
        if size and not re.fullmatch(r"[1-9]\d{1,3}", size):
            raise ConfigError(
                f"{local_model!r} is not a stub: {size!r} is no number of dimensions.",
                hint='Set it to "stub" or, for 64 dimensions, to "stub@64".',
            )
        dimensions = int(size or STUB_SPACE.dimensions)
        if not separator:
            return cls(dimensions=dimensions)
        if not re.fullmatch(r"\d+(\.\d+)?", latency):
            raise ConfigError(
                f"{local_model!r} is not a stub: {latency!r} is no number of milliseconds.",
                hint='Set ROWBEAM_LOCAL_MODEL to "stub" or, for 20 ms a call, to "stub:20".',
            )
        return cls(float(latency), dimensions)


class StubEncoder:
    """An ``Encoder`` without a model."""

    device: Final = "cpu"

    def __init__(self, latency_ms: float = 0.0, dimensions: int = STUB_SPACE.dimensions) -> None:
        self._latency = latency_ms / 1000
        self._dimensions = dimensions

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Signed word hashes added up; tokens are words."""
        if self._latency:
            time.sleep(self._latency)
        faults = {
            place: ItemError(f"The text contains {POISON!r}, which the stub model refuses.")
            for place, text in enumerate(texts)
            if POISON in text
        }
        words = [[] if place in faults else _WORD.findall(text.lower()) for place, text in enumerate(texts)]
        # A blank text still needs a direction.
        codes = [[_code(word) for word in found or ("",)] for found in words]
        vectors = _add_up(codes, self._dimensions)
        for row in unit_rows(vectors)[1]:
            # All its words cancelled out: the whole text's hash stands for it.
            vectors[row] = _add_up([[_code(texts[row])]], self._dimensions)[0]
        vectors[list(faults)] = 0
        return Encoded(unit_rows(vectors)[0], [len(found) for found in words], faults)


class WordChunker:
    """Cuts into windows of at most 254 words, each repeating 32 of the one before."""

    chunker_id: Final = f"words:{STUB_SPACE.max_tokens}:{_OVERLAP}:v1"

    def chunk(self, texts: Sequence[str]) -> list[list[Chunk]]:
        """The chunks of each text, in order; none for a blank text."""
        return [self._chunks(text) for text in texts]

    def _chunks(self, text: str) -> list[Chunk]:
        words = [match.span() for match in _WORD.finditer(text)]
        if not words:
            return []
        spans = windows(len(words), STUB_SPACE.max_tokens, _OVERLAP)
        return [Chunk(text[words[first][0] : words[last - 1][1]], last - first) for first, last in spans]


def _add_up(codes: list[list[int]], dimensions: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Row i: the directions of ``codes[i]`` added up, not normalised; float32 of shape (n, dimensions)."""
    rows = np.repeat(np.arange(len(codes)), [len(row) for row in codes])
    flat = np.array([code for row in codes for code in row], dtype=np.uint64)
    cells, signs = [], []
    for direction in range(_DIRECTIONS):
        bits = (flat >> np.uint64(16 * direction)) & np.uint64(0xFFFF)
        cells.append(rows * dimensions + (bits >> np.uint64(1)).astype(np.int64) % dimensions)
        signs.append(np.where(bits & np.uint64(1), 1.0, -1.0))
    summed = np.bincount(np.concatenate(cells), np.concatenate(signs), len(codes) * dimensions)
    return summed.reshape(len(codes), dimensions).astype(np.float32)


@lru_cache(maxsize=65_536)
def _code(word: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
    )
