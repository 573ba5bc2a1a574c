"""What the command line shows, from values made here; nothing is started."""

from __future__ import annotations

import inspect
import io
import json
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from rich.console import Console, RenderableType

from ray_app.cli import output, rendering, stack
from ray_app.cli.app import app, run
from ray_app.cli.demo import check_owner
from ray_app.cli.interrupt import on_interrupt
from ray_app.cli.progress import LINE_EVERY, ProgressView, describe
from ray_app.errors import IsolationViolation, JobConflict, RowbeamError, UnknownTenant
from ray_app.reports import (
    Check,
    Counts,
    CoverageRow,
    DeadLetter,
    JobProgress,
    JobState,
    LoadReport,
    NewTenant,
    Plan,
    ProbeReport,
    SearchHit,
    TablePlan,
    TenantDetails,
)
from ray_app.sample.demo_tenants import CANARY, demo_tenants
from ray_app.tenants import ApiKey, Placement, Tenant, TenantState
from ray_app.wording import duration, money

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
TENANT = Tenant(UUID(int=7), "acme", 3, Placement.EMBEDDED, TenantState.ACTIVE, NOON)
COUNTS = Counts(read=10, embedded=5, unchanged=2, no_text=1, dead=1, deleted=1, chunks=9)
JOB = JobProgress(
    job_id="job-1",
    tenant="acme",
    kind="backfill",
    state=JobState.RUNNING,
    tables=("issues",),
    vector_types=("content",),
    prefer=None,
    total_records=2000,
    processed_records=1500,
    successful_records=1490,
    failed_records=10,
    current_batch=15,
    total_batches=20,
    counts=COUNTS,
    tokens=12345,
    cost=Decimal("0.000123"),
    created_at=NOON,
    started_at=NOON,
    finished_at=None,
    estimated_completion=NOON + timedelta(seconds=90),
    records_per_second=210.4,
    seconds=7.0,
    provider="local-cpu",
)
TABLE_PLAN = TablePlan(
    table="issues",
    vector_type="content",
    priority=10,
    rows=100,
    to_embed=60,
    unchanged=40,
    to_delete=0,
    space_id="abc123",
    model="m",
    pinned=False,
    preference="quality",
    provider="local-cpu",
    batch_size=100,
    estimated_tokens=5000,
    estimated_seconds=75.0,
    estimated_cost=Decimal("0.5"),
)
LETTER = DeadLetter("issues", "content", "7", "embed", "ItemError", "Odd.", 2, "open", NOON, NOON)
COVERAGE = CoverageRow("issues", "content", 9, 8, 1, 0, 0, "abc123", "org/some-model", 12)


def text_of(renderable: RenderableType, *, width: int = 160, color: bool = False) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=color).print(renderable)
    return stream.getvalue()


def test_every_command_that_has_a_result_takes_json() -> None:
    groups, commands = [app], []
    for group in groups:
        groups += [item.typer_instance for item in group.registered_groups]
        commands += [command.callback for command in group.registered_commands]
    assert len(commands) >= 23
    for command in commands:
        assert command is not None
        if command is stack.serve:
            continue  # it serves until it is stopped
        assert "as_json" in inspect.signature(command).parameters, command


def test_json_has_fields_and_totals_and_plain_values() -> None:
    plan = output.to_json(Plan("acme", (TABLE_PLAN, replace(TABLE_PLAN, table="users")), ("note",)))
    assert plan["total_to_embed"] == 120
    assert plan["estimated_cost"] == 1.0
    assert plan["tables"][0]["space_id"] == "abc123"
    job = output.to_json(replace(JOB, state=JobState.SUCCEEDED))
    assert (job["state"], job["counts"]["balanced"]) == ("succeeded", True)
    assert job["started_at"] == "2026-11-23T12:00:00+00:00"
    assert json.loads(json.dumps([plan, job])) == [plan, job]
    assert output.to_json(Path("/x")) == "/x"


