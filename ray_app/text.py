"""From a row to the texts that are embedded: render, hash, chunk. Pure functions."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Protocol

from ray_app.spaces import EmbeddingSpace
from ray_app.tables import TextMode, TextRule

#: Characters of a chunk kept beside its vector.
SNIPPET_CHARS: Final = 500
#: Counts changes of ``render`` and ``payload_of``: rows hashed before one are compared once more.
RENDERING: Final = 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def render(rule: TextRule, row: Mapping[str, Any]) -> str | None:
    """The text of a row under a rule, or None when it has none.

    Columns missing from ``row`` are passed over, so that one rule serves tables that have only
    some of its columns.
    """
    values = [(column, _plain(row.get(column))) for column in rule.columns]
    filled = [(column, value) for column, value in values if value]
    if not filled:
        return None
    match rule.mode:
        case TextMode.JOIN:
            return "\n".join(value for _, value in filled)
        case TextMode.FIRST:
            return filled[0][1]
        case TextMode.FIELDS:
            return "\n".join(f"{column}: {value}" for column, value in filled)


def _plain(value: Any) -> str:
    """A column's value as stripped text. Lists become "a, b"; NULs are dropped (no model reads them)."""
    if value is None:
        return ""
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, datetime | date):
        text = value.isoformat()
    elif isinstance(value, Mapping):
        text = ", ".join(f"{key}={_plain(item)}" for key, item in value.items())
    elif isinstance(value, Sequence):
        text = ", ".join(filter(None, map(_plain, value)))
    else:
        text = str(value)
    return text.replace("\x00", "").strip()


def payload_of(columns: Sequence[str], row: Mapping[str, Any]) -> dict[str, Any]:
    """The row's payload columns as JSON scalars and lists of them; nulls, NaN and infinities are left out."""
    return {name: value for name in columns if (value := _scalar(row.get(name))) is not None}


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float | Decimal):
        # JSON has no NaN: one in a payload would make the store refuse the whole batch.
        return float(value) if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [item for item in map(_scalar, value) if item is not None]
    return _plain(value)


def microseconds(value: Any) -> int | None:
    """A row's ``updated_at`` as microseconds since 1970; a time without a zone is UTC. None for no time.

    Text is read as ISO 8601.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True)
class Chunk:
    """A piece of a text that fits the model."""

    text: str
    tokens: int

    @property
    def snippet(self) -> str:
        return self.text[:SNIPPET_CHARS]


class Chunker(Protocol):
    """Cuts a text into pieces that fit a model, each overlapping the one before."""

    @property
    def chunker_id(self) -> str:
        """Changes whenever the same text would be cut in another way; part of the content hash."""

    def chunk(self, texts: Sequence[str]) -> list[list[Chunk]]:
        """The chunks of each text, in order; at least one for a text that is not blank."""


def content_hash(text: str, space: EmbeddingSpace, chunker_id: str) -> str:
    """32 hex digits that change exactly when the vectors would: text, space or chunker."""
    digest = hashlib.sha256()
    for part in (space.space_id, chunker_id, text):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()[:32]


def text_hash(text: str, space: EmbeddingSpace) -> bytes:
    """16 bytes that say which vector a chunk has: the same exactly for the same text in the same space."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (space.space_id, text):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()


def data_hash(data: Mapping[str, Any]) -> str:
    """16 hex digits that change when payload columns do; the order of columns does not matter.

    ``data`` is what ``payload_of`` returns; its hash is the same after a trip through JSON.
    """
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:16]


def windows(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Half-open token windows of at most ``size`` that cover ``length`` tokens, overlapping by ``overlap``.

    The last window ends at ``length``; no window lies inside the one before.
    """
    if not 0 <= overlap < size:
        raise ValueError("overlap must be at least 0 and less than size")
    spans = [(0, min(size, length))]
    while spans[-1][1] < length:
        start = spans[-1][1] - overlap
        spans.append((start, min(start + size, length)))
    return spans
