"""A running job on standard error: a live bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Final, Self

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from ray_app.cli.output import console, plain
from ray_app.moving.reports import MoveProgress
from ray_app.reports import JobProgress, JobState
from ray_app.wording import duration

#: Seconds between two lines where there is no terminal to redraw.
LINE_EVERY: Final = 5.0


class _View:
    """A bar on a terminal, else a line now and then; a context manager."""

    def __init__(self, stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console(stream or sys.stderr)
        self._clock = clock
        self._last_line = float("-inf")
        self._last_text = ""
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
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

    def _show(self, name: str, line: str, done: int, total: int | None, *, last: bool) -> None:
        """``last``: nothing comes after it, so the line is not held back."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=name, line=line, completed=done, total=total)
            return
        now = self._clock()
        if line != self._last_text and (now - self._last_line >= LINE_EVERY or last):
            self._console.print(f"{name}: {line}", markup=False, highlight=False)
            self._last_line, self._last_text = now, line


class ProgressView(_View):
    """Shows each ``JobProgress`` it is called with."""

    def __call__(self, job: JobProgress) -> None:
        total = job.total_records if job.state is not JobState.PENDING else None
        self._show(job.tenant, describe(job), job.processed_records, total, last=not job.state.active)


class MoveView(_View):
    """Shows each ``MoveProgress`` it is called with."""

    def __call__(self, move: MoveProgress) -> None:
        line = f"{move.phase}, {move.done:,}/{move.total:,}" if move.total else str(move.phase)
        self._show(move.tenant, line, move.done, move.total or None, last=False)


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
