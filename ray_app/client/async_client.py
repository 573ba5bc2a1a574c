"""A tenant's asynchronous client; its methods do what those of ``RowbeamClient`` do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final

from ray_app.client import accounting, embedding, jobs, records, searching
from ray_app.client.accounting import Model, Usage
from ray_app.client.batching import BatchSize
from ray_app.client.drivers import AsyncConnection
from ray_app.client.embedding import Embeddings
from ray_app.client.jobs import DeadLetter, Job, Plan
from ray_app.client.records import DeletedRecord, RecordState
from ray_app.client.results import UpsertResult
from ray_app.client.searching import Filter, Hits, Like, Search
from ray_app.client.upserting import Upsert
from ray_app.reports import CoverageRow

_BATCH: Final = BatchSize()


class AsyncRowbeamClient(AsyncConnection):
    """``RowbeamClient`` for asyncio: one client, in one event loop, for any number of tasks."""

    async def upsert(
        self,
        table: str,
        rows: Iterable[Mapping[str, Any]],
        *,
        vector_types: Sequence[str] | None = None,
        key: str = "id",
        batch: BatchSize = _BATCH,
    ) -> UpsertResult:
        return await self._run(lambda patience: Upsert(table, vector_types, key, batch).run(patience, rows))

    async def delete(self, table: str, record_id: str | int) -> DeletedRecord:
        return await self._run(lambda patience: records.delete(patience, table, record_id))

    async def record(self, table: str, record_id: str | int) -> RecordState:
        return await self._run(lambda patience: records.state(patience, table, record_id))

    async def search(
        self,
        text: str | None = None,
        *,
        vector: Sequence[float] | None = None,
        like: Like | None = None,
        tables: Sequence[str] | None = None,
        vector_type: str = "content",
        filters: Sequence[Filter] = (),
        limit: int = 10,
        score_threshold: float | None = None,
        hybrid: bool = False,
    ) -> Hits:
        asked = Search(text, vector, like, tables, vector_type, filters, limit, score_threshold, hybrid)
        return await self._run(lambda patience: searching.search(patience, asked))

    async def embed(
        self, texts: Sequence[str], *, model: str, dimensions: int | None = None, truncate: bool = False
    ) -> Embeddings:
        return await self._run(
            lambda patience: embedding.embed(patience, texts, model, dimensions, truncate=truncate)
        )

    async def models(self) -> list[Model]:
        return await self._run(accounting.models)

    async def start_backfill(
        self,
        tables: Sequence[str] | None = None,
        *,
        vector_types: Sequence[str] | None = None,
        prefer: str | None = None,
        idempotency_key: str | None = None,
        budget: Decimal | None = None,
        max_tokens: int | None = None,
    ) -> Job:
        return await self._run(
            lambda patience: jobs.start(
                patience, tables, vector_types, prefer, idempotency_key, budget, max_tokens
            )
        )

    async def plan_backfill(
        self,
        tables: Sequence[str] | None = None,
        *,
        vector_types: Sequence[str] | None = None,
        prefer: str | None = None,
    ) -> Plan:
        return await self._run(lambda patience: jobs.plan(patience, tables, vector_types, prefer))

    async def backfill(self, job_id: str) -> Job:
        return await self._run(lambda patience: jobs.get(patience, job_id))

    async def backfills(self, *, active: bool = False, limit: int = 20) -> list[Job]:
        return await self._run(lambda patience: jobs.newest(patience, limit, active=active))

    async def cancel_backfill(self, job_id: str) -> Job:
        return await self._run(lambda patience: jobs.cancel(patience, job_id))

    async def resume_backfill(
        self, job_id: str, *, budget: Decimal | None = None, max_tokens: int | None = None
    ) -> Job:
        return await self._run(lambda patience: jobs.resume(patience, job_id, budget, max_tokens))

    async def wait_for_backfill(
        self,
        job_id: str,
        *,
        every: float = 2.0,
        at_most: float | None = None,
        watch: Callable[[Job], None] | None = None,
    ) -> Job:
        return await self._run(lambda patience: jobs.wait(patience, job_id, every, at_most, watch))

    async def dead_letters(self, *, limit: int = 100) -> list[DeadLetter]:
        return await self._run(lambda patience: jobs.dead_letters(patience, limit))

    async def redrive(self) -> Job | None:
        return await self._run(jobs.redrive)

    async def coverage(self) -> list[CoverageRow]:
        return await self._run(accounting.coverage)

    async def usage(self, first: date | None = None, last: date | None = None) -> Usage:
        return await self._run(lambda patience: accounting.usage(patience, first, last))
