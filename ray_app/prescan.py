"""Settle what has not changed before any actor starts.

A second backfill of an unchanged table is the common case, and starting Ray for it would cost more
than the work. Rows are hashed by Postgres and compared with the hashes of the rows that vectors were
made of; only rows that differ are read. Ranges in which nothing has to be written are marked done, the
rest go to the pipeline. It gives up on an index that turns out to be mostly changed and after
``BUDGET`` seconds, since many readers compare faster than one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from sqlalchemy import Engine

from ray_app.db import ranges
from ray_app.db.generations import indexes_of_job
from ray_app.db.ranges import RangeSpec
from ray_app.diff import Diff, Sighting
from ray_app.reading import RangeReader
from ray_app.reports import Counts
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace

#: Seconds of single-threaded comparing before the pipeline takes over.
BUDGET: Final = 20.0
#: Ranges looked at before an index may be given up on.
TRIAL: Final = 20
#: Rows whose outcomes are sought at once.
BLOCK_ROWS: Final = 500
#: Ranges settled in one transaction.
BATCH: Final = 500


@dataclass(frozen=True)
class Settlement:
    """What of a job is settled."""

    left: list[RangeSpec]
    #: Outcomes of the records that are settled now, by table.
    counts: Mapping[str, Counts]


def settle_job(workspace: Workspace, job_id: str, tenant: Tenant, budget: float = BUDGET) -> Settlement:
    """Settle the clean ranges of a taken job, for about ``budget`` seconds."""
    deadline = time.monotonic() + budget
    indexes = indexes_of_job(workspace.ledger, job_id, tenant.incarnation)
    left: list[RangeSpec] = []
    counts: dict[str, Counts] = {}
    pending = ranges.pending(workspace.ledger, job_id)
    for where, group in groupby(pending, key=lambda item: (item.table, item.vector_type)):
        work = list(group)
        settled: dict[int, Counts] = {}
        if any(item.kind == "sweep" for item in work):  # it has vectors, so there is something to compare
            reader = RangeReader(
                workspace.reader(tenant, indexes[where]),
                *(workspace.source, workspace.ledger, workspace.settings.outage_budget),
            )
            settled = settle_unchanged(reader, workspace.ledger, job_id, work, deadline)
        left += [item for item in work if item.seq not in settled]
        counts[where[0]] = sum(settled.values(), counts.get(where[0], Counts()))
    return Settlement(left, counts)


@dataclass
class _Scan:
    """How far the rows of an index have been compared."""

    clean: bool = True
    #: Records with vectors among the rows seen.
    known: int = 0
    settled: dict[int, Counts] = field(default_factory=dict)


@dataclass(frozen=True)
class _Outcome:
    seq: int
    counts: Counts
    sightings: Sequence[Sighting] = ()


def settle_unchanged(
    reader: RangeReader, ledger: Engine, job_id: str, work: Sequence[RangeSpec], deadline: float
) -> dict[int, Counts]:
    """Mark the clean ranges among ``work`` (all of one index, in order) done; returns their counts by number.

    ``deadline`` is on the clock of ``time.monotonic``.
    """
    scan = _Scan()
    rows = [item for item in work if item.kind == "rows"]
    runs = _runs(rows)
    for run in runs:
        _settle(reader, ledger, job_id, _compare_rows(reader, run, deadline, scan), scan)
    sweeps = [item for item in work if item.kind == "sweep"]
    whole = len(runs) == 1 and rows[0].lo is None and rows[-1].hi is None
    if whole and scan.clean and scan.known == reader.records():
        # Every record of the ledger was met as a row, so none is gone.
        outcomes = iter([_Outcome(item.seq, Counts()) for item in sweeps])
    else:
        outcomes = _sweep(reader, sweeps, deadline)
    _settle(reader, ledger, job_id, outcomes, scan)
    return scan.settled


def _settle(
    reader: RangeReader, ledger: Engine, job_id: str, outcomes: Iterator[_Outcome], scan: _Scan
) -> None:
    for batch in _batches(outcomes):
        with ledger.begin() as connection:
            reader.recognise(connection, [item for outcome in batch for item in outcome.sightings])
            ranges.finish(connection, job_id, [(outcome.seq, outcome.counts) for outcome in batch])
        scan.settled |= {outcome.seq: outcome.counts for outcome in batch}


def _runs(work: Sequence[RangeSpec]) -> list[list[RangeSpec]]:
    """``work`` cut where ranges do not adjoin, because what was between them is done."""
    runs: list[list[RangeSpec]] = []
    for item in work:
        if runs and runs[-1][-1].hi is not None and runs[-1][-1].hi == item.lo:
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs


def _compare_rows(
    reader: RangeReader, work: list[RangeSpec], deadline: float, scan: _Scan
) -> Iterator[_Outcome]:
    """Clean ranges with their counts. Reads across range borders: a page is larger than a range."""
    place, dirty, diff = 0, 0, Diff()
    for record, recognised, outcome in _diffs(reader, work[0].lo, work[-1].hi, deadline, scan):
        diff.unchanged += recognised
        if outcome is not None:
            diff.add(outcome)
        if record == work[place].hi:
            if diff.clean:
                yield _Outcome(work[place].seq, diff.counts, diff.sightings)
            dirty += not diff.clean
            scan.clean &= diff.clean
            place, diff = place + 1, Diff()
            if place == len(work):
                return
            if place >= TRIAL and dirty * 2 > place:
                scan.clean = False
                return
    # Only when every border was seen is what is left the last range, and all of it.
    if place == len(work) - 1 and diff.clean and time.monotonic() < deadline:
        yield _Outcome(work[place].seq, diff.counts, diff.sightings)
    else:
        scan.clean = False


def _diffs(
    reader: RangeReader, lo: str | None, hi: str | None, deadline: float, scan: _Scan
) -> Iterator[tuple[str, bool, Diff | None]]:
    """The rows of (lo, hi] in order, each with whether it is recognised, else with its outcome.

    A row that has gone meanwhile has neither. Ends early at the deadline.
    """
    more: str | None = lo
    while time.monotonic() < deadline:
        page, more = reader.hashes(more, hi)
        for start in range(0, len(page), BLOCK_ROWS):
            if time.monotonic() >= deadline:
                return
            block = page[start : start + BLOCK_ROWS]
            compared = _compared(reader, [record for record, recognised in block if not recognised], scan)
            for record, recognised in block:
                scan.known += recognised
                yield record, recognised, compared.get(record)
        if more is None:
            return


def _compared(reader: RangeReader, ids: Sequence[str], scan: _Scan) -> dict[str, Diff]:
    found: dict[str, Diff] = {}
    for rows in reader.rows_of(ids) if ids else ():
        known, dead = reader.lookup(rows)
        scan.known += len(known)
        found |= {row.record_id: reader.compare([row], known, dead) for row in rows}
    return found


def _sweep(reader: RangeReader, work: Sequence[RangeSpec], deadline: float) -> Iterator[_Outcome]:
    for item in work:
        if time.monotonic() >= deadline:
            return
        gone, _, rest = reader.gone(item.lo, item.hi)
        if not gone and rest is None:
            yield _Outcome(item.seq, Counts())


def _batches(outcomes: Iterator[_Outcome]) -> Iterator[list[_Outcome]]:
    batch: list[_Outcome] = []
    for outcome in outcomes:
        batch.append(outcome)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
