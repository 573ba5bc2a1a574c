"""What is reported of the ledger as a whole, by one process, and how far it lags behind the tables."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, text, update

from ray_app.db import jobs
from ray_app.db.engine import engine_for
from ray_app.db.overview import Budget, EndedJobs, read_indexes, read_overview
from ray_app.db.schema import jobs as jobs_table
from ray_app.errors import DatabaseUnavailable, StoreUnavailable
from ray_app.lag import LagMeter
from ray_app.metrics import declared as metrics
from ray_app.reporting import Reporter, SoleHolder
from ray_app.reports import Counts, JobState
from ray_app.settings import Settings
from ray_app.tenants import Placement
from ray_app.workspace import Workspace
from tests.support.counted import Growth
from tests.support.parts_site import TABLE, Site


def lags(site: Site, meter: LagMeter | None = None) -> dict[str, float]:
    with site.workspace.ledger.connect() as connection:
        indexes = read_indexes(connection)
    return (meter or LagMeter(site.workspace)).measure(indexes)


def change(site: Site, key: int, *, title: str | None = None, age: float = 0.0) -> None:
    """Change a row ``age`` seconds ago, also its title if one is given."""
    site.sql(
        f"UPDATE {TABLE} SET title = coalesce(:title, title),"
        " updated_at = now() - make_interval(secs => :age) WHERE id = :key",
        key=key,
        title=title,
        age=age,
    )


def embed_long_ago(site: Site, *rows: tuple[int, str | None]) -> None:
    """Rows that were last changed, and embedded, a year ago."""
    site.insert(*rows)
    site.sql(f"UPDATE {TABLE} SET updated_at = now() - interval '1 year'")
    site.backfill()
    site.sql("UPDATE rowbeam.indexes SET created_at = now() - interval '1 year'")
    site.sql("UPDATE rowbeam.jobs SET started_at = now() - interval '1 year'")


def test_a_change_lags_from_its_time_until_it_is_embedded(site: Site) -> None:
    embed_long_ago(site, (1, "one"), (2, "two"), (3, None))
    assert lags(site) == {TABLE: 0.0}
    change(site, 1, title="another", age=500)
    change(site, 2, title="another too", age=100)
    assert 500 <= lags(site)[TABLE] < 560
    site.backfill()
    assert lags(site) == {TABLE: 0.0}


def test_what_has_not_to_be_embedded_is_no_lag(site: Site) -> None:
    embed_long_ago(site, (1, "one"), (2, None), (3, "three"))
    for key in (1, 2, 3):  # touched, with the text as it was or without any
        change(site, key, age=300)
    site.sql(f"UPDATE {TABLE} SET active = false, title = 'gone', updated_at = now() WHERE id = 3")
    site.insert((9, "somebody else's"), client=2)
    assert lags(site) == {TABLE: 0.0}


def test_rows_that_were_there_before_their_index_lag_from_when_it_was_made(site: Site) -> None:
    site.insert((1, "one"))
    site.start()  # the index is made; nothing is embedded yet
    change(site, 1, age=1_000_000)
    site.sql("UPDATE rowbeam.indexes SET created_at = now() - interval '200 seconds'")
    assert 200 <= lags(site)[TABLE] < 260


def test_a_meter_looks_once_at_what_is_embedded_and_finds_later_changes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_app.lag.PAGE", 2)
    embed_long_ago(site, *((key, f"row {key}") for key in range(1, 8)))
    for key in range(1, 8):
        change(site, key, age=5000 - key)
    meter = LagMeter(site.workspace)
    assert lags(site, meter) == {TABLE: 0.0}
    compared: list[str] = []
    seen = "ray_app.lag._first_to_embed"
    original = sys.modules["ray_app.lag"]._first_to_embed

    def spy(reader: Any, page: Any) -> Any:
        compared.extend(row.record_id for row in page)
        return original(reader, page)

    monkeypatch.setattr(seen, spy)
    change(site, 4, title="new", age=1000)
    assert 1000 <= lags(site, meter)[TABLE] < 1060
    assert set(compared) <= {"4", "5", "6", "7", "3", "2", "1"}
    assert compared[-1] == "4"
    site.backfill()
    assert lags(site, meter) == {TABLE: 0.0}


def test_a_table_that_takes_too_long_has_no_lag_which_is_counted(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.backfill()
    site.sql(
        f"INSERT INTO {TABLE} (id, client_id, title)"
        " SELECT n, 1, 'row ' || n FROM generate_series(1, 50000) AS n"
    )
    monkeypatch.setattr("ray_app.lag.STATEMENT_SECONDS", 0.001)
    grown = Growth(metrics.REPORT_FAILURES)
    assert lags(site) == {}
    assert grown.of(metrics.REPORT_FAILURES, "lag") == 1


def test_a_table_that_does_not_tell_when_rows_changed_has_no_lag(site: Site) -> None:
    embed_long_ago(site, (1, "one"))
    grown = Growth(metrics.REPORT_FAILURES)
    site.sql(f"ALTER TABLE {TABLE} DROP COLUMN updated_at")
    assert lags(site) == {}
    assert grown.of(metrics.REPORT_FAILURES, "lag") == 0
    site.sql(f"ALTER TABLE {TABLE} ADD COLUMN updated_at timestamp NOT NULL DEFAULT now()")  # without a zone
    site.sql(
        f"UPDATE {TABLE} SET title = 'new', updated_at = (now() AT TIME ZONE 'UTC') - interval '100 seconds'"
    )
    assert 100 <= lags(site)[TABLE] < 160


def test_the_overview_adds_up_all_tenants(site: Site) -> None:
    ledger = site.workspace.ledger
    site.insert((1, "one"))
    site.backfill()
    with ledger.connect() as connection:
        assert read_overview(connection).jobs == dict.fromkeys(
            (JobState.PENDING, JobState.RUNNING, JobState.CANCEL_REQUESTED, JobState.INTERRUPTED), 0
        )
        assert read_overview(connection).oldest_heartbeat == 0.0
    other, _ = site.workspace.registry.create("globex", 2, Placement.EMBEDDED)
    site.workspace.registry.set_limits("globex", {"monthly_cost": Decimal(10)})
    site.sql(
        "INSERT INTO rowbeam.usage (incarnation, day, provider, model, table_name, job_id, cost)"
        " VALUES (:who, CURRENT_DATE, 'gateway', 'm', '', '', 4),"
        " (:who, CURRENT_DATE, 'gateway', 'm', 'issues', 'j', 5),"
        " (:who, CURRENT_DATE - 40, 'gateway', 'm', '', '', 100)",
        who=other.incarnation,
    )
    site.sql(
        "INSERT INTO rowbeam.dead_letters"
        " (incarnation, table_name, vector_type, space_id, record_id, content_hash, stage, error_class,"
        " message, state)"
        " VALUES (:who, 'issues', 'content', 's', '1', '', 'embed', 'E', '', 'open'),"
        " (:who, 'issues', 'content', 's', '2', '', 'embed', 'E', '', 'open')",
        who=other.incarnation,
    )
    running = site.start()
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    with ledger.begin() as connection:
        connection.execute(
            update(jobs_table)
            .where(jobs_table.c.job_id == running.job_id)
            .values(owner_pid=child.pid, heartbeat_at=datetime.now(UTC) - timedelta(seconds=7))
        )
    with ledger.connect() as connection:
        found = read_overview(connection)
    assert found.tenants == 2
    assert found.jobs[JobState.INTERRUPTED] == 1
    assert 7 <= found.oldest_heartbeat < 60
    assert found.dead_letters == {TABLE: 0, "issues": 2}
    assert [(budget.limit, budget.spent) for budget in found.budgets] == [(10, 9)]


def test_a_budgets_left_and_share() -> None:
    assert (Budget(Decimal(10), Decimal(12)).left, Budget(Decimal(10), Decimal(12)).used) == (0, 1.2)
    assert (Budget(Decimal(0), Decimal(0)).left, Budget(Decimal(0), Decimal(0)).used) == (0, 1.0)


def test_each_job_that_ends_is_counted_once_from_the_first_look_on(site: Site) -> None:
    ended = EndedJobs()

    def look() -> dict[JobState, int]:
        with site.workspace.ledger.connect() as connection:
            return dict(ended.look(connection).states)

    site.insert((1, "one"))
    site.backfill()
    assert look() == {}
    failed = site.start()
    jobs.finish_job(site.workspace.ledger, failed, JobState.FAILED)
    site.backfill()
    assert look() == {JobState.FAILED: 1, JobState.SUCCEEDED: 1}
    assert look() == {}
    again = jobs.take_job(site.workspace.ledger, failed.job_id)
    jobs.finish_job(site.workspace.ledger, again, JobState.FAILED)
    assert look() == {JobState.FAILED: 1}


def test_records_that_a_job_settled_without_writing_are_told_once_when_it_has_ended(site: Site) -> None:
    ended, ledger = EndedJobs(), site.workspace.ledger
    site.insert(*((key, f"row {key}") for key in range(1, 6)))
    site.backfill()

    def look() -> dict[str, Counts]:
        with ledger.connect() as connection:
            return dict(ended.look(connection).unwritten)

    look()
    job, left = site.prescan()
    assert left == []
    assert look() == {}
    jobs.finish_job(ledger, job, JobState.FAILED)
    assert look() == {TABLE: Counts(read=5, unchanged=5)}
    again = jobs.take_job(ledger, job.job_id)  # resumed, with nothing left to do
    jobs.finish_job(ledger, again, JobState.SUCCEEDED)
    assert look() == {}
    change(site, 2, title="new")
    site.backfill()  # every range is read and written
    assert look() == {}


@pytest.fixture
def holders(database_url: str) -> Iterator[Callable[[], SoleHolder]]:
    engines: list[Engine] = []

    def make() -> SoleHolder:
        engines.append(engine_for(database_url))
        return SoleHolder(engines[-1])

    yield make
    for engine in engines:
        engine.dispose()


def test_one_holds_the_lock_until_it_lets_go_or_its_connection_dies(
    holders: Callable[[], SoleHolder], database: Engine
) -> None:
    first, second = holders(), holders()
    assert first.hold()
    assert not second.hold()
    assert first.hold()
    first.release()
    first.release()
    assert second.hold()
    assert not first.hold()
    with database.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_locks"
                " WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database"
                " WHERE datname = current_database())"
            )
        )
    with pytest.raises(DatabaseUnavailable):
        second.hold()
    assert first.hold()
    assert not second.hold()
    first.release()


class Store:
    """Of the vector store, what a report asks."""

    def __init__(self) -> None:
        self.up = True

    def check(self) -> str:
        if not self.up:
            raise StoreUnavailable("It is down.")
        return "fine"


def test_one_of_two_reporters_tells_of_the_ledger_and_both_of_what_they_reach(
    site: Site, make_settings: Callable[..., Settings], database: Engine
) -> None:
    site.insert((1, "one"))
    site.backfill()
    stores = Store(), Store()
    first, second = (Reporter(Workspace(make_settings()), store) for store in stores)  # type: ignore[arg-type]
    first.report()
    assert metrics.TENANTS.values() == {(): 1}
    assert metrics.JOBS.values()["running",] == 0
    assert metrics.DEAD_LETTERS.values() == {(TABLE,): 0}
    assert metrics.LEDGER_LAG.values() == {(TABLE,): 0.0}
    assert metrics.BUDGET_TENANTS.values() == {("any",): 0, ("80",): 0, ("100",): 0}
    assert metrics.DEPENDENCY_UP.values() == {("ledger",): 1, ("source",): 1, ("store",): 1}

    stores[1].up = False
    second.report()  # in another process these are other gauges
    assert metrics.TENANTS.values() == {}
    assert metrics.DEPENDENCY_UP.values() == {("ledger",): 1, ("source",): 1, ("store",): 0}
    for reporter in (first, second):
        reporter.start()
        reporter.stop()


def test_a_ledger_that_is_gone_is_down_and_nothing_is_said_of_it(
    make_settings: Callable[..., Settings],
) -> None:
    metrics.TENANTS.set(5)
    url = "postgresql://nobody@127.0.0.1:9/none"
    reporter = Reporter(Workspace(make_settings(database_url=url)), Store())  # type: ignore[arg-type]
    reporter.report()
    assert metrics.DEPENDENCY_UP.values() == {("ledger",): 0, ("source",): 0, ("store",): 1}
    assert metrics.TENANTS.values() == {}


def test_an_outbox_that_cannot_be_read_is_told_of_and_the_ledger_too(
    site: Site, make_settings: Callable[..., Settings]
) -> None:
    site.sql("CREATE TABLE rowbeam.outbox (another_program_uses_the_name int)")
    grown = Growth(metrics.REPORT_FAILURES)
    reporter = Reporter(Workspace(make_settings()), Store())  # type: ignore[arg-type]
    reporter.report()
    assert grown.of(metrics.REPORT_FAILURES, "outbox") == 1
    assert metrics.OUTBOX_ENTRIES.values() == {}
    assert metrics.TENANTS.values() == {(): 1}
    reporter.start()
    reporter.stop()
