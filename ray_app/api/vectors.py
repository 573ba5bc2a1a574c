"""Vectors on their way out: fewer dimensions, and the bytes of an answer."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import orjson

from ray_app.errors import InputError
from ray_app.providers.gateway_models import known_model
from ray_app.spaces import EmbeddingSpace

FloatArray = npt.NDArray[np.float32]

#: Models whose vectors can be cut (Matryoshka representation learning), by OpenAI's API reference:
#: ``dimensions`` is "only supported in text-embedding-3 and later models".
_CUTTABLE: Final = ("text-embedding-3-small", "text-embedding-3-large")


def check_dimensions(space: EmbeddingSpace, asked: int | None) -> int:
    """The size to answer with. Raises InputError when the model's vectors cannot have the size asked for."""
    if asked is None or asked == space.dimensions:
        return space.dimensions
    if asked < space.dimensions and known_model(space.model) in _CUTTABLE:
        return asked
    limit = "at most" if known_model(space.model) in _CUTTABLE else "exactly"
    raise InputError(
        f"Vectors of {space.model} have {limit} {space.dimensions} dimensions here.", param="dimensions"
    )


def cut_vectors(vectors: FloatArray, size: int) -> FloatArray:
    """The first ``size`` columns of (n, dimensions) unit rows, of unit length again."""
    if size == vectors.shape[1]:
        return vectors
    cut = vectors[:, :size].astype(np.float64)
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    return (cut / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def encode_answer(
    vectors: FloatArray, *, model: str, tokens: int, encoding: Literal["float", "base64"]
) -> bytes:
    """The JSON of OpenAI's answer; either encoding gives back exactly the float32 of ``vectors``."""
    rows: Iterable[Any] = np.ascontiguousarray(vectors, np.float32)
    if encoding == "base64":
        rows = (base64.b64encode(row.tobytes()).decode("ascii") for row in vectors.astype("<f4"))
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    answer = {"object": "list", "data": data, "model": model, "usage": usage}
    # The shortest decimals that give each float32 back: half as long as its float64.
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
