"""The stages of the bulk job. Plain classes: a test calls them with a dict, Ray Data with a batch."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from jobs.blocks import from_block, to_block
from ray_app.actors.cluster import has_server, worker_settings
from ray_app.actors.metrics import export_metrics
from ray_app.actors.turns import JobTurns, Terms
from ray_app.backfilling import ensure_indexes
from ray_app.db import job_budgets, ranges, usage
from ray_app.db.indexes import PinnedIndex
from ray_app.encoding import encode_part
from ray_app.errors import BudgetExhausted, JobBudgetReached, ProviderUnavailable, RowbeamError
from ray_app.logs import configure_logs, logging_for
from ray_app.metrics.counting import count_usage
from ray_app.metrics.declared import ISOLATION_VIOLATIONS, JOB
from ray_app.outage import ride_out
from ray_app.parts import Part
from ray_app.providers.port import EmbeddingProvider
from ray_app.reuse import TextReuse, stored_lookup
from ray_app.settings import Settings
from ray_app.spaces import EmbeddingSpace
from ray_app.spending import BudgetedProvider
from ray_app.tenants import Tenant
from ray_app.tracing.spans import annotate, span, start_tracing
from ray_app.tracing.spans import flush as flush_spans
from ray_app.workspace import Workspace
from ray_app.writing import PartWriter, Receipt

if TYPE_CHECKING:
    from jobs.gateway import BulkGateway

#: Niceness of what encodes a job's texts on the CPU beside a server. A thread of niceness 10 has a tenth of
#: the weight of one of niceness 0: callers' requests come first, and without any the job loses nothing.
BULK_NICENESS: Final = 10


@dataclass(frozen=True)
class JobContext:
    """What every stage must know; plain values, no secret, so it may travel through Ray."""

    fingerprint: str
    job_id: str
    run: int
    tenant: Tenant
    indexes: Sequence[PinnedIndex]
    #: The job's span; "" without tracing.
    traceparent: str = ""
    #: How its parts take turns with those of other jobs; None: they do not.
    turns: Terms | None = None
    #: Whether the job has a budget of its own.
    budgeted: bool = False

    def index(self, table: str, vector_type: str) -> PinnedIndex:
        return next(item for item in self.indexes if (item.table, item.vector_type) == (table, vector_type))

    @contextmanager
    def stage(self, name: str, table: str, vector_type: str, seq: int) -> Iterator[None]:
        """What one stage does to one part: lines and a span of this job's."""
        with (
            logging_for(job=self.job_id, incarnation=self.tenant.incarnation),
            span(name, parent=self.traceparent, table=table, vector_type=vector_type, range=seq),
        ):
            yield


def open_worker(context: JobContext) -> Settings:
    """The settings of this worker, which logs and traces from now on. Raises SettingsMismatch."""
    settings = worker_settings(context.fingerprint)
    configure_logs(settings)
    start_tracing(settings, "job")
    return settings


def open_workspace(context: JobContext) -> Workspace:
    """This worker's connections. Raises SettingsMismatch."""
    return Workspace(open_worker(context))


