"""Bringing single records into step: their rows are read again, embedded and written, outside of any job.

As everywhere: no transaction is open while a model works, the points are written before the ledger, and of
two states of a record the one read later stays. Doing it again is safe and costs no model call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Final, ParamSpec, TypeVar

from ray_app.db import ledger, records
from ray_app.diff import Sighting
from ray_app.encoding import item_fault
from ray_app.errors import Overloaded, ProviderUnavailable
from ray_app.metrics.counting import count_records
from ray_app.metrics.declared import ONLINE, SEVERAL
from ray_app.parts import Part
from ray_app.reading import RangeReader
from ray_app.reports import Counts
from ray_app.serving.port import EmbedCall, EmbeddingBackend, Lane
from ray_app.serving.splitting import Joined, embed_in_parts
from ray_app.serving.usage_log import UsageKey, UsageLog
from ray_app.store.port import VectorStore
from ray_app.tenants import TenantScope
from ray_app.workspace import IndexReader, Workspace
from ray_app.writing import enter, follow_part, generation_of, store_points

P = ParamSpec("P")
T = TypeVar("T")
#: Times that records are read again when others have changed them meanwhile.
ROUNDS: Final = 5
#: Seconds for the model's answer; a provider that takes longer counts as down.
EMBED_SECONDS: Final = 60.0
#: UTF-8 bytes of a token of ordinary text, about, for the queue of the model.
_BYTES_PER_TOKEN: Final = 4
#: The provider that writes its own usage to the ledger.
_GATEWAY: Final = "gateway"


@dataclass(frozen=True)
class Applied:
    """What became of some records of one index."""

    counts: Counts
    #: Records whose row is gone or not active.
    gone: frozenset[str]


class Applier:
    """Applies the present state of rows to indexes, on one event loop; what blocks goes to ``threads``.

    ``open_store`` is called on the loop before the first write; its store is not closed here.
    """

    def __init__(
        self,
        workspace: Workspace,
        open_store: Callable[[], VectorStore],
        backend: EmbeddingBackend,
        threads: Executor,
    ) -> None:
        self.workspace = workspace
        self._open_store = open_store
        self._backend = backend
        self._threads = threads
        self._usage = UsageLog(workspace.ledger)

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call something that blocks."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, partial(function, *args, **kwargs)
        )

    async def apply(
        self,
        reader: IndexReader,
        scope: TenantScope,
        ids: Sequence[str],
        *,
        lane: Lane = Lane.INTERACTIVE,
        note: bool = False,
        strays: bool = False,
    ) -> Applied:
        """Bring the records ``ids`` into step. With ``note``, unchanged rows are recognised from now on.

        ``strays`` as in ``RangeReader.part_of``.

        Raises:
            DatabaseUnavailable, StoreUnavailable, ProviderUnavailable, Overloaded, BudgetExhausted: some
                may be in step; do it again.
            UnknownTenant: the tenant is being removed.
            IndexMoved: the index is in another space, or the tenant in another place, by now.
        """
        rows = RangeReader(reader, self.workspace.source, self.workspace.ledger, outage_budget=0)
        counts, gone, left = Counts(), set[str](), list(ids)
        for _ in range(ROUNDS):
            part, sightings, missing = await self.in_thread(rows.part_of, left, strays=strays)
            part = await self._embed(reader, part, lane)
            overtaken = await self.write(reader, scope, part)
            if note and sightings:
                await self.in_thread(_recognise, self.workspace, rows, sightings)
            counts, gone = counts + part.counts, gone | missing
            if not overtaken:
                return Applied(counts, frozenset(gone))
            left = sorted(overtaken)
        raise Overloaded("Others keep changing the same records.", retry_after=1.0)

    async def write(self, reader: IndexReader, scope: TenantScope, part: Part) -> set[str]:
        """Write an embedded part; the records of it that others have written meanwhile, and this has not."""
        if not part.written_records:
            count_records(ONLINE, part.table, "", part.counts)
            return set()
        return await self.in_thread(_write, self.workspace, self._open_store(), scope, reader, part)

    async def _embed(self, reader: IndexReader, part: Part, lane: Lane) -> Part:
        if not part.texts:
            return part
        tokens = [len(text.encode()) // _BYTES_PER_TOKEN + 1 for text in part.texts]
        space, tenant = reader.index.space, reader.tenant.incarnation
        call = EmbedCall(space, part.texts, tokens, tenant, lane=lane, table=part.table)
        try:
            async with asyncio.timeout(EMBED_SECONDS):
                joined = await embed_in_parts(self._backend, call)
        except TimeoutError:
            raise ProviderUnavailable(f"No vectors came within {EMBED_SECONDS:g} s.") from None
        await self._charge(reader, joined, part.table)
        embedded = joined.embedded
        faults = {
            part.record_ids[place]: item_fault(part.record_ids[place], part.hashes[place], error)
            for place, error in sorted(embedded.faults.items(), reverse=True)
        }
        return part.encoded(
            embedded.vectors,
            list(faults.values()),
            provider=",".join(joined.providers),
            tokens=embedded.tokens,
            cost=embedded.cost,
            seconds=sum(share.seconds for share in joined.shares),
            sent=set(range(len(part.texts))),
        )

    async def _charge(self, reader: IndexReader, joined: Joined, table: str) -> None:
        for share in joined.shares:
            if share.provider != _GATEWAY:
                model = reader.index.space.model
                key = UsageKey(reader.tenant.incarnation, share.provider, model, table)
                self._usage.add(key, texts=share.texts, tokens=share.tokens, seconds=share.seconds)
        await self.in_thread(self._usage.flush)


def _write(
    workspace: Workspace, store: VectorStore, scope: TenantScope, reader: IndexReader, part: Part
) -> set[str]:
    index, ids, generation = reader.index, part.written_records, generation_of(scope, part)
    with workspace.ledger.begin() as connection:
        (beside,) = enter(connection, scope, part.table, [generation], ids)
        # What has a later version was read, or pushed, after these rows were; it may be older all the same,
        # so the caller reads again and the rows' own times decide.
        newer = records.newer_records(
            connection, scope.incarnation, part.table, part.vector_type, part.space_id, ids, part.version
        )
        left = part.without(newer) if newer else part
        store_points(store, scope, reader.key, left)
        ledger.write_part(connection, scope, index.space, left, charge=False)
        follow_part(connection, store, scope, beside, left)
    count_records(ONLINE, part.table, SEVERAL if "," in part.provider else part.provider, part.counts)
    return newer


def _recognise(workspace: Workspace, rows: RangeReader, sightings: Sequence[Sighting]) -> None:
    with workspace.ledger.begin() as connection:
        rows.recognise(connection, sightings)
