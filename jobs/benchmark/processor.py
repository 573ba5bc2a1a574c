"""Where the processor time of a job goes: which of its processes took how much."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Final

import psutil

from ray_app.stack.processes import descendants

#: Seconds between two looks; what a process does after the last look at it is not seen.
PERIOD: Final = 0.2
#: What is in the command line of each kind of process. Ray writes an actor's class there; a worker that runs
#: tasks has the name of the one that it runs, or IDLE, and a job's only tasks read.
_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "encoder": ("EncodeStage",),
    "writer": ("WriteStage", "JobProgressActor"),
    "vector store": ("VectorOwner",),
    "driver": ("jobs.backfill",),
    "database": ("postgres",),
    "readers": ("ray::IDLE", "ray::Read", "ray::Map("),
}
_OTHER: Final = "Ray itself"


class ProcessorSampler:
    """Samples the processor time of ``roots``, of this process's children, and of all that they start.

    A context manager; afterwards ``seconds`` has the processor seconds of each kind of process.
    """

    def __init__(self, roots: Iterable[int] = ()) -> None:
        self._roots = tuple(roots)
        self._before: dict[int, float] = {}
        self._kinds: dict[int, str] = {}
        self._now: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> ProcessorSampler:
        self._look()
        self._before = dict(self._now)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for pid, taken in self._now.items():
            part = taken - self._before.get(pid, 0.0)
            self.seconds[self._kinds[pid]] = self.seconds.get(self._kinds[pid], 0.0) + part

    def _sample(self) -> None:
        while not self._stop.wait(PERIOD):
            self._look()

    def _look(self) -> None:
        roots = [psutil.Process(pid) for pid in (*self._roots, os.getpid())]
        for process in descendants(roots):
            try:
                times = process.cpu_times()
                kind = kind_of(" ".join(process.cmdline()) or process.name())
            except psutil.Error:
                continue  # it ended between the listing and the look
            self._now[process.pid] = times.user + times.system
            if kind != _OTHER or process.pid not in self._kinds:
                self._kinds[process.pid] = kind


def kind_of(command: str) -> str:
    """The kind of a process, by its command line."""
    for kind, marks in _KINDS.items():
        if any(mark in command for mark in marks):
            return kind
    return _OTHER
