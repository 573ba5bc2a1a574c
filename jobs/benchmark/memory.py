"""Memory of a job against the size of its table.

Backfills tables of growing size with the stub model and samples the memory of the job's
whole process tree, from the driver to the last Ray worker, as the kernel accounts it in
``/proc/PID/smaps_rollup`` (shared pages counted once). Anonymous and shared memory is what the job
needs; flat means that a table twenty times larger needs no more. File pages are counted apart: they
are the vectors that the embedded store maps from disk, which the kernel takes back when it must.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil

from jobs.benchmark.site import INSERT
from ray_app.app import Rowbeam
from ray_app.reports import JobProgress, JobState
from ray_app.settings import Settings

ROWS: Final = (10_000, 50_000, 200_000)
#: Seconds between samples of memory.
PERIOD: Final = 0.5
#: What Ray calls the process of ``ray_app.actors.vector_owner``.
_STORE_TITLE: Final = "ray::VectorOwner"


@dataclass(frozen=True)
class MemoryRun:
    """One backfill. Memory in MiB, over the time in which records were being written."""

    rows: int
    seconds: float
    rows_per_second: float
    #: Anonymous and shared memory: the most, and the medians of both halves of the time.
    peak_mib: float
    first_half_mib: float
    second_half_mib: float
    #: Pages of files, at the most.
    file_peak_mib: float


class MemorySampler:
    """Samples the memory of processes, by default this one's children, in a thread."""

    def __init__(
        self, processes: Callable[[], list[psutil.Process]] | None = None, *, period: float = PERIOD
    ) -> None:
        self._processes = processes or (lambda: psutil.Process().children(recursive=True))
        self._period = period
        #: (anonymous and shared, file) in MiB.
        self.samples: list[tuple[float, float]] = []
        #: When each was taken, in seconds since 1970.
        self.times: list[float] = []
        #: Of the anonymous and shared memory, that of the process that owns the embedded store.
        self.store: list[float] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, progress: JobProgress) -> None:
        """Begin with the first record written: before, the cluster is still starting."""
        if self._thread is None and progress.processed_records > 0:
            self.begin()

    def begin(self) -> None:
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def end(self) -> list[tuple[float, float]]:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        return self.samples

    def _sample(self) -> None:
        while not self._stop.wait(self._period):
            self.times.append(time.time())
            own = file = store = 0
            for process in self._processes():
                size = _sizes(process)
                needed = size.get("Pss_Anon", 0) + size.get("Pss_Shmem", 0)
                own, file = own + needed, file + size.get("Pss_File", 0)
                store += needed if size and _owns_store(process) else 0
            self.samples.append((own / 1024, file / 1024))
            self.store.append(store / 1024)


def _sizes(process: psutil.Process) -> dict[str, int]:
    """Kibibytes of one process of the job by kind; the database is not part of it."""
    try:
        if process.name() == "postgres":
            return {}
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    except (psutil.Error, OSError):
        return {}  # it ended between the listing and the look
    return {name: int(size.split()[0]) for name, size in (line.split(":") for line in lines)}


def _owns_store(process: psutil.Process) -> bool:
    try:
        return _STORE_TITLE in "".join(process.cmdline()[:1])
    except psutil.Error:
        return False


def measure_memory(rows: int) -> MemoryRun:
    """Backfill ``rows`` generated rows in a home of its own and sample the job's memory."""
    with tempfile.TemporaryDirectory(prefix="rowbeam-bench-") as home:
        settings = Settings(home=Path(home), local_model="stub")
        with Rowbeam.open(settings) as rowbeam:
            rowbeam.add_tenant("bench", client_id=1)
            with rowbeam.workspace.ledger.begin() as connection:
                connection.execute(INSERT, {"rows": rows, "client": 1})
            sampler = MemorySampler()
            job = rowbeam.backfill("bench", tables=["pull_requests"], on_progress=sampler.follow)
            samples = sampler.end()
    if job.state is not JobState.SUCCEEDED or job.counts.embedded != rows:
        raise RuntimeError(f"The job did not embed every row: {job}")
    own, files = [list(kind) for kind in zip(*samples, strict=True)]
    half = len(own) // 2
    return MemoryRun(
        rows=rows,
        seconds=round(job.seconds, 1),
        rows_per_second=round(job.records_per_second, 1),
        peak_mib=round(max(own), 1),
        first_half_mib=round(median(own[:half] or own), 1),
        second_half_mib=round(median(own[half:]), 1),
        file_peak_mib=round(max(files), 1),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a table; answers the record."""
    runs = []
    titles = ("rows", "seconds", "rows/s", "peak MiB", "1st half", "2nd half", "files MiB")
    print(" ".join(f"{title:>9}" for title in titles))  # noqa: T201
    for rows in args.rows:
        measured = measure_memory(rows)
        runs.append(measured)
        print(" ".join(f"{value:>9}" for value in asdict(measured).values()), flush=True)  # noqa: T201
    ratio = runs[-1].peak_mib / runs[0].peak_mib
    print(f"peak of {runs[-1].rows} rows / peak of {runs[0].rows} rows = {ratio:.2f}")  # noqa: T201
    return {"ratio": ratio, "runs": [asdict(measured) for measured in runs]}
