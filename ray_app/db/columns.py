"""What the ledger's tables are made of: their schema, and columns that many of them have."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, MetaData, func
from sqlalchemy.dialects.postgresql import UUID

SCHEMA: Final = "rowbeam"
metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    },
)


def moment(name: str, *, null: bool = False) -> Column[object]:
    """A point in time, now unless told; with ``null`` unknown unless told."""
    return Column(name, DateTime(timezone=True), nullable=null, server_default=None if null else func.now())


def tenant() -> Column[object]:
    """Whose row it is."""
    return Column("incarnation", UUID(as_uuid=True), ForeignKey("tenants.incarnation"), nullable=False)


def count(name: str) -> Column[object]:
    """A number that begins with 0."""
    return Column(name, BigInteger, nullable=False, server_default="0")
