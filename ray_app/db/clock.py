"""The ledger's clock: the time it has now, and versions, which never go back when it does.

Clocks are set: by NTP, by hand, by a machine that is restored. Versions order what was read and pushed, so
they come from the ledger's function ``next_version``: the clock, or one more than the last version where the
clock is behind that (a hybrid logical clock: Kulkarni and others, OPODIS 2014). It holds no lock once it has
answered, and a version stays handed out when its transaction is rolled back.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine, func, select, text

#: How far a time may be ahead of the ledger's clock and still be believed: clocks of applications differ.
AHEAD: Final = timedelta(minutes=10)


def next_version(connection: Connection) -> int:
    """A version greater than every one before it, in microseconds since 1970: of what is read next, or
    written now under locks. ``connection`` is one of the ledger."""
    return int(connection.execute(text("SELECT rowbeam.next_version()")).scalar_one())


def now(connection: Connection) -> datetime:
    """What the database's clock shows."""
    moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return moment


def left_of(engine: Engine, since: datetime, seconds: float) -> float:
    """What is left of ``seconds`` from ``since`` on: all of them where the clock was set back before it."""
    with engine.connect() as connection:
        elapsed = (now(connection) - since).total_seconds()
    return seconds - min(max(elapsed, 0.0), seconds)
