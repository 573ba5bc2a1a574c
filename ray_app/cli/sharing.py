"""``rowbeam backfill`` of several tenants at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ray_app.budgets import JobLimits
from ray_app.cli import rendering
from ray_app.cli.interrupt import on_interrupt
from ray_app.cli.jobs import exit_code
from ray_app.cli.output import AT_BUDGET, FAILED, INTERRUPTED, OK, emit, plain
from ray_app.cli.progress import ProgressView
from ray_app.reports import JobProgress
from ray_app.sharing import TenantOutcome


def backfill_several(
    tenants: Sequence[str], limits: JobLimits, options: dict[str, Any], *, as_json: bool
) -> int:
    """Run their jobs at once and show how each ended; the exit status is the worst of theirs."""
    from ray_app.app import Rowbeam

    with Rowbeam.open() as rowbeam, on_interrupt() as interrupt:

        def watch() -> Callable[[JobProgress], None]:
            # Not entered: lines by tenant, for a bar has room for one job.
            return interrupt.watching(ProgressView(), rowbeam.cancel)

        outcomes = rowbeam.backfill_tenants(tenants, limits=limits, watch=watch, **options)
    emit(outcomes, _outcomes, as_json=as_json, name="tenants")
    codes = {
        FAILED if item.job is None else exit_code(item.job, interrupted=interrupt.pressed)
        for item in outcomes
    }
    return next(code for code in (FAILED, INTERRUPTED, AT_BUDGET, OK) if code in codes)


def _outcomes(outcomes: Sequence[TenantOutcome]) -> RenderableType:
    lines: list[RenderableType] = []
    for item in outcomes:
        if item.job is not None:
            lines += [rendering.job(item.job), Text("")]
        else:
            hint = f" {plain(item.hint)}" if item.hint else ""
            lines += [Text(f"{item.tenant}: {plain(item.error or '')}{hint}", style="red"), Text("")]
    return Group(*lines[:-1])
