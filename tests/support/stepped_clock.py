"""A database whose clock can be set, as it runs, without touching the machine's.

The functions that tell the time are shadowed by some of the same names, through the database's
``search_path``: ``now()`` and ``clock_timestamp()`` of every statement and function of ours. Tables that
are made afterwards have them in their defaults too. Postgres itself, ``pg_stat_activity`` say, keeps the real
time.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine, text

_SCHEMA = "stepped_clock"
_NAMES = ("now", "transaction_timestamp", "statement_timestamp", "clock_timestamp")
#: A sequence holds the step, in ms: changed at once, for transactions under way too, and kept by a crash.
_INSTALL = f"""
CREATE SCHEMA {_SCHEMA};
GRANT USAGE ON SCHEMA {_SCHEMA} TO PUBLIC;
CREATE SEQUENCE {_SCHEMA}.step MINVALUE -1000000000000;
GRANT SELECT ON {_SCHEMA}.step TO PUBLIC;
SELECT setval('{_SCHEMA}.step', 0);
"""


class SteppedClock:
    """The clock of the database of ``engine``, whose connections must not be in use when this is made."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        database = engine.url.database
        with engine.begin() as connection:
            connection.execute(text(_INSTALL))
            for name in _NAMES:
                body = f"SELECT pg_catalog.{name}() + last_value * interval '1 ms' FROM {_SCHEMA}.step"
                connection.execute(
                    text(
                        f"CREATE FUNCTION {_SCHEMA}.{name}() RETURNS timestamptz LANGUAGE sql"
                        f" {'VOLATILE' if name == 'clock_timestamp' else 'STABLE'} AS $${body}$$"
                    )
                )
            connection.execute(
                # What is made without a schema's name goes to the first.
                text(f'ALTER DATABASE "{database}" SET search_path = public, {_SCHEMA}, pg_catalog')
            )
        engine.dispose()

    def step(self, by: timedelta) -> None:
        """Set the clock to ``by`` beside the machine's."""
        with self._engine.begin() as connection:
            milliseconds = by // timedelta(milliseconds=1)
            connection.execute(text(f"SELECT setval('{_SCHEMA}.step', :by)"), {"by": milliseconds})
