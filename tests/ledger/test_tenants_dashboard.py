"""The SQL of the tenants dashboard on a real ledger, as the role that Grafana has."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import ProgrammingError

from monitoring.dashboards.__main__ import FOLDER

READER = FOLDER.parent / "reader.sql"
DASHBOARD = json.loads((FOLDER / "rowbeam-tenants.json").read_text("utf-8"))
SQL = {
    panel["title"]: panel["targets"][0]["rawSql"] for panel in DASHBOARD["panels"] if panel["type"] != "row"
}
VARIABLE = DASHBOARD["templating"]["list"][0]["query"]

ACME = "'00000000-0000-0000-0000-00000000000a'"
#: Two tenants and one removed. The first has 3 records in 4 points, 2 open dead letters, a job, and has spent
#: 2.5 of 10 dollars.
LEDGER = f"""
INSERT INTO rowbeam.tenants (incarnation, name, client_id, placement, state, limits) VALUES
  ({ACME}, 'acme', 7, 'embedded', 'active', '{{"monthly_cost": "10"}}'),
  (gen_random_uuid(), 'o''neil', 8, 'embedded', 'active', '{{}}'),
  (gen_random_uuid(), 'gone', 9, 'embedded', 'deleted', '{{}}');
INSERT INTO rowbeam.spaces (space_id, spec) VALUES ('s1', '{{"model": "MiniLM"}}');
INSERT INTO rowbeam.indexes (incarnation, table_name, vector_type, space_id, preference)
  VALUES ({ACME}, 'issues', 'content', 's1', 'fast');
INSERT INTO rowbeam.qdrant_vectors (incarnation, table_name, vector_type, record_id, chunk, point_id,
  space_id, content_hash, data_hash, version, snippet, provider, model, embedded_at)
SELECT {ACME}, 'issues', 'content', r, c, gen_random_uuid(), 's1', 'h', 'h', 1, 'a row''s own words', 'stub',
  'MiniLM', ('2026-11-0' || r || 'T00:00:00Z')::timestamptz
FROM (VALUES ('1', 0), ('1', 1), ('2', 0), ('3', 0)) AS points (r, c);
INSERT INTO rowbeam.dead_letters (incarnation, table_name, vector_type, space_id, record_id, content_hash,
  stage, error_class, message, attempts, state)
SELECT {ACME}, 'issues', 'content', 's1', n, 'h', 'embed', 'ItemError', 'm', 2,
  CASE WHEN n = '9' THEN 'resolved' ELSE 'open' END
FROM (VALUES ('7'), ('8'), ('9')) AS letters (n);
INSERT INTO rowbeam.jobs (job_id, incarnation, kind, state, request, started_at, finished_at)
  VALUES ('j1', {ACME}, 'backfill', 'succeeded', '{{}}', now() - interval '1 minute', now());
INSERT INTO rowbeam.ranges (job_id, seq, kind, table_name, vector_type, expected, read, embedded, dead) VALUES
  ('j1', 1, 'rows', 'issues', 'content', 3, 3, 2, 1), ('j1', 2, 'rows', 'issues', 'content', 2, 2, 1, 1);
INSERT INTO rowbeam.usage (incarnation, day, provider, model, table_name, job_id, texts, tokens, cost) VALUES
  ({ACME}, current_date, 'gateway', 'm', 'issues', 'j1', 4, 40, 2),
  ({ACME}, current_date, 'gateway', 'm', 'issues', '', 1, 10, 0.5),
  ({ACME}, current_date - 40, 'gateway', 'm', 'issues', '', 1, 10, 7);
"""


def as_grafana_sends_it(sql: str, tenants: list[str]) -> str:
    """The macros of Grafana's Postgres data source and a quoted variable, filled in for the last 30 days."""
    quoted = ",".join("'" + name.replace("'", "''") + "'" for name in tenants)
    return re.sub(
        r"\$__timeFilter\(([^()]+)\)", r"\1 BETWEEN now() - interval '30 days' AND now()", sql
    ).replace("${tenant:sqlstring}", quoted)


@pytest.fixture
def reader(database: Engine) -> Engine:
    """The ledger, with the role in it; twice, as after an upgrade."""
    connection = database.raw_connection()
    for script in (LEDGER, READER.read_text("utf-8"), READER.read_text("utf-8")):
        connection.driver_connection.execute(script)  # type: ignore[union-attr]
    connection.commit()
    connection.close()
    return database


def rows(reader: Engine, sql: str, tenants: list[str] | None = None) -> list[dict[str, Any]]:
    with reader.begin() as connection:
        connection.exec_driver_sql("SET LOCAL ROLE rowbeam_dashboards")
        found = connection.exec_driver_sql(as_grafana_sends_it(sql, tenants or ["acme", "o'neil"]))
        return [dict(row) for row in found.mappings()]


def test_the_variable_lists_the_tenants_that_are_there(reader: Engine) -> None:
    assert [row["name"] for row in rows(reader, VARIABLE)] == ["acme", "o'neil"]


def test_the_overview_adds_up_what_each_tenant_has(reader: Engine) -> None:
    acme, oneil = rows(reader, SQL["Overview"])
    assert (acme["tenant"], acme["client_id"], acme["state"]) == ("acme", 7, "active")
    assert (acme["records"], acme["points"], acme["dead letters"]) == (3, 4, 2)
    assert acme["last embedded"].isoformat() == "2026-11-03T00:00:00+00:00"
    assert (acme["tokens this month"], float(acme["spent this month"])) == (50, 2.5)
    assert (float(acme["budget"]), float(acme["of budget"])) == (10.0, 0.25)
    assert (oneil["tenant"], oneil["records"], oneil["budget"], oneil["of budget"]) == (
        "o'neil",
        0,
        None,
        None,
    )
    assert [row["tenant"] for row in rows(reader, SQL["Overview"], ["o'neil", "gone"])] == ["o'neil"]


def test_usage_is_added_up_by_day(reader: Engine) -> None:
    (cost,) = rows(reader, SQL["Cost by day"])
    assert (cost["metric"], cost["value"]) == ("acme", 2.5)
    (tokens,) = rows(reader, SQL["Tokens by day"])
    assert tokens["value"] == 50
    assert rows(reader, SQL["Cost by day"], ["o'neil"]) == []


def test_indexes_jobs_and_dead_letters(reader: Engine) -> None:
    (index,) = rows(reader, SQL["Indexes"])
    assert (index["table"], index["model"], index["records"], index["points"]) == ("issues", "MiniLM", 3, 4)
    (job,) = rows(reader, SQL["Jobs"])
    assert (job["expected"], job["read"], job["embedded"], job["dead"]) == (5, 5, 3, 2)
    assert (float(job["cost"]), round(float(job["duration"]))) == (2.0, 60)
    (letters,) = rows(reader, SQL["Open dead letters"])
    assert (letters["error"], letters["letters"], letters["attempts"]) == ("ItemError", 2, 4)


def test_every_panel_has_been_tried() -> None:
    assert set(SQL) == {
        "Overview", "Cost by day", "Tokens by day", "Indexes", "Jobs", "Open dead letters"
    }  # fmt: skip


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM rowbeam.api_keys",
        "SELECT store_secret FROM rowbeam.deployment",
        "SELECT snippet FROM rowbeam.qdrant_vectors",
        "SELECT message FROM rowbeam.dead_letters",
        "SELECT request FROM rowbeam.jobs",
        "SELECT * FROM issues",
        "DELETE FROM rowbeam.usage",
    ],
)
def test_the_role_reads_nothing_else_and_writes_nothing(reader: Engine, sql: str) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"):
        rows(reader, sql)