class EncodeStage:
    """Texts to vectors. A local model is loaded while readers start, unless there is nothing to encode.

    Readers run ahead of the model, so it is here that a range counts as begun, and that a
    cancelled job drops what has not been. Several threads may call: while the model works for one, the
    next prepares its part. Their texts are embedded once between them.
    """

    def __init__(self, context: JobContext, threads: int | None, *, warm: bool = False) -> None:
        """``threads`` of a local model, when the settings do not say; None takes all cores.

        ``warm``: load it now, in a thread, instead of at the first text.
        """
        self._context = context
        settings = open_worker(context)
        if settings.encoder_threads is None:
            settings = settings.model_copy(update={"encoder_threads": threads})
        self._workspace = Workspace(settings)
        self._gateways: dict[str, BulkGateway] = {}
        self._reuses: dict[str, TextReuse] = {}
        self._making = threading.Lock()
        self._model = threading.Lock()
        self._turns = None if context.turns is None else JobTurns(context.turns)
        self._yields = False
        self._exporter = export_metrics()
        ISOLATION_VIOLATIONS.start()
        if warm:
            threading.Thread(target=self._warm_up, name="warm-up", daemon=True).start()

    def _warm_up(self) -> None:
        for space in {index.space for index in self._context.indexes}:
            # A fault is met again at the first text, where it ends the job with its reason.
            with suppress(RowbeamError):
                provider = self._provider(space)
                if provider.name != "gateway":
                    with self._model:
                        provider.embed_query("warm-up")  # no budget is asked for it

    def __call__(self, batch: pa.Table) -> pa.Table:
        try:
            parts = (self._within_budget(part) for part in from_block(batch) if self._lease(part))
            return to_block(part for part in parts if part is not None)
        finally:
            self._exporter.flush()  # Ray ends this process without a word
            flush_spans()

    def _lease(self, part: Part) -> bool:
        def lease() -> bool:
            with self._workspace.ledger.begin() as connection:
                return ranges.lease(connection, part.key.job_id, part.key.run, part.key.seq)

        return ride_out(lease, budget=self._workspace.settings.outage_budget, what="The ledger")

    def _within_budget(self, part: Part) -> Part | None:
        """The encoded part; None, and the job on its way to stop, where its budget does not cover it.

        No error: that would end the pipeline, and with it parts which are paid for and not yet written.
        """
        try:
            return self.encode(part)
        except JobBudgetReached:
            ride_out(
                lambda: job_budgets.stop(self._workspace.ledger, part.key.job_id),
                budget=self._workspace.settings.outage_budget,
                what="The ledger",
            )
            return None

    def encode(self, part: Part) -> Part:
        if not part.texts:
            return part
        with self._context.stage("encode part", part.table, part.vector_type, part.key.seq):
            return self._encode(part)

    def _encode(self, part: Part) -> Part:
        space = self._context.index(part.table, part.vector_type).space
        provider = self._provider(space)
        annotate(texts=len(part.texts), provider=provider.name)
        try:
            return encode_part(part, provider, self._reuse(space), self._turn(provider, part.table))
        except (ProviderUnavailable, BudgetExhausted) as error:
            if error.tokens:
                tenant = self._context.tenant.incarnation
                with self._workspace.ledger.begin() as connection:
                    usage.add_failed_call(connection, tenant, space, part, provider.name, error)
                count_usage(
                    *(JOB, part.table, provider.name),
                    texts=0,
                    tokens=error.tokens,
                    cost=error.cost,
                    seconds=0.0,
                )
            raise

    def _turn(
        self, provider: EmbeddingProvider, table: str
    ) -> Callable[[Sequence[str]], AbstractContextManager[object]]:
        """What a call of the provider holds, so that its seconds are its own and no wait for another's."""
        priority = self._workspace.tables.get(table).priority

        @contextmanager
        def turn(texts: Sequence[str]) -> Iterator[None]:
            # The turn first: a part that waits for the model would keep other jobs' parts waiting.
            with (
                nullcontext() if self._turns is None else self._turns.turn(texts, priority),
                nullcontext() if provider.name == "gateway" else self._model,
            ):
                yield

        return turn

    def _reuse(self, space: EmbeddingSpace) -> TextReuse:
        with self._making:
            if space.space_id not in self._reuses:
                from ray_app.actors.stores import open_cluster_store

                workspace, scope = self._workspace, self._workspace.registry.scope(self._context.tenant)
                store = open_cluster_store(workspace.settings)
                stored = stored_lookup(workspace.ledger, store, scope, space)
                budget = workspace.settings.outage_budget
                self._reuses[space.space_id] = TextReuse(
                    space,
                    lambda hashes: ride_out(
                        lambda: stored(hashes), budget=budget, what="The ledger or the vector store"
                    ),
                )
            return self._reuses[space.space_id]

    def _provider(self, space: EmbeddingSpace) -> EmbeddingProvider:
        with self._making:
            provider = self._make_provider(space)
        if not self._context.budgeted:
            return provider
        return BudgetedProvider(
            *(provider, self._workspace.ledger, self._context.job_id),
            price=self._workspace.providers.price_per_million(space),
            outage_budget=self._workspace.settings.outage_budget,
        )

    def _make_provider(self, space: EmbeddingSpace) -> EmbeddingProvider:
        name = self._workspace.providers.provider_name(space)
        if name == "gateway":
            return self._gateway(space)
        if name != "local-gpu" and not self._yields and has_server():
            yield_to_callers()
            self._yields = True
        return self._workspace.providers.provider_for(space)

    def _gateway(self, space: EmbeddingSpace) -> EmbeddingProvider:
        from jobs.gateway import BulkGateway  # loads Ray Serve, which a local model has no use for

        if space.space_id not in self._gateways:
            context = self._context
            self._gateways[space.space_id] = BulkGateway(
                *(self._workspace, space, context.tenant.incarnation, context.job_id),
                rest=time.sleep if self._turns is None else self._turns.rest,
            )
        return self._gateways[space.space_id]


def yield_to_callers() -> None:
    """Lower the priority of this process's threads; those they start later inherit it."""
    # Linux keeps it by thread, and a server may start when the model has its threads already. One that has
    # not been lowered yet may start another meanwhile, so it is over when there was none left to lower.
    lowered = True
    while lowered:
        lowered = False
        for thread in [int(thread.name) for thread in Path("/proc/self/task").glob("*")] or [0]:
            with suppress(ProcessLookupError):  # it has ended
                if os.getpriority(os.PRIO_PROCESS, thread) < BULK_NICENESS:
                    os.setpriority(os.PRIO_PROCESS, thread, BULK_NICENESS)
                    lowered = True


class WriteStage:
    """Vectors to index and ledger; answers a receipt for each part."""

    def __init__(self, context: JobContext, progress: Any) -> None:
        from ray_app.actors.stores import open_cluster_store

        self._context = context
        self._workspace = open_workspace(context)
        self._progress = progress
        settings = self._workspace.settings
        self._exporter = export_metrics()
        ISOLATION_VIOLATIONS.start()
        self._store = open_cluster_store(settings)
        self._prepared = False
        self._writer = PartWriter(
            self._workspace.registry.scope(context.tenant),
            self._store,
            self._workspace.ledger,
            settings.outage_budget,
        )

    def __call__(self, batch: pa.Table) -> dict[str, list[Any]]:
        try:
            receipts = [self.write(part) for part in from_block(batch)]
        finally:
            self._exporter.flush()  # Ray ends this process without a word
            flush_spans()
        return {"seq": [receipt.seq for receipt in receipts]}

    def write(self, part: Part) -> Receipt:
        with self._context.stage("write part", part.table, part.vector_type, part.key.seq):
            return self._write(part)

    def _write(self, part: Part) -> Receipt:
        if not self._prepared:
            # Here and not before the job: the model need not wait for the store.
            context, budget = self._context, self._workspace.settings.outage_budget
            ride_out(
                lambda: ensure_indexes(self._workspace, self._store, context.tenant, context.indexes),
                budget=budget,
                what="The vector store",
            )
            self._prepared = True
        receipt = self._writer.write(part, self._context.index(part.table, part.vector_type).space)
        self._progress.record.remote(receipt.to_row())
        return receipt
