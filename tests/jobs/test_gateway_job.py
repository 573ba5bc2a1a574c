"""A job whose index is pinned to the gateway's space, against a real HTTP endpoint."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from ray_app.errors import ConfigError
from ray_app.reports import JobState
from ray_app.spaces import Preference
from tests.support.fake_gateway import FakeGateway
from tests.support.site import TABLE, JobSite, RunningJob

pytestmark = pytest.mark.ray

SECRET = "sk-test-3f9a"


def gateway_settings(gateway: FakeGateway, **changes: object) -> dict[str, object]:
    return {
        "url": gateway.url,
        "api_key": SECRET,
        "model": "text-embedding-3-small",
        "dimensions": 64,
        "outage_budget": 3,
        "timeout": 5,
        **changes,
    }


def test_outage_charges_no_row_and_the_job_resumes(
    open_site: Callable[..., JobSite], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with FakeGateway(api_key=SECRET, dimensions=64) as gateway:
        site = open_site(gateway=gateway_settings(gateway))
        site.insert(2000)
        plan = site.rowbeam.plan("acme", tables=[TABLE], prefer=Preference.QUALITY)
        (table,) = plan.tables
        assert (table.provider, table.model) == ("gateway", "text-embedding-3-small")
        assert table.estimated_cost > 0

        gateway.behaviour.latency = 1.0
        running = RunningJob(site, {"prefer": Preference.QUALITY})
        seen = running.wait_for(lambda job: job.processed_records > 0)
        with gateway.outage():
            failed = running.end()
        assert failed.state is JobState.FAILED
        assert failed.error is not None
        assert SECRET not in failed.error
        assert 0 < failed.processed_records < 2000
        assert failed.failed_records == 0
        assert site.rowbeam.dead_letters("acme") == []

        gateway.behaviour.latency = 0.0
        resumed = site.backfill(resume=seen.job_id)
        assert resumed.state is JobState.SUCCEEDED
        assert resumed.counts.embedded == 2000
        assert resumed.provider == "gateway"
        assert resumed.cost == Decimal(resumed.tokens) * Decimal("0.02") / 1_000_000
        site.check_exact(2000)
        assert site.rowbeam.search("acme", TABLE, "change number 5", limit=1)

        # The index is pinned: without the gateway it is refused, not searched in another space.
        site.rowbeam.__exit__(None, None, None)
        local = open_site(gateway=None)
        with pytest.raises(ConfigError, match="text-embedding-3-small"):
            local.rowbeam.search("acme", TABLE, "anything")
        log = local.rowbeam.workspace.settings.run_dir / "jobs" / f"{seen.job_id}.log"
        assert SECRET not in log.read_text(encoding="utf-8")


def test_a_refused_key_fails_at_once_and_says_so(open_site: Callable[..., JobSite]) -> None:
    with FakeGateway(api_key="another", dimensions=64) as gateway:
        site = open_site(gateway=gateway_settings(gateway, outage_budget=300))
        site.insert(50)
        job = site.backfill(prefer=Preference.QUALITY)
        assert job.state is JobState.FAILED
        assert "key" in (job.error or "")
        assert SECRET not in (job.error or "")
        assert site.rowbeam.dead_letters("acme") == []


def test_each_distinct_text_is_sent_once_whatever_rows_tables_and_types_have_it(
    open_site: Callable[..., JobSite],
) -> None:
    with FakeGateway(api_key=SECRET, dimensions=64) as gateway:
        site = open_site(gateway=gateway_settings(gateway))
        site.sql(
            "INSERT INTO pull_requests (id, client_id, title)"
            " SELECT n, 1, 'title ' || (n % 120) FROM generate_series(1, 900) AS n"
        )
        site.sql(
            "INSERT INTO issues (id, client_id, summary)"
            " SELECT n, 1, 'title ' || (n % 150) FROM generate_series(1, 300) AS n"
        )
        job = site.rowbeam.backfill(
            "acme", tables=[TABLE, "issues"], vector_types=["content", "summary"], prefer=Preference.QUALITY
        )
        assert job.state is JobState.SUCCEEDED, job.error
        assert (job.counts.embedded, job.counts.chunks, job.counts.reused) == (2400, 2400, 2250)
        assert sorted(gateway.texts) == sorted(f"title {number}" for number in range(150))
        usage = site.rowbeam.usage("acme")
        assert (usage.texts, usage.tokens) == (150, job.tokens)
        points, rows = site.rowbeam.count_points("acme")
        assert points == rows == 2400

        site.sql("INSERT INTO pull_requests (id, client_id, title) VALUES (901, 1, 'title 149')")
        again = site.backfill(prefer=Preference.QUALITY)
        assert (again.counts.embedded, again.counts.reused, again.tokens) == (1, 1, 0)
        assert len(gateway.texts) == 150


def test_an_index_goes_over_to_the_gateway_and_back_and_each_text_is_paid_for_once(
    open_site: Callable[..., JobSite],
) -> None:
    rows, sample = 300, 5
    with FakeGateway(api_key=SECRET, dimensions=64) as gateway:
        site = open_site(gateway=gateway_settings(gateway), migration_sample=sample)
        site.insert(rows)
        assert site.backfill(prefer=Preference.FAST).provider == "stub"
        migrations = site.rowbeam.migrations
        (planned,) = migrations.plan("acme", TABLE, to="gateway").tables
        assert (planned.model, planned.provider) == ("text-embedding-3-small", "gateway")
        assert planned.estimated_cost > 0
        assert gateway.texts == []

        done = migrations.run("acme", TABLE, to="gateway")
        assert done.switched
        assert (done.job.provider, done.job.counts.embedded) == ("gateway", rows)
        assert done.job.cost == Decimal(done.job.tokens) * Decimal("0.02") / 1_000_000 > 0
        assert len(gateway.texts) == rows + sample, "each row once, and the texts that are searched for"
        (its_text,) = {words for words in gateway.texts if "number 77" in words}

        def found() -> list[str]:
            return [hit.record_id for hit in site.rowbeam.search("acme", TABLE, its_text, limit=1)]

        assert found() == ["77"]
        assert len(gateway.texts) == rows + sample + 1, "it is searched in the gateway's space"
        site.check_exact(rows)

        back = migrations.rollback("acme", TABLE)
        assert back.switched
        assert back.job.counts.embedded == 0
        asked = len(gateway.texts)
        assert asked <= rows + 2 * sample + 1
        assert found() == ["77"]
        assert len(gateway.texts) == asked, "it is searched in the local model's space"
