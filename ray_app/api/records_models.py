"""Bodies of the routes of records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from ray_app.records.committing import Settled
from ray_app.records.planning import Outcome
from ray_app.records.single import RecordState
from ray_app.spaces import VectorType

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: What a record is said to be when its indexes differ: the first of these that one of them is.
_TELLING: Final = (
    *(Outcome.DEAD, Outcome.EMBEDDED, Outcome.DELETED),
    *(Outcome.UNCHANGED, Outcome.NO_TEXT, Outcome.OLDER),
)


class RecordsRequest(BaseModel):
    """Rows of one table."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "records": [
                        {
                            "id": 1,
                            "summary": "Login fails",
                            "status": "open",
                            "updated_at": "2026-11-23T10:00:00Z",
                        }
                    ]
                }
            ]
        },
    )

    records: Annotated[
        list[dict[str, Any]],
        Field(
            min_length=1,
            description="Rows with their table's columns; others are ignored. The key is required.",
        ),
    ]
    vector_types: Annotated[
        # Lax: an enumeration is a string in JSON.
        list[Annotated[VectorType, Field(strict=False)]] | None,
        Field(
            min_length=1,
            description="The indexes to feed; by default the table's own and those that exist.",
        ),
    ] = None


class IndexOutcome(BaseModel):
    """What became of a record in one index."""

    outcome: Outcome
    reason: Annotated[str | None, Field(description="Why it is dead.")] = None
    chunks: Annotated[int, Field(description="Pieces its text was embedded in by this call.")] = 0

    @classmethod
    def of(cls, settled: Settled) -> IndexOutcome:
        return cls(outcome=settled.outcome, reason=settled.reason, chunks=settled.chunks)


class RecordOutcome(BaseModel):
    """What became of one row; ``outcome`` and ``reason`` are the most telling of its vector types."""

    id: str
    outcome: Outcome
    reason: str | None = None
    vector_types: dict[VectorType, IndexOutcome]

    @classmethod
    def of(cls, record_id: str, settled: Mapping[str, Settled]) -> RecordOutcome:
        most = min(settled.values(), key=lambda done: _TELLING.index(done.outcome))
        kinds = {VectorType(kind): IndexOutcome.of(done) for kind, done in settled.items()}
        return cls(id=record_id, outcome=most.outcome, reason=most.reason, vector_types=kinds)


class RecordsAnswer(BaseModel):
    """One outcome for each row, in the order of the request."""

    table: str
    records: list[RecordOutcome]
    #: How many records have each outcome.
    counts: dict[Outcome, int]
    #: Tokens that were embedded.
    tokens: int

    @classmethod
    def of(
        cls, table: str, ids: Sequence[str], settled: Mapping[str, Mapping[str, Settled]], tokens: int
    ) -> RecordsAnswer:
        """``settled`` is by vector type and record id."""
        records = [
            RecordOutcome.of(record, {kind: done[record] for kind, done in settled.items()}) for record in ids
        ]
        counts = Counter(record.outcome for record in records)
        return cls(
            table=table,
            records=records,
            counts={outcome: counts[outcome] for outcome in Outcome},
            tokens=tokens,
        )


class VectorState(BaseModel):
    """What is stored of a record for one vector type."""

    vector_type: VectorType
    model: str
    space: str
    #: Who embedded it, and when; null while no text of it could be embedded.
    provider: str | None
    embedded_at: datetime | None
    chunks: int
    #: The embedded row's own time, when it had one.
    updated_at: datetime | None
    #: Why its latest text could not be embedded; what is stored is then of an earlier one.
    dead_reason: str | None

    @classmethod
    def of(cls, state: RecordState) -> VectorState:
        time = None if state.updated_at is None else _EPOCH + timedelta(microseconds=state.updated_at)
        return cls(
            vector_type=VectorType(state.vector_type),
            model=state.model,
            space=state.space_id,
            provider=state.provider,
            embedded_at=state.embedded_at,
            chunks=state.chunks,
            updated_at=time,
            dead_reason=state.dead_reason,
        )


class RecordStateAnswer(BaseModel):
    """A record as the table spells its id, and its vectors."""

    table: str
    id: str
    vectors: list[VectorState]


class DeletedRecord(BaseModel):
    """A record that is not in any index any more."""

    table: str
    id: str
    #: Points that there were of it; 0 when it was gone already.
    deleted: int
