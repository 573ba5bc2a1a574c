"""Ctrl-C while a job runs: first ask the job to stop where it can be resumed, then give up waiting."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ray_app.cli.output import note
from ray_app.reports import JobProgress, JobState


class Interrupt:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.pressed = False

    def watching(
        self, show: Callable[[JobProgress], None], cancel: Callable[[str], object]
    ) -> Callable[[JobProgress], None]:
        """A progress callback that shows the job and cancels it once after Ctrl-C.

        The job runs in a process of its own, so it is asked, not killed; between two calls of the
        callback no statement of ours is cut in half. A job whose driver is still on its way is asked
        when that has taken it: the driver would take up a cancelled one as if to resume it.
        """
        told = asked = False

        def on_progress(job: JobProgress) -> None:
            nonlocal told, asked
            if self.pressed and not told:
                told = True
                note("Stopping after the batches in flight. Ctrl-C again leaves the job alone.", as_json=True)
            if self.pressed and not asked and job.state is JobState.RUNNING:
                asked = True
                cancel(job.job_id)
            show(job)

        return on_progress


@contextmanager
def on_interrupt() -> Iterator[Interrupt]:
    """Note the first Ctrl-C instead of raising; the second raises KeyboardInterrupt as usual."""
    interrupt = Interrupt()

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if interrupt.pressed:
            raise KeyboardInterrupt
        interrupt.pressed = True

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
