"""What a point holds, the same in both adapters: stamping on the way in, the result wall on the way out.

User columns live under ``d``, so a column called ``_t`` can neither replace nor be mistaken for ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import numpy as np
import numpy.typing as npt

from ray_app.errors import InputError, IsolationViolation
from ray_app.identity import partition_id, point_id
from ray_app.metrics.declared import ISOLATION_VIOLATIONS
from ray_app.spaces import EmbeddingSpace
from ray_app.store.port import Hit, IndexKey, PointBatch, PointMeta, Scalar, StoredPoint, StoredVector
from ray_app.store.sizing import json_bytes
from ray_app.store.words import WordVector, document_vector
from ray_app.tenants import TenantScope
from ray_app.text import SNIPPET_CHARS, data_hash

#: Names of a point's two vectors: of its meaning, and of its words.
VECTOR: Final = "dense"
WORDS: Final = "bm25"
TENANT: Final = "_t"
PARTITION: Final = "_p"
VERSION: Final = "_v"
HASH: Final = "_h"
RECORD: Final = "pk"
CHUNK: Final = "c"
VECTOR_TYPE: Final = "vt"
SNIPPET: Final = "text"
EMBEDDED_AT: Final = "at"
PROVIDER: Final = "provider"
MODEL: Final = "model"
DATA: Final = "d"

#: Payload keys fetched for a search hit and for a scroll; the tenant always, for the result wall.
HIT_KEYS: Final = (TENANT, RECORD, CHUNK, SNIPPET, DATA)
AUDIT_KEYS: Final = (TENANT, RECORD, CHUNK, HASH, VERSION)

#: Range filters of the engine compare as float64, which is exact up to here; the guard is a range filter.
MAX_VERSION: Final = 2**53
_FLOAT_CHARS: Final = 20
#: A word's number and weight.
_WORD_CHARS: Final = 32
_INT64: Final = range(-(2**63), 2**63)


@dataclass(frozen=True)
class NewPoint:
    """A stamped point, ready for either engine."""

    point_id: str
    vector: list[float]
    #: None when its text has no words.
    words: WordVector | None
    payload: dict[str, Any]

    @property
    def wire_bytes(self) -> int:
        """Rough upper bound of the point's size as JSON."""
        words = len(self.words.indices) if self.words else 0
        return _FLOAT_CHARS * len(self.vector) + _WORD_CHARS * words + json_bytes(self.payload)


@dataclass(frozen=True)
class Found:
    """A point as an engine returned it, not yet checked."""

    point_id: str
    payload: Mapping[str, Any]
    score: float = 0.0
    #: Where they were asked for.
    vector: Sequence[float] | None = None
    words: WordVector | None = None


def stamp(scope: TenantScope, index: IndexKey, batch: PointBatch) -> list[NewPoint]:
    """Points with ids, tenant, partition, version and hash set here and nowhere else.

    Raises:
        InputError: a vector, version, record id or payload value that the engine would refuse, or
            worse, accept and drop.
    """
    vectors = check_vectors(batch.vectors, index.space, rows=len(batch.metas)).tolist()
    shared = {**shared_keys(scope, index), VERSION: check_version(batch.version)}
    return [
        NewPoint(
            point_key(scope, index, meta.record_id, meta.chunk),
            vector,
            document_vector(clean_text(meta.text)),
            {**shared, **_own_keys(meta)},
        )
        for meta, vector in zip(batch.metas, vectors, strict=True)
    ]


def shared_keys(scope: TenantScope, index: IndexKey) -> dict[str, Any]:
    """What all points of an index say."""
    return {
        TENANT: str(scope.incarnation),
        PARTITION: str(partition_of(scope, index)),
        VECTOR_TYPE: index.vector_type,
        MODEL: clean_text(index.space.model),
    }


def check_version(version: int) -> int:
    """``version``, which the guard can compare. Raises InputError."""
    if not 0 <= version < MAX_VERSION:
        raise InputError(
            f"Version {version} cannot be stored.", hint="Use microseconds since 1970, below 2**53."
        )
    return int(version)


def _own_keys(meta: PointMeta) -> dict[str, Any]:
    return {
        HASH: meta.content_hash,
        RECORD: meta.record_id,
        CHUNK: meta.chunk,
        SNIPPET: clean_text(meta.text[:SNIPPET_CHARS]),
        EMBEDDED_AT: meta.embedded_at,
        PROVIDER: clean_text(meta.provider),
        DATA: clean_data(meta.data),
    }


def partition_of(scope: TenantScope, index: IndexKey) -> UUID:
    """The partition of an index of this tenant."""
    return partition_id(scope.secret, scope.incarnation, index.table, index.vector_type)


