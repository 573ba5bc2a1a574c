"""The columns of an exported index, and points with their ledger rows as such columns and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

import numpy as np
import pyarrow as pa

from ray_app.db.copies import LedgerCopy
from ray_app.errors import InputError
from ray_app.spaces import EmbeddingSpace
from ray_app.store.port import IndexKey, PointCopy
from ray_app.store.words import WordVector

#: Columns of few values, which are written once each.
REPEATED: Final = ("table", "vector_type", "provider", "model")
_TIME: Final = pa.timestamp("us", tz="UTC")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True)
class ExportedPoint:
    """A point and the ledger's row of it, which agree."""

    point: PointCopy
    row: LedgerCopy


def schema_of(space: EmbeddingSpace) -> pa.Schema:
    """Hashes are hexadecimal, ``payload`` is JSON, the words' lists are null where a text has none."""
    return pa.schema(
        [
            pa.field("table", pa.string(), nullable=False),
            pa.field("vector_type", pa.string(), nullable=False),
            pa.field("record_id", pa.string(), nullable=False),
            pa.field("chunk", pa.int32(), nullable=False),
            pa.field("point_id", pa.string(), nullable=False),
            pa.field("content_hash", pa.string(), nullable=False),
            pa.field("text_hash", pa.string()),
            pa.field("row_hash", pa.string()),
            pa.field("data_hash", pa.string(), nullable=False),
            pa.field("version", pa.int64(), nullable=False),
            pa.field("updated_at", _TIME),
            pa.field("embedded_at", _TIME, nullable=False),
            pa.field("provider", pa.string(), nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("snippet", pa.string(), nullable=False),
            pa.field("payload", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), space.dimensions), nullable=False),
            pa.field("word_indices", pa.list_(pa.uint32())),
            pa.field("word_weights", pa.list_(pa.float32())),
        ]
    )


def to_table(index: IndexKey, points: Sequence[ExportedPoint]) -> pa.Table:
    """At least one point."""
    copies, rows = [each.point for each in points], [each.row for each in points]
    schema = schema_of(index.space)
    vectors = pa.array(np.concatenate([copy.vector for copy in copies]), pa.float32())
    columns: dict[str, Any] = {
        "table": [index.table] * len(rows),
        "vector_type": [index.vector_type] * len(rows),
        "record_id": [row.record_id for row in rows],
        "chunk": [row.chunk for row in rows],
        "point_id": [str(row.point_id) for row in rows],
        "content_hash": [row.content_hash for row in rows],
        "text_hash": [_hex(row.text_hash) for row in rows],
        "row_hash": [_hex(row.row_hash) for row in rows],
        "data_hash": [row.data_hash for row in rows],
        "version": [row.version for row in rows],
        "updated_at": pa.array([row.updated_at for row in rows], pa.int64()).cast(_TIME),
        "embedded_at": [row.embedded_at for row in rows],
        "provider": [row.provider for row in rows],
        "model": [row.model for row in rows],
        "snippet": [copy.snippet for copy in copies],
        "payload": [json.dumps(copy.data, allow_nan=False) for copy in copies],
        "vector": pa.FixedSizeListArray.from_arrays(vectors, index.space.dimensions),
        "word_indices": [copy.words.indices if copy.words else None for copy in copies],
        "word_weights": [copy.words.weights if copy.words else None for copy in copies],
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def from_table(table: pa.Table) -> list[ExportedPoint]:
    """The inverse of ``to_table``.

    Raises:
        InputError: a value that no export writes.
    """
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
    times = table["updated_at"].cast(pa.int64()).to_pylist()
    embedded = table["embedded_at"].cast(pa.int64()).to_pylist()
    names = [name for name in table.column_names if name not in ("vector", "updated_at", "embedded_at")]
    try:
        return [
            _point(values, vector, updated_at, embedded_at)
            for values, vector, updated_at, embedded_at in zip(
                table.select(names).to_pylist(), vectors, times, embedded, strict=True
            )
        ]
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"A row of the file cannot be used: {error}.") from error


def _point(
    values: Mapping[str, Any], vector: np.ndarray, updated_at: int | None, embedded_at: int
) -> ExportedPoint:
    at = _EPOCH + embedded_at * _MICROSECOND
    data = json.loads(values["payload"])
    if not isinstance(data, dict):
        raise TypeError("a payload is not an object")
    row = LedgerCopy(
        *(values["record_id"], values["chunk"], UUID(values["point_id"]), values["content_hash"]),
        *(_unhex(values["text_hash"]), _unhex(values["row_hash"]), values["data_hash"]),
        *(values["version"], updated_at, values["snippet"]),
        *(values["provider"], values["model"], at),
    )
    point = PointCopy(
        *(row.point_id, row.record_id, row.chunk, row.version, row.content_hash),
        *(row.snippet, row.provider, at.isoformat(timespec="seconds"), data),
        np.array(vector, np.float32),
        _words(values["word_indices"], values["word_weights"]),
    )
    return ExportedPoint(point, row)


def _words(indices: list[int] | None, weights: list[float] | None) -> WordVector | None:
    if indices is None or weights is None:
        return None
    ascending = all(before < after for before, after in pairwise(indices))
    if len(indices) != len(weights) or not ascending or not np.isfinite(weights).all():
        raise ValueError("the words of a text are not a sparse vector")
    return WordVector(indices, weights)


def _hex(digest: bytes | None) -> str | None:
    return None if digest is None else digest.hex()


def _unhex(digest: str | None) -> bytes | None:
    return None if digest is None else bytes.fromhex(digest)
