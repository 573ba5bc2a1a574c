"""What a caller pushed, checked: whose rows they are, which records, and whether they are still there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from ray_app.db.casting import cast_rows
from ray_app.db.source import SourceRow, SourceTable
from ray_app.errors import PermissionDenied


@dataclass(frozen=True)
class PushedRow:
    """One row of a request."""

    #: Its place in the request.
    place: int
    row: SourceRow
    #: False takes the record out of the index, as a job does with rows that are not active.
    active: bool

    @property
    def record_id(self) -> str:
        return self.row.record_id


def read_rows(
    engine: Engine, source: SourceTable, client_id: int, rows: Sequence[Mapping[str, Any]]
) -> list[PushedRow]:
    """``rows`` with the values their table would give them, in order.

    Raises:
        PermissionDenied: a row names another client.
        InvalidRecord: as ``cast_rows``.
        DatabaseUnavailable: Postgres cannot be reached.
    """
    spec = source.spec
    for place, row in enumerate(rows):
        if spec.tenant_column in row and not _is_client(row[spec.tenant_column], client_id):
            raise PermissionDenied(
                f"Row {place} has another {spec.tenant_column} than the API key's tenant.",
                hint="Leave it out: the key says whose rows these are. Nothing was written.",
            )
    found = cast_rows(engine, source, rows)
    active = spec.active_column
    return [
        PushedRow(place, row, active is None or active not in sent or row.values[active] is True)
        for place, (row, sent) in enumerate(zip(found, rows, strict=True))
    ]


def _is_client(value: object, client_id: int) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return False
    return str(value) == str(client_id)
