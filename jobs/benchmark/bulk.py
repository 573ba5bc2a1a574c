"""Bulk: rows in Postgres to searchable in Qdrant, against the bare encoder and a straightforward script.

Each round embeds the rows anew, as a tenant made for it, with the embedded stack in a home of its own.
The cluster runs already, as it does where jobs are submitted. A round's time is that of the whole call:
starting the job's processes and the model, until the last row can be found. The bare encoder is the same
model without Rowbeam around it, given the same pieces of text in one call. The script
(``jobs/benchmark/peers/naive_script.py``) does the same with the libraries that come to mind first, on
``--script-rows`` of the rows, and only its loop is timed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import Final

from jobs.benchmark.contestants import Contestant, is_stub, rowbeam_encoder
from jobs.benchmark.homes import insert, on_cluster
from jobs.benchmark.lines import Line, Samples, Target, in_turns, ratio
from jobs.benchmark.marks import rates, read_marks
from jobs.benchmark.processor import ProcessorSampler
from jobs.benchmark.report import say
from jobs.benchmark.texts import Document, load_documents
from ray_app.app import Rowbeam
from ray_app.encoders.model_files import find_model
from ray_app.reports import JobProgress, JobState
from ray_app.spaces import Preference

TABLE: Final = "pull_requests"
TENANT: Final = "bench"
#: Share of the rows of the last part whose text another row has, too.
REPEATED: Final = 0.3
_BARE, _SCRIPT, _RERUN, _DISTINCT = Target(0.9), Target(3.5), Target(100), Target(1.0, at_least=False)


@dataclass(frozen=True)
class Run:
    """One job; times are seconds from the call."""

    job: JobProgress
    #: Until the answer, and until the first and the last range had been written.
    seconds: float
    start: float
    last: float
    #: Rows a second from the first range written to the last; 0 for a job of fewer than two.
    steady: float
    #: Processor seconds of each kind of process.
    processor: Mapping[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--script-rows", type=int, default=2000, help="rows for the straightforward script")
    parser.add_argument("--duplicate-rows", type=int, default=5000, help="rows of the part on repeated texts")


def lines(args: argparse.Namespace) -> Iterator[Line]:
    """Against the bare encoder and the script, an unchanged re-run, and repeated texts."""
    documents = load_documents(args.texts, args.rows)
    with on_cluster(args.model) as (rowbeam, head):
        pieces = _pieces(rowbeam, [document.text for document in documents])
        insert(rowbeam, documents, client_id=1)
        runs: list[tuple[Run, Run]] = []
        with Contestant(rowbeam_encoder, rowbeam.workspace.settings, "cpu") as bare:
            bare.warm(pieces)
            competitors: dict[str, Callable[[], float]] = {
                "bulk": lambda: _first_and_again(rowbeam, head, len(documents), runs),
                # In rows, since a long row is several pieces for both.
                "bare": lambda: bare.rate(pieces) * len(documents) / len(pieces),
            }
            if not is_stub(args.model):
                competitors["script"] = lambda: _script(rowbeam, args.script_rows)
            samples = in_turns(competitors, args.rounds)
        yield _against_bare(samples, [first for first, _ in runs], len(documents), len(pieces))
        yield _against_script(samples, args.script_rows)
        yield _unchanged(runs)
        yield _repeated(rowbeam, head, documents[: args.duplicate_rows])


def _pieces(rowbeam: Rowbeam, texts: Sequence[str]) -> list[str]:
    """What the model is sent for ``texts``: their chunks."""
    space = rowbeam.workspace.providers.spaces_for(Preference.FAST)
    chunker = rowbeam.workspace.providers.chunker_for(space)
    return [space.document_prefix + chunk.text for chunks in chunker.chunk(texts) for chunk in chunks]


def _first_and_again(rowbeam: Rowbeam, head: int, rows: int, runs: list[tuple[Run, Run]]) -> float:
    """Rows a second of a backfill by a new tenant; it is then repeated with nothing changed."""
    rowbeam.add_tenant(TENANT, client_id=1)
    first = _backfill(rowbeam, head, TENANT)
    if first.job.counts.embedded != rows or not rowbeam.search(TENANT, TABLE, "fix the build", limit=1):
        raise RuntimeError(f"Not every row can be found: {first.job.counts}")
    again = _backfill(rowbeam, head, TENANT)
    if again.job.counts.embedded or again.job.counts.unchanged != rows:
        raise RuntimeError(f"The repeated run found something to do: {again.job.counts}")
    rowbeam.remove_tenant(TENANT)
    say(f"backfill {first.seconds:.1f} s, again {again.seconds:.2f} s")
    runs.append((first, again))
    return rows / first.seconds


def _backfill(rowbeam: Rowbeam, head: int, tenant: str) -> Run:
    with ProcessorSampler([head]) as processor:
        began, clock = time.time(), time.perf_counter()
        job = rowbeam.backfill(tenant, tables=[TABLE], prefer=Preference.FAST)
        seconds = time.perf_counter() - clock
    if job.state is not JobState.SUCCEEDED:
        raise RuntimeError(f"The job ended as {job.state}: {job.error}")
    marks = read_marks(rowbeam.workspace.ledger, job.job_id)
    if not marks:
        return Run(job, seconds, seconds, seconds, 0.0, processor.seconds)
    steady = rates(marks, 1)[0] if marks[-1].at > marks[0].at else 0.0
    start, last = marks[0].at - began, marks[-1].at - began
    return Run(job, seconds, start, last, steady, processor.seconds)


def _script(rowbeam: Rowbeam, rows: int) -> float:
    """Rows a second of the straightforward script."""
    settings = rowbeam.workspace.settings
    command = [sys.executable, "-m", "jobs.benchmark.peers.naive_script", "--client", "1"]
    command += ["--rows", str(rows), "--model", str(find_model(settings.local_model).folder)]
    command += ["--qdrant-url", settings.qdrant_url] if settings.qdrant_url else []
    dsn = rowbeam.workspace.source.url.set(drivername="postgresql").render_as_string(hide_password=False)
    key = settings.qdrant_api_key.get_secret_value() if settings.qdrant_api_key else ""
    done = subprocess.run(command, input=f"{dsn}\n{key}\n", stdout=subprocess.PIPE, text=True, check=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    return float(measured["rows"] / measured["seconds"])


def _against_bare(samples: dict[str, Samples], firsts: Sequence[Run], rows: int, pieces: int) -> Line:
    """The note is the profile: when the time went by, and which processes took the cores."""
    steady = [run.steady / bare for run, bare in zip(firsts, samples["bare"].values, strict=True)]
    start, end = median(run.start for run in firsts), median(run.seconds - run.last for run in firsts)
    return Line(
        f"bulk, {rows:,} rows",
        "the bare encoder on the same texts",
        _BARE,
        ratio(samples["bulk"], samples["bare"]),
        measure="rows/s",
        ours=samples["bulk"],
        peer=samples["bare"],
        note=(
            f"{start:.1f} s until the first range was written (processes, model), from then on"
            f" {median(steady):.3f} of the bare encoder, {end:.1f} s from the last one to the answer;"
            f" processor seconds: {_shares(firsts)}"
        ),
        details={
            "rows": rows,
            "texts_sent": pieces,
            "seconds": [run.seconds for run in firsts],
            "start_seconds": [run.start for run in firsts],
            "end_seconds": [run.seconds - run.last for run in firsts],
            "steady_ratio": steady,
            "processor_seconds": [dict(run.processor) for run in firsts],
        },
    )


def _shares(runs: Sequence[Run]) -> str:
    """Processor seconds by kind of process, medians, the most first."""
    kinds = {kind for run in runs for kind in run.processor}
    shares = {kind: median(run.processor.get(kind, 0.0) for run in runs) for kind in kinds}
    ordered = sorted(shares.items(), key=lambda share: -share[1])
    return ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in ordered)


def _against_script(samples: dict[str, Samples], rows: int) -> Line:
    measured = "script" in samples
    return Line(
        "bulk",
        "a straightforward script",
        _SCRIPT,
        ratio(samples["bulk"], samples["script"]) if measured else None,
        measure="rows/s",
        ours=samples["bulk"],
        peer=samples.get("script"),
        note=(
            f"the script did {rows:,} rows, its start and the model's not counted; it cuts long rows off"
            if measured
            else "The stub is no model that the script could load."
        ),
        details={"script_rows": rows},
    )


def _unchanged(runs: Sequence[tuple[Run, Run]]) -> Line:
    first = Samples(tuple(run.seconds for run, _ in runs))
    again = Samples(tuple(run.seconds for _, run in runs))
    took = [run.job.seconds for _, run in runs]
    return Line(
        "unchanged re-run",
        "first run",
        _RERUN,
        ratio(first, again),
        measure="s",
        ours=again,
        peer=first,
        note=f"whole calls; of the re-run's {again.median:.2f} s the job itself took {median(took):.2f} s",
        details={"job_seconds": took},
    )


def _repeated(rowbeam: Rowbeam, head: int, documents: Sequence[Document]) -> Line:
    """Rows of which ``REPEATED`` have a text that another row has, too."""
    kept = documents[: max(1, round(len(documents) * (1 - REPEATED)))]
    rows = [kept[place % len(kept)] for place in range(len(documents))]
    Random("repeated").shuffle(rows)  # noqa: S311 - sample data, no secret
    insert(rowbeam, rows, client_id=2)
    distinct = len(set(_pieces(rowbeam, [document.text for document in rows])))
    rowbeam.add_tenant("repeated", client_id=2)
    job = _backfill(rowbeam, head, "repeated").job
    rowbeam.remove_tenant("repeated")
    sent = job.counts.chunks - job.counts.reused
    return Line(
        f"repeated texts, {REPEATED:.0%} of {len(rows):,} rows",
        "each distinct text once",
        _DISTINCT,
        sent / distinct,
        measure="texts",
        ours=Samples((float(sent),)),
        peer=Samples((float(distinct),)),
        details={"points": job.counts.chunks, "reused": job.counts.reused, "tokens": job.tokens},
    )
