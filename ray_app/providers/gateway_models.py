"""What is known beforehand about the embedding models a gateway usually serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Sizes of OpenAI's embedding models when no ``dimensions`` is asked for (OpenAI API reference).
KNOWN_DIMENSIONS: Final[Mapping[str, int]] = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
#: Tokens one of these models reads at once (OpenAI API reference).
MAX_INPUT_TOKENS: Final = 8191


def canonical_name(model: str) -> str:
    """``openai/Text-Embedding-3-Small`` as ``text-embedding-3-small``: proxies put a vendor in front."""
    return model.rsplit("/", 1)[-1].lower()


def known_model(name: str) -> str | None:
    """The known model that ``name`` stands for; versioned names such as ``…-ada-002-v2`` included."""
    canonical = canonical_name(name)
    return next((model for model in KNOWN_DIMENSIONS if canonical.startswith(model)), None)


def contradicts(configured: str, served: str | None) -> bool:
    """Whether an answer names another known model than the one configured.

    An Azure deployment serves whatever it was made with, and small and ada-002 vectors have the
    same size: only the name tells them apart. Unknown names say nothing, for aliases are common.
    """
    wanted, got = known_model(configured), known_model(served or "")
    return wanted is not None and got is not None and wanted != got
