"""From when on rows have to be read again, so that no transaction commits behind it. Pure.

A row's ``updated_at`` says when it was written, not when it was committed. A transaction that began
before a sync and commits after it leaves rows with times that the sync has passed. So the next watermark
is no later than the beginning of the oldest transaction that is open while the sync begins to read, and
behind that by an overlap, since applications set times by clocks of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Activity:
    """What was under way in the source's database, looked up after its clock and before any row."""

    clock: datetime
    #: When the oldest open transaction began, of those whose beginning the role may see.
    oldest: datetime | None = None
    #: Virtual ids of open transactions whose beginning it may not see.
    unseen: frozenset[str] = frozenset()
    #: Whether transactions are prepared for a commit in two phases: nobody knows when those began.
    prepared: bool = False
    #: Whether it is a standby: transactions of the primary cannot be seen there.
    standby: bool = False


@dataclass(frozen=True)
class Mark:
    """What a sync leaves for the next one of the same index."""

    #: Rows with an ``updated_at`` before this need not be read; None when all have to.
    watermark: datetime | None
    #: The source's clock when the sync began.
    read_at: datetime
    unseen: frozenset[str] = frozenset()


def next_mark(activity: Activity, last: Mark | None, overlap: timedelta) -> Mark:
    """The mark of a sync that began at ``activity`` and has seen every row it had to since ``last``.

    A transaction whose beginning cannot be seen began after the last sync if it was not open then, and
    otherwise the last sync's own watermark is before its beginning, by induction. With no last sync there is
    nothing to go by, and the next one compares the whole table again.
    """
    return Mark(_watermark(activity, last, overlap), activity.clock, activity.unseen)


def _watermark(activity: Activity, last: Mark | None, overlap: timedelta) -> datetime | None:
    if activity.standby:
        return None
    bounds = [activity.clock] if activity.oldest is None else [activity.clock, activity.oldest]
    if last is None:
        return None if activity.unseen or activity.prepared else min(bounds) - overlap
    if activity.unseen:
        bounds.append(last.read_at)
    watermark = min(bounds) - overlap
    if activity.prepared or activity.unseen & last.unseen:
        return None if last.watermark is None else min(watermark, last.watermark)
    return watermark
