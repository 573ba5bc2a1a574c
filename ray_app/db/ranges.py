"""The key ranges that a job's work is cut into, and their settlement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import ARRAY, BigInteger, Connection, Engine, Integer, func, insert, literal, select, update

from ray_app.db.schema import job_budgets, jobs, ranges
from ray_app.errors import LostJob
from ray_app.parts import Part, covers
from ray_app.reports import Counts, JobState

#: How long a range counts as being read; shown to operators, while the job's run is what fences.
LEASE: Final = timedelta(seconds=60)
_COUNTS: Final = tuple(Counts.__dataclass_fields__)


@dataclass(frozen=True)
class RangeSpec:
    """One range of a job.

    ``kind`` is ``rows`` (read the table), ``sweep`` (look for ledger records whose row is gone) or
    ``ids`` (read the records named in ``keys``).
    """

    kind: str
    table: str
    vector_type: str
    lo: str | None
    hi: str | None
    expected: int
    keys: tuple[str, ...] | None = None
    seq: int = 0


def add(connection: Connection, job_id: str, work: Sequence[RangeSpec]) -> None:
    """Give a new job its ranges, in the order they will be done."""
    if not work:
        return
    connection.execute(
        insert(ranges),
        [
            {
                "job_id": job_id,
                "seq": seq,
                "kind": item.kind,
                "table_name": item.table,
                "vector_type": item.vector_type,
                "lo": item.lo,
                "hi": item.hi,
                "keys": list(item.keys) if item.keys is not None else None,
                "expected": item.expected,
            }
            for seq, item in enumerate(work)
        ],
    )


def reset(connection: Connection, job_id: str) -> None:
    """Start ranges over that are not done."""
    connection.execute(
        update(ranges)
        .where(ranges.c.job_id == job_id, ranges.c.state != "done")
        .values(state="pending", parts=[], lease_until=None, **dict.fromkeys(_COUNTS, 0))
    )


def pending(engine: Engine, job_id: str) -> list[RangeSpec]:
    """Ranges still to do, in order."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(ranges).where(ranges.c.job_id == job_id, ranges.c.state != "done").order_by(ranges.c.seq)
        ).all()
    return [
        RangeSpec(
            row.kind,
            row.table_name,
            row.vector_type,
            row.lo,
            row.hi,
            row.expected,
            tuple(row.keys) if row.keys is not None else None,
            row.seq,
        )
        for row in rows
    ]


def is_running(connection: Connection, job_id: str, run: int) -> bool:
    """Whether this run of the job goes on: not cancelled, over, driven by another or at its budget."""
    row = connection.execute(
        select(jobs.c.state, job_budgets.c.reached)
        .outerjoin_from(jobs, job_budgets, jobs.c.job_id == job_budgets.c.job_id)
        .where(jobs.c.job_id == job_id, jobs.c.run == run)
    ).one_or_none()
    return row is not None and row.state == JobState.RUNNING and not row.reached


def lease(connection: Connection, job_id: str, run: int, seq: int) -> bool:
    """Mark a range as being worked on; False, and nothing marked, when the job is to go no further."""
    if not is_running(connection, job_id, run):
        return False
    connection.execute(
        update(ranges)
        .where(ranges.c.job_id == job_id, ranges.c.seq == seq, ranges.c.state != "done")
        .values(state="leased", lease_until=func.now() + LEASE)
    )
    return True


def settle_part(connection: Connection, part: Part) -> bool:
    """Count a part whose points and ledger rows this transaction writes; the last one ends its range.

    Returns False, and counts nothing, when the part was counted before (Ray repeats calls).

    Raises:
        LostJob: the part belongs to an earlier run, or the job has ended.
    """
    key = part.key
    state = connection.scalar(
        select(jobs.c.state)
        .where(jobs.c.job_id == key.job_id, jobs.c.run == key.run)
        .with_for_update(read=True)
    )
    if state not in (JobState.RUNNING, JobState.CANCEL_REQUESTED):
        raise LostJob(f"A late part of job {key.job_id} was refused.")
    row = connection.execute(
        select(ranges).where(ranges.c.job_id == key.job_id, ranges.c.seq == key.seq).with_for_update()
    ).one()
    parts = [(lo, hi) for lo, hi in row.parts]
    if any(lo == key.lo for lo, _ in parts):
        return False
    parts.append((key.lo, key.hi))
    done = covers(row.lo, row.hi, parts)
    connection.execute(
        update(ranges)
        .where(ranges.c.job_id == key.job_id, ranges.c.seq == key.seq)
        .values(
            parts=parts,
            state="done" if done else "leased",
            finished_at=func.now() if done else None,
            **{name: ranges.c[name] + getattr(part.counts, name) for name in _COUNTS},
        )
    )
    return True


def finish(connection: Connection, job_id: str, outcomes: Sequence[tuple[int, Counts]]) -> None:
    """Mark ranges as done that needed no write."""
    if not outcomes:
        return
    numbers = literal([seq for seq, _ in outcomes], ARRAY(Integer))
    counted = (
        literal([getattr(counts, name) for _, counts in outcomes], ARRAY(BigInteger)) for name in _COUNTS
    )
    outcome = func.unnest(numbers, *counted).table_valued("seq", *_COUNTS).render_derived("outcome")
    connection.execute(
        update(ranges)
        .where(ranges.c.job_id == job_id, ranges.c.seq == outcome.c.seq)
        .values(state="done", finished_at=func.now(), **{name: outcome.c[name] for name in _COUNTS})
    )
