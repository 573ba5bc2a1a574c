"""Texts to vectors over ``/v1/embeddings``."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ray_app.client.batching import json_body
from ray_app.client.errors import BadAnswer
from ray_app.client.steps import Operation, Patience, Request, call_json

#: Texts of one request; the server takes 2,048.
_BATCH: Final = 256
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True)
class Embeddings:
    """One vector for each text, in order."""

    vectors: Sequence[Sequence[float]]
    model: str
    #: Tokens that the model read.
    tokens: int


def embed(
    patience: Patience, texts: Sequence[str], model: str, dimensions: int | None, *, truncate: bool
) -> Operation[Embeddings]:
    """Raises as ``Patience.call``; BadAnswer when a text has no vector or two."""
    vectors: list[list[float]] = []
    tokens = 0
    for start in range(0, len(texts), _BATCH):
        part = list(texts[start : start + _BATCH])
        body: dict[str, Any] = {"model": model, "input": part, "encoding_format": "base64"}
        if dimensions is not None:
            body["dimensions"] = dimensions
        if truncate:
            body["truncate"] = True
        answer = yield from call_json(patience, Request("POST", "/v1/embeddings", json_body(body)))
        vectors.extend(_vectors(answer, len(part)))
        tokens += int(answer["usage"]["total_tokens"])
    return Embeddings(vectors, model, tokens)


def _vectors(answer: Mapping[str, Any], count: int) -> list[list[float]]:
    """Placed by ``index``, not by position: that is what the contract promises."""
    placed: dict[int, list[float]] = {}
    try:
        for item in answer["data"]:
            raw = base64.b64decode(item["embedding"], validate=True)
            placed[item["index"]] = list(struct.unpack(f"<{len(raw) // _FLOAT_BYTES}f", raw))
        answer["usage"]["total_tokens"]
    except (KeyError, TypeError, binascii.Error, struct.error) as error:
        raise BadAnswer("The answer's vectors cannot be read.") from error
    if len(answer["data"]) != count or set(placed) != set(range(count)):
        raise BadAnswer(f"{count} texts were sent, and the answer does not have one vector for each.")
    return [placed[index] for index in range(count)]