def test_a_row_can_neither_style_nor_drive_the_terminal() -> None:
    snippet = "[red]a[/red] \x1b[2J\x1b]0;title\x07 \u202egnp.exe\r\nnext\x9b31m"
    hit = SearchHit("issues", "[bold]7[/bold]", 0.5, snippet)
    shown = text_of(rendering.hits([hit]), color=True)
    assert "[red]a[/red]" in shown
    assert "[bold]7[/bold]" in shown
    assert "\x1b[2J" not in shown
    assert not set("\x07\u202e\r\x9b") & set(shown)


def test_an_error_is_red_with_its_hint_and_can_hold_anything(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_error(UnknownTenant("No tenant [x]\x1b[2J.", hint="Try:\nrowbeam tenant list"), as_json=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "Error: No tenant [x] [2J.\nHint: Try:\nrowbeam tenant list\n"


def test_an_error_is_one_json_document_where_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_error(JobConflict("Busy.", job_id="job-9"), as_json=True)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out) == {
        "error": {"type": "JobConflict", "message": "Busy.", "hint": None, "job_id": "job-9"}
    }


@pytest.mark.parametrize(
    ("renderable", "expected"),
    [
        (rendering.tenants([]), ["tenant add"]),
        (rendering.tenants([TENANT]), ["acme", "3", "embedded", "active"]),
        (
            rendering.new_tenant(NewTenant(TENANT, ApiKey("k", "rb_k_secret"), ProbeReport("abc", 1, 2, 3))),
            ["rb_k_secret", "found in 2.0 ms"],
        ),
        (
            rendering.tenant_details(TenantDetails(TENANT, ("k1", "k2"), (COVERAGE,), 5000, Decimal(2), 4)),
            ["k1, k2", "5,000, $2.00", "some-model"],
        ),
        (rendering.loaded(LoadReport("issues", 4, ("stars",))), ["Loaded 4 rows into issues", "stars"]),
        (
            rendering.plan(Plan("acme", (TABLE_PLAN,), ("No gateway.",))),
            ["abc123 new", "1 min 15 s", "60 of 100", "Note: No gateway."],
        ),
        (rendering.plan(Plan("acme", (replace(TABLE_PLAN, sampled=True),))), ["estimated from a sample"]),
        (rendering.jobs([]), ["rowbeam jobs --all"]),
        (rendering.jobs([JOB]), ["job-1", "1,500", "2,000", "running"]),
        (
            rendering.job(JOB),
            ["10 read = 5 embedded + 2 unchanged + 1 without text + 1 dead + 1 deleted", "expected end"],
        ),
        (
            rendering.job(replace(JOB, state=JobState.FAILED, error="No disk.")),
            ["It stopped because: No disk.", "rowbeam backfill --tenant acme --resume job-1"],
        ),
        (
            rendering.dead_letters([LETTER]),
            ["ItemError", "Odd."],
        ),
        (rendering.dead_letters([]), ["No open dead letters"]),
        (rendering.hits([]), ["Nothing found"]),
        (rendering.coverage([COVERAGE, replace(COVERAGE, space_id=None)]), ["abc123", "none yet"]),
        (
            rendering.checks([Check("Ray", True, "fine"), Check("Database", False, "down", "Start it.")]),
            ["ok   Ray", "FAIL Database", "Start it."],
        ),
    ],
)
def test_results_say_what_matters(renderable: RenderableType, expected: list[str]) -> None:
    shown = text_of(renderable)
    for part in expected:
        assert part in shown


def test_amounts_keep_the_digits_that_matter() -> None:
    assert [money(Decimal(value)) for value in ("0", "0.000123", "1234.5")] == [
        "$0.00",
        "$0.000123",
        "$1,234.50",
    ]
    assert [duration(value) for value in (0.04, 59.9, 60, 3_599.6, 7_260)] == [
        "0.0 s",
        "59.9 s",
        "1 min 00 s",
        "1 h 00 min",
        "2 h 01 min",
    ]


def test_a_running_job_tells_rows_rate_time_left_and_provider() -> None:
    assert describe(JOB, NOON + timedelta(seconds=30)) == (
        "1,500/2,000 rows, 10 failed, 210 rows/s, 1 min 00 s left, local-cpu"
    )
    assert describe(replace(JOB, started_at=None, state=JobState.PENDING)) == "starting Ray and the encoder"
    assert "stopping after" in describe(replace(JOB, state=JobState.CANCEL_REQUESTED))
    ended = replace(JOB, state=JobState.SUCCEEDED, processed_records=2000, failed_records=0)
    assert describe(ended) == "succeeded, 2,000/2,000 rows in 7.0 s, 210 rows/s"


def test_without_a_terminal_progress_is_a_line_now_and_then_and_the_end() -> None:
    stream, now = io.StringIO(), [0.0]
    with ProgressView(stream, clock=lambda: now[0]) as view:
        view(JOB)
        now[0] = LINE_EVERY / 2
        view(replace(JOB, processed_records=1600))
        now[0] = LINE_EVERY
        view(replace(JOB, processed_records=1700))
        view(replace(JOB, state=JobState.SUCCEEDED, processed_records=2000))
        view(replace(JOB, state=JobState.SUCCEEDED, processed_records=2000))
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["1,500/2,000", "1,700/2,000", "succeeded,"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_progress_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "140")
    stream = Terminal()
    with ProgressView(stream) as view:
        view(JOB)
        view(replace(JOB, state=JobState.SUCCEEDED, processed_records=2000))
    assert "━" in stream.getvalue()
    assert "succeeded, 2,000/2,000 rows" in stream.getvalue()


def test_ctrl_c_cancels_the_job_once_and_keeps_showing_it(capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[JobState] = []
    cancelled: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with on_interrupt() as interrupt:
        # Called by hand: a real SIGINT has ended the process that runs the tests.
        press = signal.getsignal(signal.SIGINT)
        assert callable(press)
        show: Callable[[JobProgress], None] = lambda job: shown.append(job.state)  # noqa: E731
        on_progress = interrupt.watching(show, cancelled.append)
        on_progress(JOB)
        assert cancelled == []
        press(signal.SIGINT, None)
        on_progress(replace(JOB, state=JobState.PENDING))
        assert cancelled == [], "its driver has not taken it yet"
        on_progress(JOB)
        on_progress(replace(JOB, state=JobState.CANCEL_REQUESTED))
        on_progress(replace(JOB, state=JobState.CANCELLED))
        with pytest.raises(KeyboardInterrupt):
            press(signal.SIGINT, None)
    assert cancelled == ["job-1"]
    assert len(shown) == 5
    assert signal.getsignal(signal.SIGINT) is before
    assert "Ctrl-C again" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["jobs", "--bogus"], ["nonsense"], ["backfill"], ["search", "x", "--tenant", "a"], ["tenant"]],
)
def test_a_wrong_command_line_is_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Error: ")
    assert run([*arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "UsageError"


def test_removing_a_tenant_needs_a_yes_where_nobody_can_be_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tenant", "remove", "acme", "--json"]) == 1
    assert "--yes" in json.loads(capsys.readouterr().out)["error"]["hint"]


def test_a_defect_keeps_its_traceback_and_the_json_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_arguments: object) -> object:
        raise ZeroDivisionError("a row's secret")

    monkeypatch.setattr("ray_app.cli.filters.parse_filters", fail)
    with pytest.raises(ZeroDivisionError):
        run(["search", "x", "--tenant", "a", "--table", "b", "--json"])
    out = capsys.readouterr().out
    assert json.loads(out)["error"]["type"] == "ZeroDivisionError"
    assert "secret" not in out


def test_the_demo_notices_a_row_of_another_tenant_and_a_search_that_proves_nothing() -> None:
    (ours, theirs), history = demo_tenants(None)
    assert history is None
    mine, foreign = (str(tenant.rows["issues"][0]["id"]) for tenant in (ours, theirs))
    hit = SearchHit("issues", mine, 0.9, "s")
    check_owner([hit], ours, "issues")
    with pytest.raises(IsolationViolation, match=foreign):
        check_owner([hit, replace(hit, record_id=foreign)], ours, "issues")
    with pytest.raises(RowbeamError, match="proves nothing"):
        check_owner([], ours, "issues")
    assert theirs.owns("pull_requests", str(CANARY["id"]))
    assert not ours.owns("pull_requests", str(CANARY["id"]))
