"""What ``rowbeam tenant move`` refuses before it opens anything, and how it shows what came of it."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest
from rich.console import Console, RenderableType

from ray_app.cli import rendering_moves
from ray_app.cli.app import run
from ray_app.cli.output import USAGE
from ray_app.cli.progress import MoveView
from ray_app.moving.reports import Moved, MovePlan, MoveProgress, MoveStatus, Phase, PlaceVerification
from ray_app.moving.states import Stage
from ray_app.tenants import Placement

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
FOUND = PlaceVerification(
    points=1600, differing=0, unknown=0, misplaced=0, sampled=50, found=50, found_there=49, other_score=0
)  # fmt: skip
STATUS = MoveStatus(
    "acme", Placement.POOLED, Placement.EMBEDDED, Stage.KEPT, 1600, 1600, 3, FOUND, NOON, NOON
)  # fmt: skip


def text_of(renderable: RenderableType) -> str:
    console = Console(width=140, color_system=None)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--to"),
        (["--plan"], "--to"),
        (["--to", "pooled", "--rollback"], "do not go together"),
        (["--abort", "--finish"], "do not go together"),
        (["--to", "elsewhere"], "elsewhere"),
    ],
)
def test_what_is_missing_or_too_much_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["tenant", "move", "acme", *arguments, "--json"]) == USAGE
    assert message in json.loads(capsys.readouterr().out)["error"]["message"]


def test_a_plan_says_what_would_be_copied() -> None:
    made = MovePlan("acme", Placement.EMBEDDED, Placement.POOLED, 3, 1500, 1600, 2_457_600)
    shown = text_of(rendering_moves.plan(made))
    for part in ("1,600 points", "1,500 records", "3 indexes", "2.5 MB", "from embedded to pooled"):
        assert part in shown


def test_a_move_says_where_the_tenant_is_and_what_is_kept() -> None:
    shown = text_of(rendering_moves.moved(Moved(STATUS, 1600, 2, 0.125)))
    for part in (
        "acme is pooled from now on", "embedded is kept until", "1,600 points copied, 2 deleted", "49 of 50",
        "waited for 0.12 s",
    ):  # fmt: skip
        assert part in shown


@pytest.mark.parametrize(
    ("status", "parts"),
    [
        (MoveStatus("acme", Placement.POOLED), ["acme is pooled."]),
        (STATUS, ["acme is pooled.", "embedded was its place and is kept until", "3 records are yet"]),
        (
            MoveStatus("acme", Placement.POOLED, Placement.DEDICATED, Stage.FILLING, 2000, 1600),
            ["dedicated is being filled, 1,600 of 2,000 points"],
        ),
        (
            MoveStatus("acme", Placement.POOLED, Placement.EMBEDDED, Stage.RETURNING, 2000, 1600),
            ["embedded was its place and is being brought up to date"],
        ),
        (
            MoveStatus("acme", Placement.POOLED, Placement.EMBEDDED, Stage.DROPPING),
            ["embedded is being dropped"],
        ),
    ],
)
def test_the_status_shows_both_places(status: MoveStatus, parts: list[str]) -> None:
    shown = text_of(rendering_moves.status(status))
    for part in parts:
        assert part in shown


def test_progress_is_a_line_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with MoveView(stream, clock=lambda: 0.0) as view:
        view(MoveProgress("acme", Phase.COPYING, 800, 1600))
        view(MoveProgress("acme", Phase.COPYING, 900, 1600))
    assert stream.getvalue() == "acme: copying, 800/1,600\n"
