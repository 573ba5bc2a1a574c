"""One record by its key: what is stored of it, and its removal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ray_app.client.reading import ask
from ray_app.client.steps import Operation, Patience, Request, segment
from ray_app.errors import InputError


@dataclass(frozen=True)
class VectorState:
    """What is stored of a record for one vector type."""

    vector_type: str
    model: str
    space: str
    #: Who embedded it, and when; None while no text of it could be embedded.
    provider: str | None
    embedded_at: datetime | None
    chunks: int
    #: The embedded row's own time, when it had one.
    updated_at: datetime | None
    #: Why its latest text could not be embedded; what is stored is then of an earlier one.
    dead_reason: str | None


@dataclass(frozen=True)
class RecordState:
    """A record as the table spells its id, and its vectors."""

    table: str
    id: str
    vectors: tuple[VectorState, ...]


@dataclass(frozen=True)
class DeletedRecord:
    """A record that is in no index any more."""

    table: str
    id: str
    #: Points that there were of it; 0 when it was gone already.
    deleted: int


def state(patience: Patience, table: str, record_id: str | int) -> Operation[RecordState]:
    return ask(patience, RecordState, Request("GET", _path(table, record_id)))


def delete(patience: Patience, table: str, record_id: str | int) -> Operation[DeletedRecord]:
    return ask(patience, DeletedRecord, Request("DELETE", _path(table, record_id)))


def _path(table: str, record_id: str | int) -> str:
    if record_id == "":
        raise InputError("A record's id is not empty.")
    return f"/v1/tables/{segment(table)}/records/{segment(str(record_id))}"
