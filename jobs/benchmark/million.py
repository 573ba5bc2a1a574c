"""A million rows: rows a second and memory from start to end, and what the plan had said.

Backfills generated rows with the stub model on the embedded stack. Rows a second come from the
ledger's dates of the written ranges, memory from the kernel's account of the job's process tree (see
``jobs.benchmark.memory``). Both are told for each tenth of the time; flat means that the last fifth
is as the second, when all workers have long begun. The databases are not the job: neither Postgres
nor the owner of the embedded store, whose index of words and ids is in memory and grows with its
points; that is told apart. Needs about 8 KiB of disk a row.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from jobs.benchmark.costs import TABLE, Cost, costs, measure_speed
from jobs.benchmark.homes import home_settings
from jobs.benchmark.lines import Line, Target
from jobs.benchmark.marks import Mark, rates, read_marks
from jobs.benchmark.memory import MemorySampler
from jobs.benchmark.report import say
from jobs.benchmark.site import INSERT
from ray_app.app import Rowbeam
from ray_app.errors import InputError
from ray_app.reports import JobProgress, JobState, Plan
from ray_app.settings import Settings

ROWS: Final = 1_000_000
#: Rows that the local model embeds to tell its speed.
SPEED_ROWS: Final = 2_000
#: Seconds between samples of memory.
PERIOD: Final = 1.0
PIECES: Final = 10
#: Bytes on disk of one row: the table's, the ledger's with its log, the point's.
DISK_BYTES: Final = 8 * 1024
FLAT_MEMORY: Final = Target(1.1, at_least=False)
FLAT_SPEED: Final = Target(0.9)
PLAN: Final = Target(1.1, at_least=False)


@dataclass(frozen=True)
class Measured:
    """One job, cut into ``PIECES`` spans of time."""

    plan: Plan
    job: JobProgress
    costs: list[Cost]
    rows_per_second: list[float]
    #: Anonymous and shared memory of the job's processes, and of the embedded store's owner.
    job_mib: list[float]
    store_mib: list[float]
    file_pages_mib: list[float]

    def details(self) -> dict[str, Any]:
        return {
            "rows": self.job.counts.embedded,
            "seconds": round(self.job.seconds, 1),
            "tenths": list(range(1, PIECES + 1)),
            "rows_per_second": [round(rate, 1) for rate in self.rows_per_second],
            "job_mib": [round(size, 1) for size in self.job_mib],
            "store_mib": [round(size, 1) for size in self.store_mib],
            "file_pages_mib": [round(size, 1) for size in self.file_pages_mib],
        }


def measure(rows: int, model: str, speed_rows: int) -> Measured:
    """Plan and backfill ``rows`` generated rows in a home of its own. Raises RuntimeError when it fails."""
    with tempfile.TemporaryDirectory(prefix="rowbeam-bench-", ignore_cleanup_errors=True) as folder:
        check_disk(Path(folder), rows)
        settings = home_settings(Path(folder), "stub").model_copy(update={"qdrant_url": None})
        with Rowbeam.open(settings) as rowbeam:
            if speed_rows:
                say(f"million: {speed_rows} rows with the model {model}, for its speed")
                measure_speed(settings.model_copy(update={"local_model": model}), "speed", 2, speed_rows)
            say(f"million: {rows} generated rows")
            rowbeam.add_tenant("bench", client_id=1)
            with rowbeam.workspace.ledger.begin() as connection:
                connection.execute(INSERT, {"rows": rows, "client": 1})
            told = costs(settings, "bench", model, Settings.from_env().gateway)
            plan = rowbeam.plan("bench", tables=[TABLE])
            sampler = MemorySampler(period=PERIOD)
            job = _backfill(rowbeam, sampler)
            samples = sampler.end()
            marks = read_marks(rowbeam.workspace.ledger, job.job_id)
            points = rowbeam.count_points("bench")
    if (
        job.state is not JobState.SUCCEEDED
        or job.counts.embedded != rows
        or set(points) != {job.counts.chunks}
    ):
        raise RuntimeError(f"The job did not embed every row: {job}; {points} points")
    series = (
        [own - store for (own, _), store in zip(samples, sampler.store, strict=True)],
        sampler.store,
        [file for _, file in samples],
    )
    memory = [pieces(marks, sampler.times, values) for values in series]
    return Measured(plan, job, told, rates(marks, PIECES), *memory)


def _backfill(rowbeam: Rowbeam, sampler: MemorySampler) -> JobProgress:
    """The job, to its end; cancelled when this is interrupted, for its driver is a process of its own."""
    try:
        return rowbeam.backfill("bench", tables=[TABLE], on_progress=sampler.follow)
    except BaseException:
        for job in rowbeam.jobs():
            rowbeam.cancel(job.job_id)
        raise


def check_disk(folder: Path, rows: int) -> None:
    """Raises InputError when there is too little room for so many rows."""
    needed, free = rows * DISK_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{rows} rows need about {needed / 1e9:.1f} GB in {folder.parent}, which has {free / 1e9:.1f}.",
            hint="Name a folder with more room in TMPDIR, or fewer --rows.",
        )


def pieces(marks: Sequence[Mark], times: Sequence[float], values: Sequence[float]) -> list[float]:
    """The median of ``values``, taken at ``times``, in each of ``PIECES`` spans from first to last mark.

    NaN where a span has none.
    """
    begin, end = marks[0].at, marks[-1].at
    found: list[list[float]] = [[] for _ in range(PIECES)]
    for at, value in zip(times, values, strict=True):
        place = int((at - begin) / (end - begin) * PIECES)
        if 0 <= place < PIECES:
            found[place].append(value)
    return [median(piece) if piece else float("nan") for piece in found]


def flatness(pieces_: Sequence[float]) -> float:
    """The last fifth over the second."""
    return (pieces_[-2] + pieces_[-1]) / (pieces_[2] + pieces_[3])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument(
        "--speed-rows", type=int, default=SPEED_ROWS, help="rows that tell the local model's speed; 0: none"
    )


def lines(args: argparse.Namespace) -> Iterator[Line]:
    """Memory, speed, and the plan's tokens."""
    measured = measure(args.rows, args.model, args.speed_rows)
    what, against = f"{args.rows:,} rows, last fifth", "second fifth"
    details = measured.details()
    yield Line(
        what=f"{what}: memory of the job",
        against=against,
        target=FLAT_MEMORY,
        value=flatness(measured.job_mib),
        measure="MiB",
        details=details,
        note=f"{median(measured.job_mib):,.0f} MiB (median) without the databases; the embedded store's own"
        f" memory went from {measured.store_mib[0]:,.0f} to {measured.store_mib[-1]:,.0f} MiB",
    )
    yield Line(
        what=f"{what}: rows/s",
        against=against,
        target=FLAT_SPEED,
        value=flatness(measured.rows_per_second),
        details=details,
        note=f"{measured.job.counts.embedded / measured.job.seconds:,.0f} rows/s, start included",
    )
    planned, real = measured.plan.estimated_tokens, measured.job.tokens
    yield Line(
        what=f"tokens planned for {args.rows:,} rows",
        against="tokens of the job",
        target=PLAN,
        value=max(planned / real, real / planned),
        details={
            "planned": {"rows": measured.plan.total_to_embed, "tokens": planned},
            "job": {"rows": measured.job.counts.embedded, "tokens": real},
            "costs_per_million_rows": [asdict(cost) for cost in measured.costs],
        },
        note="a million rows by the plan: "
        + "; ".join(cost.told() for cost in measured.costs if cost.rows == measured.costs[0].rows),
    )
