"""Settle what has not changed before any actor starts.

A second backfill of an unchanged table is the common case, and starting Ray for it would cost more
than the work. The driver itself compares the ranges of indexes that have vectors and marks clean
ones done; the rest go to the pipeline. It gives up on an index that turns out to be mostly changed
and after ``BUDGET`` seconds, since many readers compare faster than one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from sqlalchemy import Engine

from ray_app.db import ranges
from ray_app.db.ranges import RangeSpec
from ray_app.diff import Diff
from ray_app.reading import RangeReader
from ray_app.reports import Counts

#: Seconds of single-threaded comparing before the pipeline takes over.
BUDGET: Final = 20.0
#: Ranges looked at before an index may be given up on.
TRIAL: Final = 20


def settle_unchanged(
    reader: RangeReader, ledger: Engine, job_id: str, work: Sequence[RangeSpec], deadline: float
) -> set[int]:
    """Mark the clean ranges among ``work`` (all of one index, in order) done; returns their numbers.

    ``deadline`` is on the clock of ``time.monotonic``.
    """
    settled: set[int] = set()
    for kind, group in groupby(work, key=lambda item: item.kind):
        if kind == "rows":
            outcomes = _compare_rows(reader, list(group), deadline)
        elif kind == "sweep":
            outcomes = _sweep(reader, list(group), deadline)
        else:
            continue
        for batch in _batches(outcomes):
            with ledger.begin() as connection:
                ranges.finish(connection, job_id, batch)
            settled |= {seq for seq, _ in batch}
    return settled


def _compare_rows(
    reader: RangeReader, work: list[RangeSpec], deadline: float
) -> Iterator[tuple[int, Counts]]:
    """Clean ranges with their counts. Reads across range borders: a page is larger than a range."""
    place, dirty, diff = 0, 0, Diff()
    lo, end = work[0].lo, work[-1].hi
    while time.monotonic() < deadline:
        page = reader.page(lo, end)
        known, dead = reader.lookup(page.rows)
        for row in page.rows:
            diff.add(reader.compare([row], known, dead))
            if row.record_id == work[place].hi:
                if diff.clean:
                    yield work[place].seq, diff.counts
                dirty += not diff.clean
                place, diff = place + 1, Diff()
                if place >= TRIAL and dirty * 2 > place:
                    return
        if page.last:
            # Only when every border was seen is what is left the last range, and all of it.
            if place == len(work) - 1 and diff.clean:
                yield work[place].seq, diff.counts
            return
        lo = page.hi


def _sweep(reader: RangeReader, work: list[RangeSpec], deadline: float) -> Iterator[tuple[int, Counts]]:
    for item in work:
        if time.monotonic() >= deadline:
            return
        gone, _, rest = reader.gone(item.lo, item.hi)
        if not gone and rest is None:
            yield item.seq, Counts()


def _batches(outcomes: Iterator[tuple[int, Counts]], size: int = 200) -> Iterator[list[tuple[int, Counts]]]:
    batch: list[tuple[int, Counts]] = []
    for outcome in outcomes:
        batch.append(outcome)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
