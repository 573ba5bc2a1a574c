"""Rows of a platform's table by the time at which they were changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    Select,
    Table,
    Text,
    cast,
    func,
    literal,
    select,
    true,
    tuple_,
)

from ray_app.tables import TableSpec


@dataclass(frozen=True, order=True)
class ChangedRow:
    """When a row was changed, with a time zone, and its key as text."""

    time: datetime
    record_id: str


class RecentRows:
    """Looks for active rows by their ``updated_column``, a timestamp; one without a zone is in UTC.

    Its statements read the whole table unless it has an index of (tenant column, updated column).
    """

    def __init__(self, spec: TableSpec, table: Table) -> None:
        self._table = table
        self._key = cast(table.c[spec.primary_key], Text).collate("C")
        self._tenant = table.c[spec.tenant_column]
        self._updated: ColumnElement[Any] = table.c[str(spec.updated_column)]
        self._naive = not getattr(self._updated.type, "timezone", False)
        self._active = true() if spec.active_column is None else table.c[spec.active_column].is_(True)

    def oldest(self, connection: Connection, since: Mapping[int, datetime]) -> dict[int, datetime]:
        """For each tenant column's value in ``since``, when its first row after that time was changed."""
        asked = (
            func.unnest(
                literal(list(since), ARRAY(BigInteger)),
                literal([self._given(time) for time in since.values()], ARRAY(DateTime(not self._naive))),
            )
            .table_valued("client", "since")
            .render_derived("asked")
        )
        query = (
            select(self._tenant, func.min(self._updated))
            .join_from(self._table, asked, self._tenant == asked.c.client)
            .where(self._updated > asked.c.since, self._active)
            .group_by(self._tenant)
        )
        return {client: _aware(time) for client, time in connection.execute(query).all()}

    def page(
        self, connection: Connection, client_id: int, since: datetime, after: ChangedRow | None, limit: int
    ) -> list[ChangedRow]:
        """The first ``limit`` rows changed later than ``since``, by time; those that come after ``after``."""
        query = (
            select(self._updated, self._key)
            .where(self._tenant == client_id, self._active, self._updated > self._given(since))
            .order_by(self._updated, self._key)
            .limit(limit)
        )
        return self._rows(connection, query, after)

    def changed(
        self, connection: Connection, client_id: int, since: datetime, after: ChangedRow | None, limit: int
    ) -> list[ChangedRow]:
        """As ``page``, for rows changed at ``since`` or later, the ones that are not active among them."""
        query = (
            select(self._updated, self._key)
            .where(self._tenant == client_id, self._updated >= self._given(since))
            .order_by(self._updated, self._key)
            .limit(limit)
        )
        return self._rows(connection, query, after)

    def untimed(self, connection: Connection, client_id: int, after: str | None, limit: int) -> list[str]:
        """The first ``limit`` keys of rows that do not say when they were changed; those after ``after``."""
        query = (
            select(self._key)
            .where(self._tenant == client_id, self._updated.is_(None))
            .order_by(self._key)
            .limit(limit)
        )
        if after is not None:
            query = query.where(self._key > after)
        return list(connection.scalars(query))

    def _rows(
        self, connection: Connection, query: Select[tuple[Any, Any]], after: ChangedRow | None
    ) -> list[ChangedRow]:
        if after is not None:
            last = literal(self._given(after.time), DateTime(not self._naive)), literal(after.record_id, Text)
            query = query.where(tuple_(self._updated, self._key) > tuple_(*last))
        return [ChangedRow(_aware(time), record) for time, record in connection.execute(query).all()]

    def _given(self, time: datetime) -> datetime:
        """``time`` as the column has it."""
        return time.astimezone(UTC).replace(tzinfo=None) if self._naive else time


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)
