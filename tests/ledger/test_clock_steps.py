"""The database's clock is set forward and back by hours: no change is lost, and nothing waits for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import text

from ray_app.db import clock
from ray_app.db.job_owners import LEASE
from ray_app.db.jobs import finish_job, heartbeat, is_worked_on, take_job
from ray_app.db.outbox import Lane, Outbox
from ray_app.db.progress import job_progress
from ray_app.db.sync_marks import DueSync, note_synced, set_schedule, take_due
from ray_app.reconciling.operation import reconcile
from ray_app.reports import JobState
from ray_app.syncing.reports import Reading
from tests.support.parts_site import TABLE, Site
from tests.support.pushes import PushSite
from tests.support.stepped_clock import SteppedClock
from tests.support.sync_site import CountedBackend, SyncSite

HOURS = timedelta(hours=3)
NO_STEP = timedelta(0)
#: Where the clock stands when rows are embedded, and when they are changed.
STEPS = [
    pytest.param(NO_STEP, -HOURS, id="set-back"),
    pytest.param(HOURS, NO_STEP, id="forward-and-right-again"),
    pytest.param(NO_STEP, HOURS, id="set-forward"),
    pytest.param(-HOURS, NO_STEP, id="back-and-right-again"),
]


@pytest.fixture
def time(site: Site) -> SteppedClock:
    """The clock of the site's database; requested before anything is done there."""
    return SteppedClock(site.workspace.ledger)


def versions(site: Site, count: int = 1) -> list[int]:
    with site.workspace.ledger.connect() as connection:
        return [clock.next_version(connection) for _ in range(count)]


def check_exact(site: Site) -> None:
    """No drift, by the library's own comparison of everything with everything."""

    def no_job(*_: object, **__: object) -> None:
        raise AssertionError("nothing is repaired here")

    report = reconcile(site.workspace, lambda: nullcontext(site.store), site.tenant, grace=0, run_job=no_job)
    assert report.found == ()


def touch(site: Site | SyncSite, key: int, title: str) -> None:
    """As an application changes a row."""
    site.sql(f"UPDATE {TABLE} SET title = :title, updated_at = now() WHERE id = :key", key=key, title=title)


def test_versions_grow_whatever_the_clock_does(site: Site, time: SteppedClock) -> None:
    found: list[int] = []
    for turn in range(30):
        time.step(timedelta(minutes=turn * 37 % 61 - 30) * 20)
        found += versions(site, 2)
    assert found == sorted(set(found))


def test_versions_follow_the_clock_while_it_is_right(site: Site) -> None:
    before = datetime.now(UTC).timestamp()
    (version,) = versions(site)
    assert before - 60 < version / 1e6 < datetime.now(UTC).timestamp() + 60


def test_callers_together_get_versions_of_their_own(site: Site, time: SteppedClock) -> None:
    time.step(HOURS)
    versions(site)
    time.step(NO_STEP)

    def several(_: int) -> list[int]:
        return versions(site, 50)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(several, range(4)))
    assert all(mine == sorted(mine) for mine in found)
    assert len({version for mine in found for version in mine}) == 200


def test_a_version_is_kept_by_a_rollback_and_holds_no_lock(site: Site, time: SteppedClock) -> None:
    time.step(-HOURS)
    with site.workspace.ledger.connect() as connection:
        first = clock.next_version(connection)
        held = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
        assert connection.scalar(held) == 0
        connection.rollback()
    assert versions(site)[0] > first


def test_a_clock_that_shows_another_century_is_not_followed(site: Site, time: SteppedClock) -> None:
    """Versions must stay below what the store's guard can compare."""
    time.step(timedelta(days=365 * 500))
    first, second = versions(site, 2)
    assert first < second < 2**53


