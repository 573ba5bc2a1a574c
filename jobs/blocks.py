"""Ray Data blocks of parts: one part is one row, so Ray cannot tear it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pyarrow as pa

from ray_app.parts import Part

SCHEMA: Final = pa.schema(
    [
        *((name, pa.string()) for name in ("key", "table", "vector_type", "space_id", "counts")),
        ("version", pa.int64()),
        *((name, pa.large_string()) for name in ("record_ids", "chunk_numbers", "texts", "hashes", "data")),
        *((name, pa.large_string()) for name in ("updated_at", "row_hashes", "drops", "refreshes", "faults")),
        ("estimated_tokens", pa.int64()),
        ("provider", pa.string()),
        ("tokens", pa.int64()),
        ("cost", pa.string()),
        ("seconds", pa.float64()),
        ("vectors", pa.large_binary()),
        ("dimensions", pa.int32()),
    ]
)


def to_block(parts: Iterable[Part]) -> pa.Table:
    """A block with one row for each part."""
    return pa.Table.from_pylist([part.to_row() for part in parts], schema=SCHEMA)


def from_block(block: pa.Table) -> list[Part]:
    return [Part.from_row(row) for row in block.to_pylist()]
