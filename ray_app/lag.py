"""How long changes of rows have waited to be embedded: the ledger's lag behind the platform's tables."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final, TypeAlias
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from ray_app.db.engine import reason_of
from ray_app.db.indexes import list_indexes
from ray_app.db.overview import IndexSince
from ray_app.db.recent import ChangedRow, RecentRows
from ray_app.db.source import SourceTable
from ray_app.errors import DatabaseUnavailable, InputError
from ray_app.metrics.declared import REPORT_FAILURES
from ray_app.reading import RangeReader
from ray_app.spaces import VectorType
from ray_app.workspace import Workspace

log = logging.getLogger(__name__)

#: Seconds one statement may take; a large table without an index of its times takes longer.
STATEMENT_SECONDS: Final = 5
#: Seconds of comparing changed rows with the ledger in one measurement; the next one goes on from there.
COMPARE_SECONDS: Final = 5.0
#: Rows compared together.
PAGE: Final = 200
#: What a row's time may be behind the moment it is seen: clocks differ, and long transactions set times
#: when they begin.
MARGIN: Final = timedelta(minutes=10)
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)

_Key: TypeAlias = tuple[UUID, str, str]


class LagMeter:
    """Measures the lag again and again, and looks only at what has changed since it last looked."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        #: Up to when all changes of an index were found embedded.
        self._embedded_until: dict[_Key, datetime] = {}
        self._deadline = 0.0

    def measure(self, indexes: Iterable[IndexSince]) -> dict[str, float]:
        """Seconds that the oldest change not embedded yet has waited, by table, the worst tenant's.

        0 where all is embedded, or where nothing has to be: the text did not change, there is none, or it
        is a dead letter. A row counts as changed when its table says so, but no earlier than its index was
        made. Rows that are gone are not counted, and changes that were not compared yet neither.

        ``indexes`` come by table. Left out are tables that do not tell when rows were changed, that
        cannot be used, or that take too long.
        """
        self._deadline = time.monotonic() + COMPARE_SECONDS
        lags: dict[str, float] = {}
        for table, group in groupby(indexes, key=lambda index: index.table):
            try:
                lag = self._of_table(table, list(group))
            except InputError as error:
                log.debug("The lag of table %s cannot be told: %s", table, error.message)
            except (DatabaseUnavailable, SQLAlchemyError) as error:
                REPORT_FAILURES.add(1, "lag")
                log.warning("The lag of table %s is not known: %s", table, reason_of(error))
            else:
                if lag is not None:
                    lags[table] = lag
        return lags

    def _of_table(self, table: str, indexes: Sequence[IndexSince]) -> float | None:
        """None when its rows do not tell when they were changed.

        Raises:
            InputError: the table cannot be used.
            DatabaseUnavailable, SQLAlchemyError: it cannot be read.
        """
        source = self._workspace.source_table(table)
        recent = source.recent()
        if recent is None:
            return None
        changed: list[tuple[datetime, IndexSince]] = []
        with self._workspace.source.begin() as connection:
            now = datetime.fromtimestamp(source.clock(connection) / 1e6, UTC)
            _limit_statements(connection)
            for _, group in groupby(indexes, key=lambda index: index.vector_type):
                by_client = {index.client_id: index for index in group}
                since = {client: self._since(index) for client, index in by_client.items()}
                changed += [
                    (first, by_client[client]) for client, first in recent.oldest(connection, since).items()
                ]
        oldest = now
        for first, index in sorted(changed, key=lambda item: item[0]):
            if max(first, index.created_at) < oldest and time.monotonic() < self._deadline:
                waiting = self._first_waiting(source, recent, index)
                oldest = min(oldest, max(waiting, index.created_at) if waiting else now)
        return max(0.0, (now - oldest).total_seconds())

    def _since(self, index: IndexSince) -> datetime:
        """From when on changes have to be looked at: a backfill sees all from before it began."""
        known = [index.covered_at, self._embedded_until.get(_key(index))]
        return max((time - MARGIN for time in known if time is not None), default=_BEGINNING)

    def _first_waiting(self, source: SourceTable, recent: RecentRows, index: IndexSince) -> datetime | None:
        """When the first of the index's changed rows that has to be embedded was changed, if any is found."""
        reader = self._reader(source, index)
        since, after = self._since(index), None
        while reader is not None and time.monotonic() < self._deadline:
            with self._workspace.source.begin() as connection:
                _limit_statements(connection)
                page = recent.page(connection, index.client_id, since, after, PAGE)
            waiting = _first_to_embed(reader, page)
            if waiting is not None or not page:
                return waiting
            after = page[-1]
            self._embedded_until[_key(index)] = after.time
        return None

    def _reader(self, source: SourceTable, index: IndexSince) -> RangeReader | None:
        """None when the index has gone meanwhile. Raises UnknownTenant when the tenant has."""
        workspace = self._workspace
        kind = VectorType(index.vector_type)
        pinned = list_indexes(workspace.ledger, index.incarnation).get((index.table, kind))
        if pinned is None:
            return None
        reader = workspace.reader(workspace.registry.get(index.tenant), pinned, source)
        return RangeReader(reader, workspace.source, workspace.ledger, outage_budget=0)


def _key(index: IndexSince) -> _Key:
    return index.incarnation, index.table, index.vector_type


def _limit_statements(connection: Connection) -> None:
    connection.execute(text(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'"))


def _first_to_embed(reader: RangeReader, page: Sequence[ChangedRow]) -> datetime | None:
    """When the first of these rows that has to be embedded was changed."""
    times = {row.record_id: row.time for row in page}
    changed: list[datetime] = []
    for rows in reader.rows_of(list(times)):
        changed += [times[item.record_id] for item in reader.compare(rows, *reader.lookup(rows)).changes]
    return min(changed, default=None)
