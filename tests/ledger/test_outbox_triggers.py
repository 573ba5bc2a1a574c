"""What the outbox's triggers note, and that they never stand in a writer's way."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, text

from ray_app.errors import ConfigError, InvalidTableSpec
from ray_app.outbox import installing
from ray_app.outbox.statements import ALL_CLIENTS
from tests.support.sync_site import TABLE, SyncSite


@pytest.fixture
def noted(changing: SyncSite) -> SyncSite:
    """Two rows from before the outbox was installed."""
    changing.insert((1, "one"), (2, "two"))
    changing.install()
    return changing


def test_inserts_updates_and_deletes_are_noted_by_key(noted: SyncSite) -> None:
    noted.insert((3, "three"))
    noted.sql(f"UPDATE {TABLE} SET title = 'uno' WHERE id = 1")
    noted.sql(f"DELETE FROM {TABLE} WHERE id = 2")
    assert noted.queued() == [(1, "3"), (1, "1"), (1, "2")]


def test_a_column_that_no_index_is_made_of_is_not_noted(noted: SyncSite) -> None:
    noted.sql(f"UPDATE {TABLE} SET additions = 5, updated_at = now()")
    noted.sql(f"UPDATE {TABLE} SET title = title")
    assert noted.queued() == []
    noted.sql(f"UPDATE {TABLE} SET status = 'closed' WHERE id = 1")
    noted.sql(f"UPDATE {TABLE} SET active = false WHERE id = 2")
    assert noted.queued() == [(1, "1"), (1, "2")]


def test_a_changed_key_or_client_notes_the_old_and_the_new(noted: SyncSite) -> None:
    noted.sql(f"UPDATE {TABLE} SET id = 7 WHERE id = 1")
    noted.sql(f"UPDATE {TABLE} SET client_id = 9 WHERE id = 2")
    assert sorted(noted.queued(), key=str) == [(1, "1"), (1, "2"), (1, "7"), (9, "2")]


def test_what_is_rolled_back_leaves_nothing(noted: SyncSite) -> None:
    with noted.open_transaction(f"UPDATE {TABLE} SET title = 'other'"):
        pass
    assert noted.queued() == []


def test_an_upsert_and_a_truncate_are_noted(noted: SyncSite) -> None:
    noted.sql(
        f"INSERT INTO {TABLE} (client_id, id, title) VALUES (1, 1, 'uno'), (1, 5, 'five')"
        " ON CONFLICT (client_id, id) DO UPDATE SET title = excluded.title"
    )
    assert sorted(noted.queued(), key=str) == [(1, "1"), (1, "5")]
    noted.sql(f"TRUNCATE {TABLE}")
    assert noted.queued()[-1] == (ALL_CLIENTS, None)


def test_a_statement_of_five_thousand_rows_is_noted_whole(noted: SyncSite) -> None:
    noted.sql(f"INSERT INTO {TABLE} (client_id, id, title) SELECT 1, n, 't' FROM generate_series(10, 5009) n")
    noted.sql(f"UPDATE {TABLE} SET title = title || '!' WHERE id >= 10")
    assert len(noted.queued()) == 10_000
    assert len(set(noted.queued())) == 5_000


def test_a_partitioned_table_is_noted_by_row_whichever_way_it_is_written(changing: SyncSite) -> None:
    changing.sql(f"ALTER TABLE {TABLE} RENAME TO plain")
    changing.sql(f"CREATE TABLE {TABLE} (LIKE plain INCLUDING DEFAULTS) PARTITION BY LIST (client_id)")
    changing.sql(f"ALTER TABLE {TABLE} ADD PRIMARY KEY (client_id, id)")
    changing.sql(f"CREATE TABLE part_one PARTITION OF {TABLE} FOR VALUES IN (1)")
    changing.sql(f"CREATE TABLE part_rest PARTITION OF {TABLE} DEFAULT")
    changing.install()
    changing.insert((1, "one"))
    changing.sql("INSERT INTO part_one (client_id, id, title) VALUES (1, 2, 'two')")
    changing.sql("UPDATE part_one SET additions = 1")
    changing.sql(f"UPDATE {TABLE} SET client_id = 9 WHERE id = 1")
    changing.sql("DELETE FROM part_one")
    # A row that moves between partitions is deleted and inserted, whatever else of it changed.
    assert changing.queued() == [(1, "1"), (1, "2"), (1, "1"), (9, "1"), (1, "2")]
    assert states(changing) == {TABLE: "installed"}


def test_a_write_goes_on_when_the_outbox_cannot_be_written(noted: SyncSite) -> None:
    noted.sql("ALTER TABLE rowbeam.outbox RENAME TO elsewhere")
    noted.insert((3, "three"))
    noted.sql("ALTER TABLE rowbeam.elsewhere RENAME TO outbox")
    assert noted.scalar(f"SELECT title FROM {TABLE} WHERE id = 3") == "three"
    assert noted.queued() == []
    assert installing.status(noted.workspace).missed == 1


def test_a_write_waits_for_a_locked_outbox_a_second_and_no_longer(noted: SyncSite) -> None:
    with noted.open_transaction("LOCK rowbeam.outbox IN ACCESS EXCLUSIVE MODE"):
        noted.insert((3, "three"))
    assert installing.status(noted.workspace).missed == 1


def states(site: SyncSite) -> dict[str, str]:
    found = installing.status(site.workspace).tables
    return {table.table: table.state for table in found if table.state != "absent"}


def test_installing_and_uninstalling_twice_is_as_once(noted: SyncSite) -> None:
    before = noted.scalar("SELECT max(oid::bigint) FROM pg_trigger")
    installing.install(noted.workspace, [TABLE])
    assert noted.scalar("SELECT max(oid::bigint) FROM pg_trigger") == before
    assert states(noted) == {TABLE: "installed"}
    for _ in range(2):
        done = installing.uninstall(noted.workspace)
        assert not done.installed
        assert states(noted) == {}
    noted.insert((3, "three"))
    left = (
        "SELECT count(*) FROM pg_proc WHERE pronamespace = 'rowbeam'::regnamespace AND proname LIKE 'outbox%'"
    )
    assert noted.scalar(left) == 0


def test_one_table_is_taken_away_and_the_others_stay(changing: SyncSite) -> None:
    changing.install(None)
    assert len(states(changing)) == 7
    installing.uninstall(changing.workspace, [TABLE])
    changing.insert((1, "one"))
    assert changing.queued() == []
    assert TABLE not in states(changing)
    assert states(changing)["issues"] == "installed"


def test_a_new_payload_column_makes_the_triggers_outdated(noted: SyncSite) -> None:
    noted.sql(f"ALTER TABLE {TABLE} ADD COLUMN priority text")
    assert states(noted) == {TABLE: "outdated"}
    noted.install()
    noted.sql(f"UPDATE {TABLE} SET priority = 'high' WHERE id = 1")
    assert noted.queued() == [(1, "1")]


def test_a_view_is_refused(changing: SyncSite) -> None:
    changing.sql(f"ALTER TABLE {TABLE} RENAME TO plain")
    changing.sql(f"CREATE VIEW {TABLE} AS SELECT * FROM plain")
    with pytest.raises(InvalidTableSpec):
        changing.install()


def test_a_dba_can_run_the_sql_and_a_plain_role_writes_through_it(noted: SyncSite, postgres_url: str) -> None:
    installing.uninstall(noted.workspace)
    script = installing.script(noted.workspace, [TABLE])
    with noted.database.connect() as connection:
        connection.execution_options(no_parameters=True).exec_driver_sql(script)
    assert states(noted) == {TABLE: "installed"}
    # A writer of the platform has no right to anything of ours.
    noted.sql("DROP ROLE IF EXISTS platform_writer")
    noted.sql("CREATE ROLE platform_writer")
    noted.sql(f"GRANT INSERT ON {TABLE} TO platform_writer")
    with noted.database.begin() as connection:
        connection.execute(text("SET LOCAL ROLE platform_writer"))
        connection.execute(text(f"INSERT INTO {TABLE} (client_id, id, title) VALUES (1, 3, 'three')"))
    assert noted.queued() == [(1, "3")]
    with noted.database.begin() as connection:
        connection.execute(text("DROP OWNED BY platform_writer"))
        connection.execute(text("DROP ROLE platform_writer"))


def test_a_role_without_privileges_is_told_what_to_do(changing: SyncSite) -> None:
    changing.sql("DROP ROLE IF EXISTS plain_reader")
    changing.sql("CREATE ROLE plain_reader LOGIN")
    changing.sql("GRANT USAGE ON SCHEMA rowbeam TO plain_reader")
    url = changing.database.url.set(username="plain_reader")
    engine = create_engine(url)
    workspace = changing.workspace
    own = workspace.__dict__["source"]
    workspace.__dict__["source"] = engine
    try:
        with pytest.raises(ConfigError, match="CREATE in schema rowbeam"):
            installing.install(workspace, [TABLE])
    finally:
        workspace.__dict__["source"] = own
        engine.dispose()
        changing.sql("REVOKE ALL ON SCHEMA rowbeam FROM plain_reader")
        changing.sql("DROP ROLE plain_reader")
