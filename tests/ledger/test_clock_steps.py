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
from ray_app.db.jobs import finish_job
from ray_app.reconciling.operation import reconcile
from ray_app.reports import JobState
from tests.support.parts_site import TABLE, Site
from tests.support.pushes import PushSite
from tests.support.stepped_clock import SteppedClock
from tests.support.sync_site import SyncSite

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
