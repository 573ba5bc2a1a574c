"""The transactions that are open in a database, as far as a role without privileges can tell."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, text

from ray_app.syncing.watermark import Activity

#: ``pg_stat_activity`` hides when other users' transactions began from who is no member of
#: ``pg_read_all_stats``. ``pg_locks`` hides nothing: every open transaction holds the lock of its own
#: virtual id.
#: Autovacuum commits no rows.
_OPEN = text(
    """
    SELECT locks.virtualtransaction AS name, activity.xact_start AS began,
        activity.xact_start IS NULL AND coalesce(activity.state, 'disabled') = 'disabled' AS unseen
    FROM pg_locks AS locks JOIN pg_stat_activity AS activity ON activity.pid = locks.pid
    WHERE locks.locktype = 'virtualxid' AND locks.granted AND locks.pid <> pg_backend_pid()
        AND activity.datname = current_database()
        AND activity.backend_type IS DISTINCT FROM 'autovacuum worker'
    """
)
_PREPARED = text("SELECT EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database())")


def read_activity(connection: Connection) -> Activity:
    """What is under way now. Rows have to be read after this, with a snapshot of their own.

    The order matters: a transaction that begins after the clock was read has no earlier time, one that
    ends before the locks are read is visible to whoever reads rows later, and one that is prepared in
    between is in the second list.
    """
    clock: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    standby = bool(connection.scalar(text("SELECT pg_is_in_recovery()")))
    found = connection.execute(_OPEN).all()
    prepared = bool(connection.scalar(_PREPARED))
    # The lock of an open transaction is there a moment before its beginning is: the overlap is longer.
    began = [row.began for row in found if row.began is not None]
    unseen = frozenset(row.name for row in found if row.unseen)
    return Activity(clock, min(began, default=None), unseen, prepared, standby)
