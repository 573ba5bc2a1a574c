"""A sync reads what has changed, and misses nothing that was committed late."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ray_app.errors import InputError
from ray_app.syncing.reports import Reading, SyncReport
from tests.support.sync_site import TABLE, SyncSite


def counts(report: SyncReport) -> tuple[Reading, int, int, int, int]:
    """How it was read; records read, embedded, unchanged and deleted."""
    (index,) = report.indexes
    assert index.error is None, index.error
    n = index.counts
    assert n.balanced
    return index.reading, n.read, n.embedded, n.unchanged, n.deleted


@pytest.fixture
def synced(changing: SyncSite) -> SyncSite:
    """Three rows, old ones, and a sync that has seen them."""
    changing.insert((1, "one"), (2, "two"), (3, "three"))
    changing.sql(f"UPDATE {TABLE} SET updated_at = now() - interval '1 day'")
    assert counts(changing.sync()) == (Reading.WHOLE, 3, 3, 0, 0)
    return changing


def test_only_what_was_changed_is_read(synced: SyncSite) -> None:
    assert counts(synced.sync()) == (Reading.CHANGES, 0, 0, 0, 0)
    synced.sql(f"UPDATE {TABLE} SET title = 'zwei', updated_at = now() WHERE id = 2")
    synced.insert((4, "four"))
    assert counts(synced.sync()) == (Reading.CHANGES, 2, 2, 0, 0)
    assert synced.find("zwei")[0] == "2"
    # Within the overlap they are read again, and cost no model call.
    assert counts(synced.sync()) == (Reading.CHANGES, 2, 0, 2, 0)
    synced.check_exact()


def test_a_transaction_that_commits_after_a_sync_is_found_by_the_next(synced: SyncSite) -> None:
    late = f"INSERT INTO {TABLE} (client_id, id, title, updated_at) VALUES (1, 9, 'late', now())"
    with synced.open_transaction(late) as commit:
        # Begun long ago, as far as the ledger can tell: the overlap alone would not reach back to it.
        began = synced.scalar("SELECT min(xact_start) FROM pg_stat_activity WHERE state LIKE 'idle in%'")
        assert counts(synced.sync()) == (Reading.CHANGES, 0, 0, 0, 0)
        watermark = synced.mark().mark.watermark
        assert watermark is not None
        assert watermark == began - timedelta(seconds=600)  # type: ignore[operator]
        commit()
    assert counts(synced.sync()) == (Reading.CHANGES, 1, 1, 0, 0)
    assert synced.find("late")[0] == "9"


def test_rows_that_are_gone_or_not_active_are_dropped_with_no_outbox(synced: SyncSite) -> None:
    synced.sql(f"DELETE FROM {TABLE} WHERE id = 1")
    synced.sql(f"UPDATE {TABLE} SET active = false, updated_at = now() WHERE id = 2")
    assert counts(synced.sync()) == (Reading.CHANGES, 2, 0, 0, 2)
    assert synced.records() == ["3"]
    synced.check_exact()


def test_a_change_without_a_new_time_is_found_by_a_full_sync(synced: SyncSite) -> None:
    synced.sql(f"UPDATE {TABLE} SET title = 'uno' WHERE id = 1")
    assert counts(synced.sync()) == (Reading.CHANGES, 0, 0, 0, 0)
    assert counts(synced.sync(full=True)) == (Reading.WHOLE, 1, 1, 0, 0)


def test_rows_without_a_time_are_read_each_time(synced: SyncSite) -> None:
    synced.sql(f"ALTER TABLE {TABLE} ALTER updated_at DROP NOT NULL")
    synced.sql(f"UPDATE {TABLE} SET updated_at = NULL, title = 'uno' WHERE id = 1")
    assert counts(synced.sync()) == (Reading.CHANGES, 1, 1, 0, 0)


def test_a_table_without_times_is_compared_whole(changing: SyncSite) -> None:
    changing.insert((1, "one"), (2, "two"))
    changing.sql(f"ALTER TABLE {TABLE} DROP COLUMN updated_at")
    changing.sync()
    changing.sql(f"UPDATE {TABLE} SET title = 'uno' WHERE id = 1")
    assert counts(changing.sync()) == (Reading.WHOLE, 1, 1, 0, 0)


def test_what_is_much_is_left_to_a_job_and_read_again_until_that_is_done(changing: SyncSite) -> None:
    changing.sql(
        f"INSERT INTO {TABLE} (client_id, id, title) SELECT 1, n, 'row ' || n FROM generate_series(1, 1600) n"
    )
    with pytest.raises(Exception, match="No job is driven here"):
        changing.sync()
    assert len(changing.jobs) == 1
    kind = changing.scalar("SELECT kind FROM rowbeam.jobs WHERE job_id = :id", id=changing.jobs[0])
    assert kind == "sync"
    # The rest is little enough now: what was embedded before is not embedded again.
    assert counts(changing.sync()) == (Reading.WHOLE, 600, 600, 0, 0)
    changing.check_exact()


def test_a_table_without_an_index_is_refused(synced: SyncSite) -> None:
    with pytest.raises(InputError, match="has no index of table issues"):
        synced.sync(tables=["issues"])


def test_what_a_role_may_not_see_holds_the_watermark_too(synced: SyncSite) -> None:
    """A transaction of another user, looked at by a role without privileges."""
    from sqlalchemy import create_engine

    from ray_app.db.activity import read_activity

    synced.sql("DROP ROLE IF EXISTS blind_reader")
    synced.sql("CREATE ROLE blind_reader LOGIN")
    engine = create_engine(synced.database.url.set(username="blind_reader"))
    try:
        with synced.open_transaction("SELECT 1"), engine.connect() as connection:
            first, second = read_activity(connection), read_activity(connection)
        with engine.connect() as connection:
            later = read_activity(connection)
    finally:
        engine.dispose()
        synced.sql("DROP ROLE blind_reader")
    assert first.unseen
    assert first.unseen & second.unseen
    assert not first.unseen & later.unseen
