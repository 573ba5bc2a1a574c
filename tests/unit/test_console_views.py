"""What the console's pages show, without HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.api.console.state import Remembered
from ray_app.baseline import Baseline, ProviderMeasurement
from ray_app.console import formats
from ray_app.console.views.dead_letters import letters_view
from ray_app.console.views.jobs import job_view, jobs_view
from ray_app.console.views.overview import overview_view
from ray_app.console.views.providers import DAYS, providers_view
from ray_app.console.views.search import found
from ray_app.console.views.tenants import (
    PAGE,
    Counted,
    coverage_line,
    coverage_share,
    matching,
    tenant_list,
    tenant_view,
)
from ray_app.db.operators import DayUsage, LetterCount, Spent
from ray_app.reports import Check, Counts, CoverageRow, DeadLetter, JobProgress, JobState, SearchHit
from ray_app.searching import Answer, Scoring
from ray_app.serving.port import Load
from ray_app.spaces import EmbeddingSpace
from ray_app.tenants import Limits, Placement, Tenant, TenantState

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
COUNTS = Counts(read=1200, embedded=1000, unchanged=150, no_text=40, dead=10, chunks=1100)


def job(**changes: object) -> JobProgress:
    running = JobProgress(
        job_id="job-1",
        tenant="acme",
        kind="backfill",
        state=JobState.RUNNING,
        tables=("issues", "users"),
        vector_types=("content",),
        prefer=None,
        total_records=2000,
        processed_records=1200,
        successful_records=1190,
        failed_records=10,
        current_batch=6,
        total_batches=10,
        counts=COUNTS,
        tokens=54_321,
        cost=Decimal("0.0123"),
        created_at=NOW - timedelta(seconds=70),
        started_at=NOW - timedelta(seconds=60),
        finished_at=None,
        estimated_completion=NOW + timedelta(seconds=40),
        records_per_second=20.04,
        seconds=60.0,
        provider="local-cpu",
    )
    return replace(running, **changes)  # type: ignore[arg-type]


def test_a_running_job_shows_progress_rate_and_the_time_left() -> None:
    view = job_view(job(), NOW)
    assert (view.done, view.total, view.percent, view.progress) == (1200, 2000, "60.0 %", "1,200 of 2,000")
    assert (view.rate, view.left, view.failed) == ("20 rows/s", "about 40.0 s", 10)
    assert (view.tokens, view.cost, view.batches) == ("54,321", "$0.012300", "6 of 10")
    assert (view.tone, view.active, view.can_cancel, view.can_resume) == ("busy", True, True, False)
    assert view.tables == "issues, users"


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"estimated_completion": None}, "not known yet"),
        ({"estimated_completion": NOW - timedelta(seconds=1)}, "any moment"),
        ({"state": JobState.SUCCEEDED}, formats.NOTHING),
    ],
)
def test_the_time_left_is_said_only_where_it_is_known(changes: dict[str, object], left: str) -> None:
    assert job_view(job(**changes), NOW).left == left


@pytest.mark.parametrize(
    ("state", "cancel", "resume"),
    [
        (JobState.PENDING, True, False),
        (JobState.RUNNING, True, False),
        (JobState.CANCEL_REQUESTED, False, False),
        (JobState.CANCELLED, False, True),
        (JobState.SUCCEEDED, False, False),
        (JobState.FAILED, False, True),
        (JobState.INTERRUPTED, False, True),
    ],
)
def test_a_job_offers_what_can_be_done_with_it(state: JobState, cancel: bool, resume: bool) -> None:
    view = job_view(job(state=state), NOW)
    assert (view.can_cancel, view.can_resume) == (cancel, resume)


def test_a_job_without_rows_has_an_empty_bar_and_no_division() -> None:
    view = job_view(job(total_records=0, processed_records=0, state=JobState.PENDING), NOW)
    assert (view.done, view.total, view.percent) == (0, 1, "0.0 %")
    ended = job_view(job(total_records=0, processed_records=0, state=JobState.SUCCEEDED), NOW)
    assert ended.percent == formats.NOTHING


def test_a_job_that_found_more_than_was_expected_is_full_not_over() -> None:
    view = job_view(job(processed_records=2500), NOW)
    assert (view.total, view.percent) == (2500, "100.0 %")


def test_progress_is_announced_in_tens() -> None:
    said = {job_view(job(processed_records=done), NOW).announcement for done in range(1200, 1400)}
    assert said == {"Job of acme: running, 60 percent done."}


def test_a_job_whose_driver_is_gone_is_shown_with_the_active() -> None:
    states = [JobState.RUNNING, JobState.INTERRUPTED, JobState.SUCCEEDED, JobState.CANCELLED]
    view = jobs_view([job(state=state) for state in states], NOW)
    assert [each.state for each in view.active] == ["running", "interrupted"]
    assert [each.state for each in view.ended] == ["succeeded", "cancelled"]


def row(**changes: object) -> CoverageRow:
    plain = CoverageRow("issues", "content", 100, 80, 5, 10, 3, "s", "sentence-transformers/m", 85)
    return replace(plain, **changes)  # type: ignore[arg-type]


counts = st.integers(0, 10**9)


@given(counts, counts, counts, counts)
def test_coverage_is_a_share_and_whole_only_when_all_is_in_step(
    rows: int, no_text: int, embedded: int, stale: int
) -> None:
    share = coverage_share(rows, no_text, embedded, stale)
    if rows <= no_text:
        assert share is None
        return
    assert share is not None
    assert 0 <= share <= 1
    assert (share == 1) == (embedded - stale >= rows - no_text)
    if share < 1:
        assert formats.percent(share) != "100.0 %"


def test_coverage_of_several_indexes_is_that_of_their_sums() -> None:
    line = coverage_line([row(), row(table="users", rows=10, embedded=0, stale=0, no_text=0, dead=0)])
    assert (line.rows, line.embedded, line.unchanged, line.stale) == ("110", "80", "75", "5")
    assert (line.no_text, line.dead, line.percent, line.model) == ("10", "3", "75.0 %", "m")


def test_an_index_with_nothing_to_embed_has_no_coverage() -> None:
    line = coverage_line([row(rows=4, no_text=4, embedded=0, stale=0, model=None)])
    assert (line.share, line.percent, line.model) == (None, formats.NOTHING, "no index yet")


def tenant(name: str = "acme", **limits: object) -> Tenant:
    return Tenant(
        uuid4(),
        name,
        7,
        Placement.EMBEDDED,
        TenantState.ACTIVE,
        NOW,
        Limits(**limits),  # type: ignore[arg-type]
    )


def test_tenants_come_in_pages_with_what_is_known_of_them() -> None:
    tenants = [tenant(f"t{number:03}", monthly_cost=Decimal(5)) for number in range(PAGE + 1)]
    first = tenants[0].incarnation
    known = {first: Counted((row(),), NOW - timedelta(seconds=65))}
    spent = {first: Spent(1000, Decimal(2))}
    view = tenant_list(tenants, known, spent, wanted="t", page=1, now=NOW)
    assert (len(view.lines), view.previous, view.next, view.found) == (PAGE, None, 2, PAGE + 1)
    assert view.incomplete
    assert not tenant_list(tenants[:1], known, spent, wanted="t", page=1, now=NOW).incomplete
    line = view.lines[0]
    assert (line.total.percent, line.counted, line.tokens) == ("83.3 %", "counted 1 min ago", "1,000")
    assert (line.cost, line.budget) == ("$2.00", "$5.00")
    assert (view.lines[1].total.percent, view.lines[1].counted) == (formats.NOTHING, "being counted")
    view = tenant_list(tenants, known, spent, wanted="t", page=2, now=NOW)
    assert ([each.name for each in view.lines], view.previous, view.next) == ([f"t{PAGE:03}"], 1, None)


def test_tenants_are_found_by_a_part_of_their_name() -> None:
    tenants = [tenant("acme"), tenant("acme-eu"), tenant("globex")]
    assert [each.name for each in matching(tenants, " ACME")] == ["acme", "acme-eu"]
    assert matching(tenants, "") == tenants


def test_a_tenant_that_could_not_be_counted_says_so() -> None:
    view = tenant_view(tenant(), Counted((), NOW, failure="It could not be counted."), Spent(), NOW)
    assert (view.failure, view.counted, view.lines) == (
        "It could not be counted.",
        "could not be counted",
        (),
    )
    assert dict(view.facts)["Budget a month"] == "no limit"


def letter(record: str, error: str = "ItemError") -> DeadLetter:
    return DeadLetter(
        *("issues", "content", record, "embed", error, "Odd.", 2, "open"), NOW - timedelta(days=2), NOW
    )


def test_dead_letters_say_why_and_how_many_more_there_are() -> None:
    counts = [
        LetterCount("acme", "issues", 6, 1),
        LetterCount("acme", "users", 3, 0),
        LetterCount("globex", "issues", 1, 0),
        LetterCount("initech", "issues", 1, 0),
    ]
    letters = {
        "acme": [letter("1"), letter("2"), letter("3", "TextTooLong")],
        "globex": [letter("9")],
    }
    view = letters_view(counts, letters, "", NOW)
    acme, globex = view.tenants
    assert (acme.total, acme.more, acme.reasons) == ("9", True, (("ItemError", "2"), ("TextTooLong", "1")))
    line = acme.lines[0]
    assert (line.record_id, line.reason, line.attempts) == ("1", "ItemError: Odd.", 2)
    assert (line.first, line.last) == ("2 d ago", "0 s ago")
    assert (globex.more, view.left_out) == (False, 1)


SPACE = EmbeddingSpace("m", "1", 3)


def used(day: int, provider: str = "gateway", cost: str = "0.5") -> DayUsage:
    return DayUsage(date(2026, 11, day), provider, "m", 10, 1000, Decimal(cost), 4.0)


def test_providers_are_added_up_over_the_days_that_are_plotted() -> None:
    usage = [used(1), used(2), used(2, "local-cpu", "0")]
    view = providers_view(None, usage, [(SPACE, Load(12, 345.6))], date(2026, 11, 23))
    gateway, local = view.used
    assert (gateway.name, gateway.texts, gateway.tokens, gateway.speed) == ("gateway", "20", "2,000", "250")
    assert (gateway.busy, gateway.cost, gateway.price) == ("8.0 s", "$1.00", "$500")
    assert (local.cost, local.price) == ("$0.00", "$0")
    tokens, costs = view.used_charts
    assert (len(tokens.bars), tokens.legend) == (3, ("gateway", "local-cpu"))
    assert (len(costs.bars), costs.legend) == (2, ("gateway",))
    assert tokens.left_labels[0].text == f"{date(2026, 11, 23) - timedelta(days=DAYS - 1):%d %b}"
    assert (view.spaces[0].queued, view.spaces[0].speed) == ("12", "346 tokens/s")
    assert "rowbeam bench providers" in view.measured_on


def test_free_providers_have_no_plot_of_costs_and_unused_ones_none_at_all() -> None:
    today = date(2026, 11, 23)
    free = providers_view(None, [used(2, "local-cpu", "0")], [], today)
    assert [chart.title for chart in free.used_charts] == ["Tokens a day"]
    assert providers_view(None, [], [], today).used_charts == ()


def test_measured_providers_are_compared_by_speed_latency_and_cost() -> None:
    local = ProviderMeasurement("local-cpu", "a/m", "s", 600.4, 43_000.0, 5.2, 7.8, 0.0, 0.0, 0.97)
    unpriced = ProviderMeasurement("gateway", "g", "t", 1200.0, 90_000.0, 180.0, 410.0, None, None)
    view = providers_view(
        Baseline("2026-11-20T10:00:00+00:00", "two cores", (local, unpriced)), [], [], date(2026, 11, 23)
    )
    assert view.measured_on == "Measured 2026-11-20T10:00:00+00:00 on two cores."
    speed, latency, cost = view.measured_charts
    assert [bar.title for bar in speed.bars] == ["local-cpu, m: 600", "gateway, g: 1,200"]
    assert [bar.colour for bar in latency.bars] == [0, 0, 1, 1]
    assert [bar.title for bar in cost.bars] == ["local-cpu, m: $0"]
    assert (view.measured[0].p95, view.measured[0].agreement) == ("7.8 ms", "97.0 %")
    assert (view.measured[1].price, view.measured[1].agreement) == (formats.NOTHING, formats.NOTHING)
    assert providers_view("Broken file.", [], [], date(2026, 11, 23)).measured_on == "Broken file."


def test_hits_have_scores_snippets_and_columns() -> None:
    hits = [
        SearchHit("issues", "7", 0.87654, "a snippet", {"status": "open", "labels": ["a", "b"], "x": None})
    ]
    view = found(Answer(hits, Scoring.COSINE), ["local-cpu"], 12.3)
    (hit,) = view.hits
    assert (hit.place, hit.score, hit.snippet) == (1, "0.877", "a snippet")
    assert hit.data == (("labels", "a, b"), ("status", "open"), ("x", formats.NOTHING))
    assert view.note == "1 records in 12 ms. Scores are cosines, text embedded by local-cpu."
    fused = found(Answer(hits, Scoring.RANK_FUSION), [], 1.0)
    assert fused.note.endswith("only the order counts.")


def test_the_overview_adds_up_and_points_at_what_is_wrong() -> None:
    checks = [Check("Database", ok=True, detail=""), Check("Gateway", ok=False, detail="down")]
    view = overview_view(
        tenants=2,
        jobs=[job_view(job(), NOW)],
        letters=[LetterCount("acme", "issues", 3, 0), LetterCount("globex", "issues", 4, 1)],
        spent=[Spent(10, Decimal(1)), Spent(5, Decimal("0.5"))],
        alerts=[],
        checks=checks,
    )
    assert {tile.name: tile.value for tile in view.tiles} == {
        "Alerts firing": "0",
        "Jobs": "1",
        "Dead letters": "7",
        "Tenants": "2",
        "Tokens this month": "15",
        "Cost this month": "$1.50",
        "Checks passed": "1 of 2",
    }
    assert view.failed_checks == (checks[1],)


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "–"), (0.0, "0.0 %"), (0.9999, "99.9 %"), (1.0, "100.0 %"), (1 / 3, "33.3 %"), (0.29, "29.0 %")],
)
def test_percentages_are_rounded_down(share: float | None, text: str) -> None:
    assert formats.percent(share) == text


def test_moments_are_in_utc_wherever_the_database_is() -> None:
    assert formats.moment(datetime.fromisoformat("2026-11-23T14:30:00+02:00")) == "2026-11-23 12:30:00 UTC"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s ago"), (59, "59 s ago"), (60, "1 min ago"), (7199, "1 h ago"), (172_800, "2 d ago")],
)
def test_ages_are_in_the_largest_unit(seconds: int, text: str) -> None:
    assert formats.age(NOW - timedelta(seconds=seconds), NOW) == text


def test_short_figures_keep_three_digits() -> None:
    numbers = (0, 0.5, 999, 1500, 1_234_567, 2e9)
    assert [formats.short(number) for number in numbers] == ["0", "0.5", "999", "1.5k", "1.23M", "2G"]


def test_an_answer_is_remembered_and_a_slow_one_keeps_no_page_waiting() -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    async def play() -> None:
        clock, asked = Clock(), 0
        remembered: Remembered[int] = Remembered(5, clock)
        gate = asyncio.Event()

        async def ask() -> int:
            nonlocal asked
            asked += 1
            if asked > 1:
                await gate.wait()
            return asked

        assert await remembered.get(ask) == 1
        assert await remembered.get(ask) == 1
        clock.now = 6
        assert await remembered.get(ask) == 1, "the second takes too long: the first has to do"
        assert asked == 2
        gate.set()
        await asyncio.sleep(0)
        assert await remembered.get(ask) == 2
        assert asked == 2

    asyncio.run(play())