def test_versions_begin_after_those_of_an_older_ledger(site: Site) -> None:
    site.insert((1, "one"))
    site.backfill()
    later = int((datetime.now(UTC) + HOURS).timestamp() * 1e6)
    site.sql("UPDATE rowbeam.qdrant_vectors SET version = :later", later=later)
    site.sql("DROP FUNCTION rowbeam.next_version")
    site.sql("DROP SEQUENCE rowbeam.versions")
    config = Config()
    config.set_main_option("script_location", "ray_app:db/migrations")
    revisions = ScriptDirectory.from_config(config).walk_revisions()
    (revision,) = [it for it in revisions if it.path.endswith("_versions_that_never_go_back.py")]
    with (
        site.workspace.ledger.begin() as connection,
        Operations.context(MigrationContext.configure(connection)),
    ):
        revision.module.upgrade()
    assert versions(site)[0] > later


@pytest.mark.parametrize(("first", "second"), STEPS)
def test_a_job_embeds_what_was_changed(
    site: Site, time: SteppedClock, first: timedelta, second: timedelta
) -> None:
    time.step(first)
    site.insert((1, "one"), (2, "two"), (3, "three"))
    site.sql(f"UPDATE {TABLE} SET updated_at = now()")
    site.backfill()
    time.step(second)
    touch(site, 1, "uno")
    site.sql(f"UPDATE {TABLE} SET status = 'closed', updated_at = now() WHERE id = 2")
    site.sql(f"DELETE FROM {TABLE} WHERE id = 3")
    assert site.backfill().embedded == 1
    assert site.find("uno", limit=1) == ["1"]
    assert site.find("two", limit=3, status="closed") == ["2"]
    check_exact(site)


@pytest.mark.parametrize(("first", "second"), STEPS)
def test_a_sync_finds_what_was_changed(
    site: Site, time: SteppedClock, changing: SyncSite, first: timedelta, second: timedelta
) -> None:
    time.step(first)
    changing.insert((1, "one"), (2, "two"))
    changing.sql(f"UPDATE {TABLE} SET updated_at = now()")
    changing.sync()
    time.step(second)
    touch(changing, 1, "uno")
    changing.insert((3, "three"))
    changing.sql(f"DELETE FROM {TABLE} WHERE id = 2")
    changing.sync()
    assert changing.find("uno", limit=1) == ["1"]
    assert changing.records() == ["1", "3"]
    check_exact(site)


def test_a_sync_after_the_clock_was_set_back_compares_the_whole_table_once(
    time: SteppedClock, changing: SyncSite
) -> None:
    changing.insert((1, "one"))
    readings = []
    for step in (NO_STEP, NO_STEP, -HOURS, -HOURS):
        time.step(step)
        readings += [index.reading for index in changing.sync().indexes]
    assert readings == [Reading.WHOLE, Reading.CHANGES, Reading.WHOLE, Reading.CHANGES]


@pytest.mark.parametrize(("first", "second"), STEPS)
def test_a_push_is_not_older_for_a_step(
    site: Site, time: SteppedClock, first: timedelta, second: timedelta
) -> None:
    pushes = PushSite.of(site.workspace, site.store, site.tenant)
    for step, words in ((first, "one"), (second, "uno")):
        time.step(step)
        with site.workspace.ledger.connect() as connection:
            moment = clock.now(connection).isoformat()
        row = {"id": 1, "title": words, "updated_at": moment}
        assert pushes.outcomes(row, table=TABLE) == {"1": "embedded"}
    assert pushes.snippets(TABLE) == {"1": ["uno"]}


@pytest.mark.parametrize("step", [-HOURS, HOURS], ids=["set-back", "set-forward"])
def test_what_was_pushed_after_a_part_was_read_stays(site: Site, time: SteppedClock, step: timedelta) -> None:
    """Their order is the order of their versions, which a step between the two must not turn round."""
    site.insert((1, "old"), (2, "other"))
    job = site.start()
    parts = list(site.parts(job))
    time.step(step)
    pushes = PushSite.of(site.workspace, site.store, site.tenant)
    pushes.push({"id": 1, "title": "new"}, table=TABLE)
    for part in parts:
        site.write(part)
    assert pushes.snippets(TABLE) == {"1": ["new"], "2": ["other"]}
    finish_job(site.workspace.ledger, job, JobState.SUCCEEDED)


