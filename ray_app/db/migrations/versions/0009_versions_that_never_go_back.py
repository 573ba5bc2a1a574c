"""Versions of points that go on growing when the database's clock is set back.

``next_version`` hands out the clock, in microseconds since 1970, or one more than the last version where that
is greater. A sequence keeps the last one: it is changed at once, and for good, whatever becomes of the
transaction. An advisory lock makes reading and setting it one step; the inner block is always rolled back, which
lets go of the lock there and then, also when the call is cancelled. A clock beyond the year 2255 is not
followed: the store's guard compares versions below 2^53, and a sequence does not come back.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_FUNCTION = """
CREATE FUNCTION rowbeam.next_version() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    clock bigint;
    version bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('rowbeam:versions', 0));
    clock := least(extract(epoch FROM clock_timestamp()) * 1000000, 9000000000000000);
    version := greatest(nextval('rowbeam.versions'), clock);
    PERFORM setval('rowbeam.versions', version);
    RAISE EXCEPTION SQLSTATE 'RB001';
EXCEPTION WHEN SQLSTATE 'RB001' THEN
    RETURN version;
END
$$
"""


def upgrade() -> None:
    op.execute(sa.schema.CreateSequence(sa.Sequence("versions", schema="rowbeam")))
    op.execute("SELECT setval('rowbeam.versions', greatest(max(version), 1)) FROM rowbeam.qdrant_vectors")
    op.execute(_FUNCTION)
