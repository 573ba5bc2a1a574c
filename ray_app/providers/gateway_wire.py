"""The OpenAI embeddings API on the wire: request bodies, answers, error bodies. Pure functions."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_IDENTIFIER: Final = re.compile(r"[A-Za-z][A-Za-z_.]{0,63}")


@dataclass(frozen=True)
class RequestForm:
    """How an endpoint is asked, besides the texts. Where it refuses a part, a simpler form is used."""

    model: str
    dimensions: int | None = None
    #: Ask for little-endian float32 in base64, a quarter of the size of decimal numbers.
    base64: bool = True

    def encode(self, texts: Sequence[str]) -> bytes:
        """The JSON body."""
        body: dict[str, Any] = {"model": self.model, "input": list(texts)}
        if self.dimensions is not None:
            body["dimensions"] = self.dimensions
        if self.base64:
            body["encoding_format"] = "base64"
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()

    def simpler(self) -> list[RequestForm]:
        """Forms to try when this one is refused, nearest first.

        The format is left out rather than set to "float": decimal numbers are the default, and
        some proxies refuse the field whatever its value (LiteLLM in front of Vertex AI).
        """
        forms = [replace(self, base64=False), replace(self, base64=False, dimensions=None)]
        return [form for index, form in enumerate(forms) if form not in (self, *forms[:index])]


class MalformedAnswer(Exception):
    """A successful answer that cannot be read; ``tokens`` were charged for it if it says so."""

    def __init__(self, reason: str, tokens: int | None = None) -> None:
        super().__init__(reason)
        self.tokens = tokens


@dataclass(frozen=True)
class Answer:
    """Vectors by the position of their text.

    ``vectors`` is float32 of shape (n, dimensions), rows of unit length; the rows named in
    ``unusable`` (missing, not finite, all zeros, not a vector) are zero.
    """

    vectors: npt.NDArray[np.float32]
    unusable: tuple[int, ...]
    #: None when the endpoint does not count.
    tokens: int | None
    #: The model the endpoint says it used.
    model: str | None

    @property
    def dimensions(self) -> int:
        """Zero when no row is usable."""
        return int(self.vectors.shape[1])


def decode_answer(body: bytes, count: int) -> Answer:
    """The answer to a request of ``count`` texts. Vectors are placed by ``index``, never by their order.

    Raises:
        MalformedAnswer: no JSON, no ``data``, indexes that cannot be matched, or vectors of several sizes.
    """
    try:
        value = json.loads(body)
    except ValueError:
        raise MalformedAnswer("the answer is not JSON") from None
    if not isinstance(value, dict):
        raise MalformedAnswer("the answer is not a JSON object")
    tokens = _tokens(value.get("usage"))
    data = value.get("data")
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise MalformedAnswer("the answer has no list of embeddings", tokens)
    positions = _positions(data, count)
    if positions is None:
        raise MalformedAnswer("the answer does not say which vector belongs to which text", tokens)
    rows = {
        position: row
        for position, item in zip(positions, data, strict=True)
        if (row := _unit_vector(item.get("embedding"))) is not None
    }
    sizes = {row.size for row in rows.values()}
    if len(sizes) > 1:
        raise MalformedAnswer("the answer has vectors of several sizes", tokens)
    vectors = np.zeros((count, sizes.pop() if sizes else 0), dtype=np.float32)
    for position, row in rows.items():
        vectors[position] = row
    model = value.get("model")
    unusable = tuple(position for position in range(count) if position not in rows)
    return Answer(vectors, unusable, tokens, model if isinstance(model, str) else None)


def _positions(data: Sequence[dict[str, Any]], count: int) -> list[int] | None:
    """The text position of each item, or None when they are ambiguous."""
    indexes = [item.get("index") for item in data]
    if len(data) == count and indexes.count(None) == 1:
        # Protobuf servers leave a zero out; with one index missing there is only one place left.
        free = [position for position in range(count) if position not in indexes]
        indexes[indexes.index(None)] = free[0] if len(free) == 1 else None
    valid = [index for index in indexes if type(index) is int and 0 <= index < count]
    return valid if len(set(valid)) == len(indexes) else None


def _unit_vector(value: object) -> npt.NDArray[np.float32] | None:
    """The embedding as a float32 row of unit length, or None when there is no usable one."""
    try:
        if isinstance(value, str):
            row = np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").astype(np.float64)
        else:
            row = np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    if row.ndim != 1 or row.size == 0 or not np.isfinite(row).all():
        return None
    # Scaled first, or the squares of very large and very small numbers leave the range of a float.
    row = row / (np.abs(row).max() or 1.0)
    norm = np.linalg.norm(row)
    return None if norm == 0 else (row / norm).astype(np.float32)


def _tokens(usage: object) -> int | None:
    if not isinstance(usage, dict):
        return None
    counts = (usage.get("prompt_tokens"), usage.get("total_tokens"))
    return next((count for count in counts if type(count) is int and count > 0), None)


@dataclass(frozen=True)
class ErrorBody:
    """What an endpoint says about a failure.

    ``message`` may repeat the text or the key: it is read for limits and waits, and never shown.
    """

    code: str = ""
    type: str = ""
    message: str = field(default="", repr=False)

    @property
    def label(self) -> str:
        """The code, or else the type, when it is a plain identifier; otherwise empty."""
        return next((name for name in (self.code, self.type) if _IDENTIFIER.fullmatch(name)), "")


def decode_error(body: bytes) -> ErrorBody:
    """The error in a failed answer, as OpenAI, Azure, vLLM, TEI, Ollama or FastAPI write it, or as text."""
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except ValueError:
        return ErrorBody(message=text)
    error = value.get("error", value) if isinstance(value, dict) else value
    if not isinstance(error, dict):
        kind = value.get("error_type", "") if isinstance(value, dict) else ""
        return ErrorBody(type=str(kind), message=str(error))
    message = error.get("message") or _detail(error.get("detail"))
    return ErrorBody(str(error.get("code") or ""), str(error.get("type") or ""), str(message))


def _detail(detail: object) -> str:
    """FastAPI's explanation without the input it repeats, whose words could be mistaken for a limit."""
    if not isinstance(detail, list):
        return str(detail or "")
    return "; ".join(str(item.get("msg", "")) for item in detail if isinstance(item, dict))