def point_key(scope: TenantScope, index: IndexKey, record_id: str, chunk: int) -> str:
    """The id of a record's chunk.

    Raises:
        InputError: the record id holds NUL or a lone surrogate; cleaned, it would name another record.
    """
    if clean_text(record_id) != record_id:
        raise InputError(f"A record id of {index.table} holds characters that cannot be stored.")
    return str(point_id(scope.secret, scope.incarnation, index.table, index.vector_type, record_id, chunk))


def check_vectors(
    vectors: npt.NDArray[np.float32], space: EmbeddingSpace, *, rows: int
) -> npt.NDArray[np.float32]:
    """``vectors`` as float32 of shape (rows, dimensions).

    Checked here because a server may acknowledge a point of the wrong size and drop it later, and
    Edge stores NaN, after which the point is never found.

    Raises:
        InputError: another shape, not numbers, or a value that is not finite as float32.
    """
    expected = (rows, space.dimensions)
    array = np.asarray(vectors)
    if array.shape != expected:
        raise InputError(
            f"Vectors of shape {array.shape} do not fit: {expected} is needed.",
            hint=f"Embed with the index's own model, {space.model}.",
        )
    if array.dtype.kind not in "fiu":
        raise InputError(f"Vectors of type {array.dtype} are not numbers.")
    with np.errstate(over="ignore"):
        single = array.astype(np.float32, copy=False)
        # Cosine normalises by the sum of squares; where that overflows, the engine stores zeros.
        usable = np.isfinite(np.einsum("ij,ij->i", single, single))
    if not usable.all():
        raise InputError(
            f"Vector {int(np.argmin(usable))} of the batch holds NaN, infinity or a value too large."
        )
    return single


def clean_text(text: str) -> str:
    """``text`` without NUL and with lone surrogates replaced: neither survives JSON and UTF-8 everywhere."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def clean_data(data: Mapping[str, Scalar | Sequence[Scalar]]) -> dict[str, Any]:
    """Payload columns that every engine takes.

    NaN and infinity, which JSON lacks, are left out; integers past 64 bits become text.

    Raises:
        InputError: a value that is neither a scalar nor a list of scalars.
    """
    cleaned = {clean_text(name): _clean_value(name, value) for name, value in data.items()}
    return {name: value for name, value in cleaned.items() if value is not None}


def _clean_value(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, int):
        return int(value) if value in _INT64 else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [item for item in (_clean_value(name, item) for item in value) if item is not None]
    raise InputError(
        f"Payload column {clean_text(name)!r} holds a {type(value).__name__}.",
        hint="Payload values are text, numbers, booleans and lists of them.",
    )


def check_tenant(scope: TenantScope, found: Sequence[Found]) -> None:
    """The result wall: every point must be the scope's own.

    Raises:
        IsolationViolation: one is not; the caller drops the whole answer.
    """
    own = str(scope.incarnation)
    foreign = sum(point.payload.get(TENANT) != own for point in found)
    if foreign:
        ISOLATION_VIOLATIONS.add(1)
        raise IsolationViolation(
            f"The vector store returned {foreign} of {len(found)} points that are not of the asking tenant; "
            "the answer was dropped.",
            hint="Stop serving and report this: a filter was ignored or the store was changed from outside.",
        )


def as_hit(found: Found) -> Hit:
    payload = found.payload
    return Hit(payload[RECORD], payload[CHUNK], found.score, payload[SNIPPET], payload.get(DATA) or {})


def as_vectors(found: Sequence[Found], space: EmbeddingSpace) -> npt.NDArray[np.float32]:
    """Their vectors by chunk, float32 of shape (len(found), dimensions)."""
    ordered = sorted(found, key=lambda point: point.payload[CHUNK])
    vectors = np.array([point.vector for point in ordered], np.float32)
    return vectors.reshape(len(ordered), space.dimensions)


def as_stored_vectors(found: Sequence[Found]) -> dict[tuple[str, int], StoredVector]:
    """Their vectors and content hashes by (record id, chunk)."""
    return {
        (point.payload[RECORD], point.payload[CHUNK]): StoredVector(
            point.payload[HASH], np.array(point.vector, np.float32)
        )
        for point in found
    }


def as_stored(found: Found) -> StoredPoint:
    payload = found.payload
    return StoredPoint(
        UUID(found.point_id),
        *(payload[RECORD], payload[CHUNK], payload[HASH], payload[VERSION]),
        data_hash(payload[DATA]) if DATA in payload else "",
    )


def as_partition(found: Found) -> UUID | None:
    """The point's partition, None where it names none that could be one."""
    try:
        return UUID(str(found.payload.get(PARTITION)))
    except ValueError:
        return None
