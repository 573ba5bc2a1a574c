"""The same job on more Ray nodes: rows a second against nodes, with an encoder of a fixed latency.

Starts 1, 2 and 4 nodes of ``ray.cluster_utils.Cluster`` on this machine, each with the logical CPUs
of one encoder and its share of the readers, and backfills generated rows through the stub model
that sleeps for each call. Sleeping encoders leave the cores to Ray, Postgres and the store, so what
is seen is whether the pipeline keeps more encoders busy, not how many cores there are. The rate is
that of the steady part of the job; the start of its workers is told apart.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import IO, Any, Final

import psutil

from jobs.benchmark.lines import Line, Samples, Target, in_turns, ratio
from jobs.benchmark.marks import read_marks, steady_rate
from jobs.benchmark.report import say
from jobs.benchmark.site import INSERT
from ray_app.app import Rowbeam
from ray_app.reports import JobState
from ray_app.settings import Settings, child_environment
from ray_app.spaces import BATCH_SIZE, Preference
from ray_app.stack.ray_token import ray_variables

NODES: Final = (1, 2, 4)
#: Logical CPUs of a node: one encoder of ``jobs.pipeline.ENCODER_CPUS``, and one for readers and writer.
NODE_CPUS: Final = 5
#: Milliseconds of one encoder call: four encoders together stay far below what two cores can write.
LATENCY_MS: Final = 2000.0
#: Ranges for each encoder.
ROUNDS_OF_ENCODERS: Final = 14
TARGET: Final = Target(0.85)
#: Seconds for the cluster to stop.
_STOP_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Run:
    """One job."""

    nodes: int
    rows: int
    rows_per_second: float
    #: From the job's start to the first written range.
    start_seconds: float
    #: Of all of the machine's cores, the mean over the job.
    cores_busy: float


@dataclass
class ScaleSite:
    """A cluster and a database to run jobs in, each for a tenant of its own."""

    rowbeam: Rowbeam
    requests: IO[str]
    answers: IO[str]
    ranges: int
    runs: list[Run] = field(default_factory=list)

    def measure(self, nodes: int) -> float:
        """Rows a second of a job on so many nodes. Raises RuntimeError when it does not succeed."""
        rows = nodes * self.ranges * BATCH_SIZE[Preference.FAST]
        tenant, client = f"scale-{len(self.runs)}", len(self.runs) + 1
        self.rowbeam.add_tenant(tenant, client_id=client)
        ledger = self.rowbeam.workspace.ledger
        with ledger.begin() as connection:
            connection.execute(INSERT, {"rows": rows, "client": client})
        before, began = psutil.cpu_times(), time.monotonic()
        self.requests.write(json.dumps({"nodes": nodes, "tenant": tenant}) + "\n")
        self.requests.flush()
        answer = json.loads(self.answers.readline() or '{"error": "the cluster broke; see above"}')
        if answer.get("state") != JobState.SUCCEEDED:
            raise RuntimeError(f"The job on {nodes} nodes did not succeed: {answer['error']}")
        busy = _busy(before, psutil.cpu_times()) / (time.monotonic() - began) / (psutil.cpu_count() or 1)
        marks, job = read_marks(ledger, answer["job_id"]), self.rowbeam.job(answer["job_id"])
        if job.counts.embedded != rows or job.started_at is None:
            raise RuntimeError(f"The job did not embed every row: {job}")
        start = marks[0].at - job.started_at.timestamp()
        rate = steady_rate(marks, nodes)
        self.runs.append(Run(nodes, rows, round(rate, 1), round(start, 1), round(busy, 2)))
        say(f"scale: {nodes} nodes, {rate:.0f} rows/s")
        return rate

    def measure_node(self, nodes: int) -> float:
        """As ``measure``, for each node."""
        return self.measure(nodes) / nodes


@contextmanager
def scale_site(latency_ms: float, ranges: int) -> Iterator[ScaleSite]:
    """A cluster of one node and a database, both gone at the end."""
    with tempfile.TemporaryDirectory(prefix="rowbeam-bench-", ignore_cleanup_errors=True) as home:
        settings = Settings(home=Path(home), local_model=f"stub:{latency_ms:g}")
        # Ray starts a worker for every logical CPU of a node ahead of need unless it is told not to.
        variables = ray_variables(settings) | {"RAY_prestart_worker_first_driver": "0"}
        with Rowbeam.open(settings) as rowbeam:
            child = subprocess.Popen(
                [sys.executable, "-m", "jobs.benchmark.nodes", "--cpus", str(NODE_CPUS)],
                env=child_environment(settings) | variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            try:
                if child.stdin is None or child.stdout is None:
                    raise RuntimeError("The cluster's process has no pipes.")
                yield ScaleSite(rowbeam, child.stdin, child.stdout, ranges)
            finally:
                _stop(child)


def _stop(child: subprocess.Popen[str]) -> None:
    """End its input, which stops the cluster."""
    if child.stdin is not None:
        with suppress(BrokenPipeError):  # it has ended
            child.stdin.close()
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.terminate()  # Ray's own exit hook stops the nodes
        child.wait(_STOP_SECONDS)


def _busy(before: Any, after: Any) -> float:
    """Seconds of all cores together that were not idle."""
    idle = sum(getattr(after, name) - getattr(before, name) for name in ("idle", "iowait"))
    return float(sum(after) - sum(before) - idle)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, nargs="+", default=NODES, help="the first is compared with")
    parser.add_argument("--latency-ms", type=float, default=LATENCY_MS, help="of one encoder call")
    parser.add_argument("--ranges", type=int, default=ROUNDS_OF_ENCODERS, help="of rows, for each node")


def lines(args: argparse.Namespace) -> Iterator[Line]:
    """Efficiency at the most nodes: rows a second of each node, against the first count's."""
    say(f"scale: jobs on {', '.join(map(str, args.nodes))} nodes, {args.rounds} rounds")
    with scale_site(args.latency_ms, args.ranges) as site:
        taken = in_turns({str(nodes): partial(site.measure_node, nodes) for nodes in args.nodes}, args.rounds)
        runs = site.runs
    most, fewest = args.nodes[-1], args.nodes[0]
    yield Line(
        what=f"the same job on {most} Ray nodes, each",
        against=f"on {fewest} Ray node",
        target=TARGET,
        value=ratio(taken[str(most)], taken[str(fewest)]),
        measure="rows/s of a node",
        ours=taken[str(most)],
        peer=taken[str(fewest)],
        note=f"all nodes on this machine; the encoder sleeps {args.latency_ms / 1000:g} s for each call",
        details=details(args.nodes, taken, runs),
    )


def details(nodes: Sequence[int], taken: Mapping[str, Samples], runs: Sequence[Run]) -> dict[str, Any]:
    """The curve: one value for each of ``nodes``, whose samples of rows/s of a node are ``taken``."""
    base = taken[str(nodes[0])]
    return {
        "nodes": list(nodes),
        "rows_per_second": [round(taken[str(count)].median * count, 1) for count in nodes],
        "efficiency": [round(ratio(taken[str(count)], base), 3) for count in nodes],
        "start_seconds": [median(run.start_seconds for run in runs if run.nodes == count) for count in nodes],
        "cores_busy": [median(run.cores_busy for run in runs if run.nodes == count) for count in nodes],
        "logical_cpus_of_a_node": NODE_CPUS,
    }
