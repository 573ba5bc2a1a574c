"""Pushing rows without HTTP: the steps of an upsert, with the workspace's own model between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from ray_app.onboarding import count_points
from ray_app.records.committing import Settled
from ray_app.records.directory import IndexDirectory
from ray_app.records.planning import IndexUpsert
from ray_app.records.pushing import Push
from ray_app.searching import search
from ray_app.serving.port import Served
from ray_app.spaces import EmbeddingSpace
from ray_app.store.port import VectorStore
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace

TABLE = "issues"


@dataclass
class PushSite:
    """One tenant's way in."""

    workspace: Workspace
    store: VectorStore
    tenant: Tenant
    directory: IndexDirectory
    #: Texts that the model was given so far.
    embedded: int = 0
    #: Called between comparing and writing, as a model takes its time.
    meanwhile: Callable[[], None] = lambda: None

    @classmethod
    def of(cls, workspace: Workspace, store: VectorStore, tenant: Tenant) -> PushSite:
        return cls(workspace, store, tenant, IndexDirectory(workspace, store))

    def push(
        self, *rows: Mapping[str, Any], table: str = TABLE, kinds: Sequence[str] | None = None
    ) -> dict[str, dict[str, Settled]]:
        """Outcomes by vector type and record id."""
        scope = self.workspace.registry.scope(self.tenant)
        push = Push(self.directory, self.tenant, scope, table, max_record_tokens=10_000)
        upserts = push.begin(rows, kinds)
        while upserts:
            served = [self._embed(upsert) for upsert in upserts]
            self.meanwhile()
            upserts = push.settle(upserts, served)
        return push.settled

    def outcomes(self, *rows: Mapping[str, Any], **options: Any) -> dict[str, str]:
        """Outcomes in the content index by record id."""
        return {record: str(done.outcome) for record, done in self.push(*rows, **options)["content"].items()}

    def _embed(self, upsert: IndexUpsert) -> Served | None:
        if not upsert.texts:
            return None
        space: EmbeddingSpace = upsert.reader.index.space
        started = time.perf_counter()
        self.embedded += len(upsert.texts)
        provider = self.workspace.providers.provider_for(space)
        answer = provider.embed_documents(upsert.texts)
        return Served(answer, provider.name, time.perf_counter() - started)

    def find(self, words: str, *, table: str = TABLE, limit: int = 3) -> list[str]:
        hits = search(
            self.workspace, self.store, self.tenant, table, words,
            limit=limit, conditions=[], vector_type="content",
        )  # fmt: skip
        return [hit.record_id for hit in hits]

    def snippets(self, table: str = TABLE) -> dict[str, list[str]]:
        """Every chunk of every record that the ledger knows."""
        query = text(
            "SELECT record_id, snippet FROM rowbeam.qdrant_vectors"
            " WHERE incarnation = :of AND table_name = :table AND vector_type = 'content'"
            " ORDER BY record_id, chunk"
        )
        found: dict[str, list[str]] = {}
        with self.workspace.ledger.connect() as connection:
            rows = connection.execute(query, {"of": self.tenant.incarnation, "table": table})
            for record, snippet in rows:
                found.setdefault(record, []).append(snippet)
        return found

    def check_exact(self) -> None:
        """Store and ledger have the same points."""
        points, rows = count_points(self.workspace, self.store, self.tenant)
        assert points == rows
