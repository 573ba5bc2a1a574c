"""A tenant's client: rows in, searches out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final

from ray_app.client import accounting, embedding, jobs, records, searching
from ray_app.client.accounting import Model, Usage
from ray_app.client.batching import BatchSize
from ray_app.client.drivers import Connection
from ray_app.client.embedding import Embeddings
from ray_app.client.jobs import DeadLetter, Job, Plan
from ray_app.client.records import DeletedRecord, RecordState
from ray_app.client.results import UpsertResult
from ray_app.client.searching import Filter, Hits, Like, Search
from ray_app.client.upserting import Upsert
from ray_app.reports import CoverageRow

_BATCH: Final = BatchSize()


class RowbeamClient(Connection):
    """Speaks to a server for a tenant, whose key it is given. What HTTP raises is a ``ClientError``.

    Nearly every call may be repeated: an upsert and a deletion leave the same when they are done twice,
    and a backfill is started under a key of its own. So a request that fails on its way is sent again.
    """

    def upsert(
        self,
        table: str,
        rows: Iterable[Mapping[str, Any]],
        *,
        vector_types: Sequence[str] | None = None,
        key: str = "id",
        batch: BatchSize = _BATCH,
    ) -> UpsertResult:
        """Embed and index ``rows``, in order and in as many requests as it takes.

        ``key`` names the column that is the table's key. When this returns, every row that was taken is
        searchable; ``result.failed`` has those that the server refused or no request can hold.

        Raises:
            ClientError: the server cannot be used; its ``result`` says which rows it had taken.
        """
        return self._run(lambda patience: Upsert(table, vector_types, key, batch).run(patience, rows))

    def delete(self, table: str, record_id: str | int) -> DeletedRecord:
        """Take a record out of every index. A record that is not there is deleted already."""
        return self._run(lambda patience: records.delete(patience, table, record_id))

    def record(self, table: str, record_id: str | int) -> RecordState:
        """What is stored of a record. Raises NotFound when nothing is."""
        return self._run(lambda patience: records.state(patience, table, record_id))

    def search(
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
        """Records by text, by vector or by likeness, best first; ``Search`` says what each argument means."""
        asked = Search(text, vector, like, tables, vector_type, filters, limit, score_threshold, hybrid)
        return self._run(lambda patience: searching.search(patience, asked))

    def embed(
        self, texts: Sequence[str], *, model: str, dimensions: int | None = None, truncate: bool = False
    ) -> Embeddings:
        """One vector for each of ``texts``, in order.

        ``truncate`` embeds the beginning of a text that is too long, which is refused otherwise.
        """
        return self._run(
            lambda patience: embedding.embed(patience, texts, model, dimensions, truncate=truncate)
        )

    def models(self) -> list[Model]:
        """The models served here, the default one first."""
        return self._run(accounting.models)

    def start_backfill(
        self,
        tables: Sequence[str] | None = None,
        *,
        vector_types: Sequence[str] | None = None,
        prefer: str | None = None,
        idempotency_key: str | None = None,
        budget: Decimal | None = None,
        max_tokens: int | None = None,
    ) -> Job:
        """Embed what is new or changed in the tenant's tables, as a job; all tables unless named.

        It stops before it exceeds ``budget`` (US dollars) or ``max_tokens``.

        With an ``idempotency_key`` of your own a second call finds the first one's job, whenever it is made.
        """
        return self._run(
            lambda patience: jobs.start(
                patience, tables, vector_types, prefer, idempotency_key, budget, max_tokens
            )
        )

    def plan_backfill(
        self,
        tables: Sequence[str] | None = None,
        *,
        vector_types: Sequence[str] | None = None,
        prefer: str | None = None,
    ) -> Plan:
        """What a backfill would do and cost; changes nothing."""
        return self._run(lambda patience: jobs.plan(patience, tables, vector_types, prefer))

    def backfill(self, job_id: str) -> Job:
        """The job as it stands."""
        return self._run(lambda patience: jobs.get(patience, job_id))

    def backfills(self, *, active: bool = False, limit: int = 20) -> list[Job]:
        """The newest jobs, newest first; with ``active`` only those that have not ended."""
        return self._run(lambda patience: jobs.newest(patience, limit, active=active))

    def cancel_backfill(self, job_id: str) -> Job:
        """Stop the job at the end of the batches in flight; wait for it to see it stopped."""
        return self._run(lambda patience: jobs.cancel(patience, job_id))

    def resume_backfill(
        self, job_id: str, *, budget: Decimal | None = None, max_tokens: int | None = None
    ) -> Job:
        """Go on with a job that stopped; a budget is for the whole job, what it has spent included."""
        return self._run(lambda patience: jobs.resume(patience, job_id, budget, max_tokens))

    def wait_for_backfill(
        self,
        job_id: str,
        *,
        every: float = 2.0,
        at_most: float | None = None,
        watch: Callable[[Job], None] | None = None,
    ) -> Job:
        """The job when it has ended, in whatever way: ``state`` says how. All in seconds.

        ``watch`` is given the job each time it is looked at.

        Raises:
            StillRunning: it has not ended after ``at_most``; it goes on.
        """
        return self._run(lambda patience: jobs.wait(patience, job_id, every, at_most, watch))

    def dead_letters(self, *, limit: int = 100) -> list[DeadLetter]:
        """Records that could not be embedded, oldest first."""
        return self._run(lambda patience: jobs.dead_letters(patience, limit))

    def redrive(self) -> Job | None:
        """Try the dead letters again, as a job; None when there are none."""
        return self._run(jobs.redrive)

    def coverage(self) -> list[CoverageRow]:
        """How much of each index is in step with its table."""
        return self._run(accounting.coverage)

    def usage(self, first: date | None = None, last: date | None = None) -> Usage:
        """Texts, tokens and cost by day (UTC), both days included; this month's unless said."""
        return self._run(lambda patience: accounting.usage(patience, first, last))
