"""Embedding spaces, and how a preference and a table's size choose one.

Two vectors compare only inside one space, so an index is pinned to the space it was made with;
``preference`` matters once, when the index is created.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Final


class VectorType(StrEnum):
    """Which text of a row is embedded."""

    CONTENT = "content"
    SUMMARY = "summary"
    METADATA = "metadata"


class Preference(StrEnum):
    """How a space is chosen when an index is created."""

    FAST = "fast"
    BALANCED = "balanced"
    QUALITY = "quality"


#: Rows of one batch, which is also one key range of a job.
BATCH_SIZE: Final = {Preference.FAST: 200, Preference.BALANCED: 150, Preference.QUALITY: 100}
#: A table with more rows than this is embedded fast; with more than the second, balanced.
FAST_ABOVE_ROWS: Final = 50_000
BALANCED_ABOVE_ROWS: Final = 10_000


def preference_for(rows: int, asked: Preference | None = None) -> Preference:
    """The preference that holds for a table of ``rows`` rows: the one asked for, else by size."""
    if asked is not None:
        return asked
    if rows > FAST_ABOVE_ROWS:
        return Preference.FAST
    if rows > BALANCED_ABOVE_ROWS:
        return Preference.BALANCED
    return Preference.QUALITY


@dataclass(frozen=True)
class EmbeddingSpace:
    """What must be equal for two vectors to be comparable."""

    model: str
    #: Digest of the weights, or the endpoint's model version: same name, other weights, other space.
    revision: str
    dimensions: int
    normalized: bool = True
    document_prefix: str = ""
    query_prefix: str = ""
    #: Tokens of text the model reads at once, special tokens not counted.
    max_tokens: int = 254

    @cached_property
    def space_id(self) -> str:
        """First 12 hex digits of SHA-256 over the fields that change vectors."""
        fields = asdict(self)
        del fields["max_tokens"]  # the chunker's business; part of the content hash instead
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> EmbeddingSpace:
        return cls(**value)
