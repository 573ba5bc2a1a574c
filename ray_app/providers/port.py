"""The port to what embeds texts: a local encoder or the AI gateway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ray_app.errors import ItemError
from ray_app.spaces import EmbeddingSpace
from ray_app.text import Chunker


@dataclass(frozen=True)
class Embedded:
    """The answer to one ``embed`` call.

    ``vectors`` is float32 of shape (n, dimensions), row i for text i, L2-normalised when the
    space says so; the row of a text named in ``faults`` is zero and must not be stored.
    """

    vectors: npt.NDArray[np.float32]
    #: Tokens read, as the provider counts them; what cost is computed from.
    tokens: int
    #: US dollars; zero for local providers.
    cost: Decimal = Decimal(0)
    faults: Mapping[int, ItemError] = field(default_factory=dict)
    #: Tokens of each text, from providers that say so; they add up to ``tokens``.
    counts: Sequence[int] = ()


class EmbeddingProvider(Protocol):
    """Embeds texts into one space.

    ``embed_documents`` and ``embed_query`` may be called from one thread at a time. A text that
    cannot be embedded is reported in ``faults`` and does not spoil the others; a provider that
    is down raises ``ProviderUnavailable`` and charges nothing.
    """

    @property
    def name(self) -> str:
        """``local-cpu``, ``local-gpu``, ``gateway`` or ``stub``."""

    @property
    def space(self) -> EmbeddingSpace: ...

    @property
    def chunker(self) -> Chunker: ...

    def embed_documents(self, texts: Sequence[str]) -> Embedded:
        """Embed stored texts, in any number; ``space.document_prefix`` is added here."""

    def embed_query(self, text: str) -> npt.NDArray[np.float32]:
        """Embed a search text: float32 of shape (dimensions,). Raises ItemError, ProviderUnavailable."""

    def close(self) -> None:
        """Release connections and memory."""
