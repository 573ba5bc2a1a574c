"""What ``rowbeam migrate`` refuses before it opens anything, and how it shows what came of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from rich.console import Console, RenderableType

from ray_app.cli import rendering_migrations
from ray_app.cli.app import run
from ray_app.cli.output import USAGE
from ray_app.migrating.reports import Migrated, MigrationStatus, Verification
from ray_app.migrating.states import Stage
from ray_app.reports import Counts, JobProgress, JobState

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
JOB = JobProgress(
    job_id="job-1",
    tenant="acme",
    kind="migrate",
    state=JobState.SUCCEEDED,
    tables=("issues",),
    vector_types=("content",),
    prefer=None,
    total_records=200,
    processed_records=150,
    successful_records=150,
    failed_records=0,
    current_batch=2,
    total_batches=2,
    counts=Counts(read=150, embedded=150, chunks=150),
    tokens=10,
    cost=Decimal(0),
    created_at=NOON,
    started_at=NOON,
    finished_at=NOON,
    estimated_completion=None,
    records_per_second=1.0,
    seconds=1.0,
    provider="stub",
)
FOUND = Verification(
    rows=151, no_text=1, dead=0, records=150, ledger_points=160, stored_points=160, differing=0, sampled=50,
    retrieved=49, overlap=0.75,
)  # fmt: skip
STATUS = MigrationStatus(
    "issues", "content", Stage.KEPT, "new-model", "aaa", "old-model", "bbb", JOB, 3, FOUND, NOON, NOON
)


def text_of(renderable: RenderableType) -> str:
    console = Console(width=140, color_system=None)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "gateway"], "--table"),
        (["--table", "issues"], "--to"),
        (["--table", "issues", "--plan"], "--to"),
        (["--table", "issues", "--abort", "--finish"], "do not go together"),
    ],
)
def test_what_is_missing_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["migrate", "--tenant", "acme", *arguments, "--json"]) == USAGE
    assert message in json.loads(capsys.readouterr().out)["error"]["message"]


def test_a_change_says_what_is_searched_and_what_is_kept() -> None:
    shown = text_of(rendering_migrations.migrated(Migrated("issues", True, JOB, (STATUS,), 0.125)))
    for part in (
        "searched with new-model (aaa)", "old-model (bbb) is kept until", "49 of 50", "0.750",
        "151, 1 without text, 0 dead letters", "150 in 160 points, 160 in the store", "waited for 0.12 s",
    ):  # fmt: skip
        assert part in shown


def test_the_status_shows_both_generations() -> None:
    shown = text_of(rendering_migrations.status([STATUS]))
    for part in ("issues", "new-model", "old-model", "kept", "150/200", "3"):
        assert part in shown
    assert "No change of model" in text_of(rendering_migrations.status([]))
