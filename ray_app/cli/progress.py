"""A running job on standard error: a live bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Final

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from ray_app.cli.output import console, plain
from ray_app.reports import JobProgress, JobState
from ray_app.wording import duration

#: Seconds between two lines where there is no terminal to redraw.
LINE_EVERY: Final = 5.0


class ProgressView:
    """Shows each ``JobProgress`` it is called with; a context manager."""

    def __init__(self, stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console(stream or sys.stderr)
        self._clock = clock
        self._last_line = float("-inf")
        self._last_text = ""
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressView:
        if self._console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[line]}", markup=False),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task("", line="", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, job: JobProgress) -> None:
        line = describe(job)
        if self._bar is not None and self._task is not None:
            total = job.total_records if job.state is not JobState.PENDING else None
            self._bar.update(
                self._task, description=job.tenant, line=line, completed=job.processed_records, total=total
            )
            return
        now = self._clock()
        if line != self._last_text and (now - self._last_line >= LINE_EVERY or not job.state.active):
            self._console.print(f"{job.tenant}: {line}", markup=False, highlight=False)
            self._last_line, self._last_text = now, line


def describe(job: JobProgress, now: datetime | None = None) -> str:
    """One line: rows, rate, time left and provider while it runs; the outcome when it has ended."""
    rows = f"{job.processed_records:,}/{job.total_records:,} rows"
    rate = f"{job.records_per_second:,.0f} rows/s"
    failed = f", {job.failed_records:,} failed" if job.failed_records else ""
    if not job.state.active:
        return f"{job.state.value}, {rows}{failed} in {duration(job.seconds)}, {rate}"
    if job.started_at is None:
        return "starting Ray and the encoder"
    parts = [rows + failed, rate]
    if job.estimated_completion is not None:
        left = (job.estimated_completion - (now or datetime.now(UTC))).total_seconds()
        parts.append(f"{duration(max(left, 0.0))} left")
    if job.provider:
        parts.append(plain(job.provider))
    if job.state is JobState.CANCEL_REQUESTED:
        parts.append("stopping after the batches in flight")
    return ", ".join(parts)
