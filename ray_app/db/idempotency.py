"""Idempotency keys of jobs: a request that is repeated under its key finds the job it made.

The unique index on (tenant, key) settles races. A key is kept as long as its job, so a repeat
finds it also after it ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError

from ray_app.budgets import JobLimits
from ray_app.db.schema import jobs
from ray_app.errors import ConflictError, InputError

MAX_KEY: Final = 255
_INDEX: Final = "uq_jobs_idempotency_key"


@dataclass(frozen=True)
class Asked:
    """A request as its caller made it, before defaults were filled in: what a repeat must equal.

    The defaults are left out because they change with the tables there are.
    """

    key: str
    kind: str
    tables: tuple[str, ...] | None
    vector_types: tuple[str, ...] | None
    prefer: str | None
    limits: JobLimits

    @classmethod
    def of(
        cls,
        key: str,
        kind: str,
        tables: Iterable[str] | None,
        vector_types: Iterable[str] | None,
        prefer: str | None,
        limits: JobLimits | None = None,
    ) -> Asked:
        """Names are sets: neither order nor repetition makes another request.

        Raises:
            InputError: the key is not 1 to ``MAX_KEY`` printable ASCII characters.
        """
        if not (1 <= len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
            raise InputError(
                "The idempotency key cannot be used.",
                hint=f"Use 1 to {MAX_KEY} printable ASCII characters, such as a UUID.",
            )
        return cls(key, kind, _names(tables), _names(vector_types), prefer, limits or JobLimits())

    def to_json(self) -> dict[str, Any]:
        """Without the key, which has a column of its own."""
        asked = {
            "kind": self.kind,
            "tables": None if self.tables is None else list(self.tables),
            "vector_types": None if self.vector_types is None else list(self.vector_types),
            "prefer": self.prefer,
        }
        # Only where there are some: requests of before there were any stay what they were.
        return {**asked, "limits": self.limits.to_json()} if self.limits.given else asked


def _names(names: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(sorted({str(name) for name in names}))


def find_job(engine: Engine, incarnation: UUID, asked: Asked) -> str | None:
    """The job that the tenant's earlier request under this key made.

    Raises:
        ConflictError: that request was a different one.
    """
    with engine.connect() as connection:
        row = connection.execute(
            select(jobs.c.job_id, jobs.c.request).where(
                jobs.c.incarnation == incarnation, jobs.c.idempotency_key == asked.key
            )
        ).one_or_none()
    if row is None:
        return None
    if row.request.get("asked") != asked.to_json():
        raise ConflictError(
            "The idempotency key was used for a different request.", hint="Use a new key for a new request."
        )
    return str(row.job_id)


def is_repeat(error: IntegrityError) -> bool:
    """Whether a job was refused because another has its key."""
    cause = error.orig
    return isinstance(cause, psycopg.errors.UniqueViolation) and cause.diag.constraint_name == _INDEX