def test_a_row_of_the_future_does_not_stand_in_the_way(site: Site) -> None:
    """An application's own clock may be wrong too."""
    site.insert((1, "one"))
    site.sql(f"UPDATE {TABLE} SET updated_at = now() + interval '1 year'")
    site.backfill()
    touch(site, 1, "uno")
    assert site.backfill().embedded == 1


@pytest.mark.parametrize("step", [-HOURS, HOURS], ids=["set-back", "set-forward"])
def test_a_driver_lives_by_the_clock_that_timed_its_heartbeat(
    site: Site, time: SteppedClock, step: timedelta
) -> None:
    """The database's, which need not be this machine's."""
    time.step(step)
    site.insert((1, "one"))
    job = site.start()
    heartbeat(site.workspace.ledger, job, {})
    found = job_progress(site.workspace.ledger, job.job_id)
    assert found.state is JobState.RUNNING
    assert 0 <= found.seconds < 600
    time.step(NO_STEP)
    heartbeat(site.workspace.ledger, job, {})
    assert job_progress(site.workspace.ledger, job.job_id).state is JobState.RUNNING


def test_a_driver_that_died_before_the_clock_was_set_back_is_found_dead(
    site: Site, time: SteppedClock
) -> None:
    site.insert((1, "one"))
    job = site.start()
    site.sql("UPDATE rowbeam.jobs SET owner_host = 'elsewhere'")
    assert is_worked_on(site.workspace.ledger, site.tenant.incarnation, TABLE)
    time.step(-HOURS)
    assert not is_worked_on(site.workspace.ledger, site.tenant.incarnation, TABLE)
    assert take_job(site.workspace.ledger, job.job_id).run == 2


def take_one(site: Site) -> DueSync:
    (due,) = take_due(site.workspace.ledger)
    assert (due.tenant, due.incarnation) == ("acme", site.tenant.incarnation)
    return due


def test_a_schedule_goes_on_after_the_clock_was_set_back(site: Site, time: SteppedClock) -> None:
    ledger = site.workspace.ledger
    set_schedule(ledger, site.tenant.incarnation, timedelta(seconds=60))
    note_synced(ledger, take_one(site))
    assert take_due(ledger) == []
    time.step(-HOURS)
    note_synced(ledger, take_one(site))
    assert take_due(ledger) == []


def test_a_scheduled_sync_that_has_not_ended_well_is_due_again_in_minutes(
    site: Site, time: SteppedClock
) -> None:
    ledger = site.workspace.ledger
    set_schedule(ledger, site.tenant.incarnation, timedelta(days=1))
    take_one(site)
    time.step(timedelta(minutes=4))
    assert take_due(ledger) == []
    time.step(timedelta(minutes=6))
    again = take_one(site)
    time.step(timedelta(minutes=9))
    note_synced(ledger, again)
    time.step(timedelta(minutes=12))
    assert take_due(ledger) == []
    # A day from when it was taken, not from when it ended.
    time.step(timedelta(days=1, minutes=5))
    assert take_due(ledger) == []
    time.step(timedelta(days=1, minutes=7))
    take_one(site)


def test_an_outbox_drains_after_the_clock_was_set_back(
    time: SteppedClock, changing: SyncSite, backend: CountedBackend
) -> None:
    """A drainer that died held its entries by the former clock."""
    changing.install()
    changing.insert((1, "one"))
    outbox = Outbox(changing.workspace.source, changing.tenant.incarnation, LEASE)
    assert len(outbox.claim(Lane(1, TABLE), 10)) == 1
    changing.drain(backend)
    assert changing.records() == []
    time.step(-HOURS)
    changing.drain(backend)
    assert changing.records() == ["1"]
