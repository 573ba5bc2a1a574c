"""The outbox of the platform's database: entries claimed, settled and counted.

A claim is a lease: entries of a drainer that ends without a word come back when it is over. No claim is
held by an open transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    bindparam,
    delete,
    func,
    literal,
    text,
    update,
)

from ray_app.db.clock import AHEAD

#: As ``ray_app.outbox.statements`` makes it, in the platform's database.
_outbox: Final = Table(
    "outbox",
    MetaData(schema="rowbeam"),
    Column("client_id", BigInteger),
    Column("table_name", Text),
    Column("id", BigInteger),
    Column("record_id", Text),
    Column("queued_at", DateTime(timezone=True)),
    Column("claim", Uuid),
    Column("held_until", DateTime(timezone=True)),
    Column("attempts", Integer),
)
#: Seconds that counting the entries may take.
_DEPTH_SECONDS: Final = 5


@dataclass(frozen=True, order=True)
class Lane:
    """Entries that wait for each other: one client's changes of one table."""

    client_id: int
    table: str


@dataclass(frozen=True)
class Entry:
    """A change of a record; of a whole table where ``record_id`` is None."""

    id: int
    record_id: str | None
    #: Times it was claimed, this one included, and not given back.
    attempts: int


@dataclass(frozen=True)
class Depth:
    """How full the outbox is."""

    entries: int
    #: Seconds that the oldest entry has waited.
    oldest: float
    #: Statements whose changes could not be noted.
    missed: int


def is_there(engine: Engine) -> bool:
    """Whether the database has an outbox."""
    with engine.connect() as connection:
        return connection.scalar(text("SELECT to_regclass('rowbeam.outbox')")) is not None


def depth(connection: Connection) -> Depth:
    """Raises DatabaseUnavailable when counting takes too long."""
    connection.execute(text(f"SET LOCAL statement_timeout = '{_DEPTH_SECONDS}s'"))
    entries, oldest = connection.execute(
        text("SELECT count(*), extract(epoch FROM clock_timestamp() - min(queued_at)) FROM rowbeam.outbox")
    ).one()
    missed = connection.scalar(
        text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM rowbeam.outbox_missed")
    )
    return Depth(int(entries), max(0.0, float(oldest or 0.0)), int(missed or 0))


class Outbox:
    """The outbox as one drainer sees it, under a claim of its own."""

    def __init__(self, source: Engine, claim: UUID, lease: timedelta) -> None:
        self._source = source
        self._claim = claim
        self._lease = lease

    def lanes(self) -> list[Lane]:
        """Lanes with entries, whether they can be claimed or not; looked up one by one through the key."""
        with self._source.connect() as connection:
            return [Lane(*row) for row in connection.execute(_LANES).all()]

    def claim(self, lane: Lane, limit: int) -> list[Entry]:
        """Up to ``limit`` of the lane's oldest entries that nobody holds, held until the lease is over."""
        values = {"client": lane.client_id, "table": lane.table, "limit": limit}
        with self._source.begin() as connection:
            rows = connection.execute(
                _CLAIM, {**values, "claim": self._claim, "lease": self._lease, "ahead": AHEAD}
            ).all()
        return sorted((Entry(*row) for row in rows), key=lambda entry: entry.id)

    def renew(self, lane: Lane, entries: Sequence[Entry]) -> None:
        """Hold entries for another lease, unless somebody else has claimed them since."""
        self._change(lane, entries, held_until=func.clock_timestamp() + self._lease)

    def finish(self, lane: Lane, entries: Sequence[Entry]) -> None:
        """Forget entries whose records are in step."""
        if entries:
            with self._source.begin() as connection:
                connection.execute(delete(_outbox).where(*self._mine(lane, entries)))

    def give_back(self, lane: Lane, entries: Sequence[Entry]) -> None:
        """Let anybody claim them, as if this had not."""
        attempts = func.greatest(_outbox.c.attempts - 1, 0)
        self._change(lane, entries, claim=None, held_until=None, attempts=attempts)

    def put_off(self, lane: Lane, entries: Sequence[Entry], wait: timedelta, *, fresh: bool = False) -> None:
        """Let nobody claim them for a while; ``fresh`` ones count as queued now, and as never tried."""
        now = func.clock_timestamp()
        renewed = {"attempts": 0, "queued_at": now} if fresh else {}
        self._change(lane, entries, claim=None, held_until=now + wait, **renewed)

    def add(self, lane: Lane, record_ids: Sequence[str]) -> None:
        """Queue records of the lane."""
        with self._source.begin() as connection:
            connection.execute(
                _ADD, {"client": lane.client_id, "table": lane.table, "records": list(record_ids)}
            )

    def _mine(self, lane: Lane, entries: Sequence[Entry]) -> list[ColumnElement[bool]]:
        entry = _outbox.c
        return [
            entry.client_id == lane.client_id,
            entry.table_name == lane.table,
            entry.claim == self._claim,
            entry.id == func.any(literal([item.id for item in entries], ARRAY(BigInteger))),
        ]

    def _change(self, lane: Lane, entries: Sequence[Entry], **values: object) -> None:
        if entries:
            with self._source.begin() as connection:
                connection.execute(update(_outbox).where(*self._mine(lane, entries)).values(**values))


_LANES: Final = text(
    """
    WITH RECURSIVE lanes AS (
        (SELECT client_id, table_name FROM rowbeam.outbox ORDER BY client_id, table_name LIMIT 1)
        UNION ALL
        SELECT next.client_id, next.table_name FROM lanes, LATERAL (
            SELECT client_id, table_name FROM rowbeam.outbox
            WHERE (client_id, table_name) > (lanes.client_id, lanes.table_name)
            ORDER BY client_id, table_name LIMIT 1
        ) AS next
    )
    SELECT client_id, table_name FROM lanes
    """
)
# As an array the choice is made once, before the update. Joined to it, Postgres may make it again for each
# entry it looks at, and every time finds others free: a claim then takes the whole lane.
_CLAIM: Final = text(
    """
    UPDATE rowbeam.outbox
    SET claim = :claim, held_until = clock_timestamp() + :lease, attempts = attempts + 1
    WHERE client_id = :client AND table_name = :table AND id = ANY (ARRAY(
        SELECT id FROM rowbeam.outbox
        WHERE client_id = :client AND table_name = :table
            AND (held_until IS NULL OR held_until <= clock_timestamp()
                -- Nobody holds one for so long: the clock has been set back since.
                OR held_until > clock_timestamp() + :ahead)
        ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
    ))
    RETURNING id, record_id, attempts
    """
)
_ADD: Final = text(
    "INSERT INTO rowbeam.outbox (client_id, table_name, record_id) SELECT :client, :table, unnest(:records)"
).bindparams(bindparam("records", type_=ARRAY(Text)))
