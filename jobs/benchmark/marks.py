"""When the ranges of a job were written, as the ledger dates them, and the speeds that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, select

from ray_app.db.schema import ranges


@dataclass(frozen=True)
class Mark:
    """A range's rows were written, ``at`` seconds since 1970."""

    at: float
    rows: int


def read_marks(ledger: Engine, job_id: str) -> list[Mark]:
    """The written ranges of a job, in the order in which they were."""
    query = (
        select(ranges.c.finished_at, ranges.c.read)
        .where(ranges.c.job_id == job_id, ranges.c.finished_at.is_not(None), ranges.c.read > 0)
        .order_by(ranges.c.finished_at, ranges.c.seq)
    )
    with ledger.connect() as connection:
        return [Mark(row.finished_at.timestamp(), row.read) for row in connection.execute(query)]


def steady_rate(marks: Sequence[Mark], encoders: int) -> float:
    """Rows a second while all of ``encoders`` were at work.

    That is in the second half of the marks, up to the one after which fewer than ``encoders`` are left.
    Workers start one after another: what some had encoded before the last was there is written in a
    burst, which is over by then. Whole rounds of the encoders are counted, because they may finish all
    at once, and a piece of a round would then count for nothing or for a whole one.

    Raises:
        ValueError: too few marks for one such round.
    """
    first = len(marks) // 2 - 1
    rounds = (len(marks) - encoders - first) // encoders
    if rounds < 1:
        raise ValueError(f"{len(marks)} ranges are too few to see {encoders} encoders at work.")
    counted = marks[first + 1 : first + 1 + rounds * encoders]
    return sum(mark.rows for mark in counted) / (counted[-1].at - marks[first].at)


def rates(marks: Sequence[Mark], pieces: int) -> list[float]:
    """Rows a second in each of ``pieces`` equal spans of time, from the first mark to the last."""
    begin, end = marks[0].at, marks[-1].at
    span = (end - begin) / pieces
    rows = [0] * pieces
    for mark in marks[1:]:
        rows[min(int((mark.at - begin) / span), pieces - 1)] += mark.rows
    return [count / span for count in rows]
