"""A running server's metrics, scraped as Prometheus would: as documented, of no tenant, and true."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ray_app.db.engine import ledger_engine
from tests.support.metrics_document import document
from tests.support.scrape import Family, add_up, by, scrape
from tests.support.serve_load import embed
from tests.support.serve_site import ServeSite
from tests.support.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.ray

#: No other test of the server has to do with this table.
TABLE = "issues"
#: What goes with the job that it tells of.
JOB_GAUGES = {
    f"ray_rowbeam_job_{name}" for name in ("last_part_age_seconds", "records", "records_per_second")
}
#: What a server without a gateway does not have.
GATEWAY = "ray_rowbeam_gateway_"


@dataclass
class Traffic:
    """A tenant that has used everything once, and its first job."""

    tenant: str
    key: str
    incarnation: str
    job: dict[str, Any]
    usage: dict[str, Any]
    #: All that was scraped until what has happened was there.
    seen: dict[str, Family]


def url(site: ServeSite) -> str:
    head = site.stack.status().head
    assert head is not None
    return head.metrics_url


def issues(first: int, last: int) -> list[dict[str, Any]]:
    return [{"id": n, "summary": f"issue number {n}", "status": "open"} for n in range(first, last + 1)]


def run_job(site: ServeSite, key: str, seen: dict[str, Family]) -> dict[str, Any]:
    """A job to its end, scraped into ``seen`` meanwhile: its gauges go with it."""
    with site.client(key) as client:
        started = client.post("/v1/backfills", json={"tables": [TABLE]})
        path = f"/v1/backfills/{started.json()['job']['job_id']}"

        def job() -> dict[str, Any]:
            found: dict[str, Any] = client.get(path).json()["job"]
            return found

        def has_ended_and_was_seen() -> bool:
            seen.update(scrape(url(site)))
            return job()["finished_at"] is not None and seen.keys() >= JOB_GAUGES

        wait_for(has_ended_and_was_seen)
        return job()


@pytest.fixture(scope="module")
def traffic(site: ServeSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    tenant, key = site.add_tenant()
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [*issues(1, 120), {"id": 121, "status": "open"}, {"id": 122, "summary": "issue number 7"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    site.rowbeam("load", str(file), "--tenant", tenant, "--table", TABLE)
    with site.client(key) as client:
        assert embed(client, ["one", "two"]).status_code == 200
        assert client.put(f"/v1/tables/{TABLE}/records", json={"records": issues(1, 20)}).status_code == 200
        assert client.post("/v1/search", json={"text": "issue", "tables": [TABLE]}).status_code == 200
        assert client.get("/v1/nothing").status_code == 404
        seen: dict[str, Family] = {}
        job = run_job(site, key, seen)
        # Settled by its driver, without a cluster.
        assert run_job(site, key, seen)["counts"]["unchanged"] == 121
        usage = client.get("/v1/usage").json()
    assert job["state"] == "succeeded", job
    engine = ledger_engine(site.settings)
    with engine.connect() as connection:
        incarnation = connection.scalar(
            text("SELECT incarnation FROM rowbeam.tenants WHERE name = :name"), {"name": tenant}
        )
    engine.dispose()
    site.rowbeam("sync", "--install", "--table", TABLE)
    site.rowbeam("sync", "--tenant", tenant, "--every", "3600")
    yield Traffic(tenant, key, str(incarnation), job, usage, seen)
    site.rowbeam("sync", "--uninstall")


def test_a_scrape_has_what_is_documented_and_the_numbers_of_the_ledger(
    site: ServeSite, traffic: Traffic
) -> None:
    expected = {name for name in document() if not name.startswith(GATEWAY)}
    seen = traffic.seen
    rows = [row for row in traffic.usage["rows"] if row["table"] == TABLE]
    tokens = sum(row["tokens"] for row in rows)

    def all_there() -> bool:
        seen.update(scrape(url(site)))
        read = add_up(seen, "ray_rowbeam_records_total", table=TABLE, source="job")
        known = add_up(seen, "ray_rowbeam_tokens_total", table=TABLE) >= tokens and read >= 2 * 122
        return known and expected <= seen.keys()

    deadline = time.monotonic() + PATIENCE
    while not all_there():
        assert time.monotonic() < deadline, (expected - seen.keys(), tokens)
        time.sleep(0.5)

    counts = traffic.job["counts"]
    assert (counts["embedded"], counts["unchanged"], counts["no_text"]) == (101, 20, 1)
    # The last row has the text of one that was pushed.
    assert (
        by(seen, "ray_rowbeam_texts_total", "table", "source", "outcome").items()
        >= {
            (TABLE, "online", "embedded"): 20,
            (TABLE, "job", "embedded"): 100,
            (TABLE, "job", "reused"): 1,
        }.items()
    )
    assert sum(row["texts"] for row in rows) == 120
    assert add_up(seen, "ray_rowbeam_tokens_total", table=TABLE) == tokens
    assert add_up(seen, "ray_rowbeam_cost_dollars_total", table=TABLE) == 0
    assert (
        by(seen, "ray_rowbeam_records_total", "table", "source", "outcome", "provider").items()
        >= {
            (TABLE, "online", "embedded", "stub"): 20,
            (TABLE, "job", "embedded", "stub"): 101,
            (TABLE, "job", "unchanged", "none"): 20 + 121,
            (TABLE, "job", "no_text", "none"): 1 + 1,
        }.items()
    )
    assert add_up(seen, "ray_rowbeam_jobs_ended_total", state="succeeded") >= 2
    assert add_up(seen, "ray_rowbeam_dead_letters", table=TABLE) == 0
    assert add_up(seen, "ray_rowbeam_isolation_violations_total") == 0
    assert by(seen, "ray_rowbeam_dependency_up", "dependency") == {
        ("ledger",): 1,
        ("source",): 1,
        ("store",): 1,
    }


def test_every_series_is_documented_with_its_type_and_labels(traffic: Traffic) -> None:
    documented = document()
    found = {name: (family.kind, family.labels) for name, family in traffic.seen.items()}
    assert found == {name: (documented[name].kind, set(documented[name].labels)) for name in found}


def test_no_label_tells_of_a_tenant(traffic: Traffic) -> None:
    known = {traffic.tenant, traffic.key, traffic.key.split("_")[1], traffic.incarnation}
    values = {
        value
        for family in traffic.seen.values()
        for _, labels, _ in family.samples
        for value in labels.values()
    }
    assert [value for value in values if any(secret in value for secret in known)] == []


def test_up_names_where_to_scrape(site: ServeSite) -> None:
    ray = site.up()["ray"]
    assert ray["metrics_url"] == url(site)
    address = ray["metrics_url"].removeprefix("http://").removesuffix("/metrics")
    wait_for(lambda: Path(ray["metrics_targets"]).exists())
    (group,) = json.loads(Path(ray["metrics_targets"]).read_text("utf-8"))
    assert address in group["targets"]
