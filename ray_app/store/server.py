"""Pooled and dedicated placement: a Qdrant server, through its REST interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

from qdrant_client import QdrantClient, models

from ray_app.spaces import EmbeddingSpace
from ray_app.store import payload, server_models
from ray_app.store import server_setup as setup
from ray_app.store.filters import Where, nameless, outside, own_or_nameless, translate
from ray_app.store.isolated import IsolatedStore
from ray_app.store.payload import Found, NewPoint
from ray_app.store.ranking import MAX_FETCH
from ray_app.store.server_calls import CollectionMissing, applied, call
from ray_app.store.server_models import DIALECT, collection_name, traffic_name
from ray_app.store.sizing import sub_batches
from ray_app.store.updates import PayloadUpdate
from ray_app.store.words import WordVector
from ray_app.tenants import Placement, TenantScope

T = TypeVar("T")
#: Seconds for one request; the client's own default of 5 is short for a write that waits to be applied.
REQUEST_TIMEOUT: Final = 30
#: Seconds one call keeps trying; a job rides out longer outages around it.
RETRY_BUDGET: Final = 20.0


class ServerStore(IsolatedStore):
    """Vectors on a Qdrant server: a collection per space, shared by tenants or a tenant's own.

    Each call tries again for ``retry_budget`` seconds, then raises StoreUnavailable.
    """

    def __init__(self, client: QdrantClient, *, retry_budget: float = RETRY_BUDGET) -> None:
        self._client = client
        self._retry_budget = retry_budget
        #: Names that exist, so far as this process knows.
        self._known: set[str] = set()
        self._version_checked = False

    @classmethod
    def connect(
        cls, url: str, api_key: str | None = None, *, retry_budget: float = RETRY_BUDGET
    ) -> ServerStore:
        """A store on the server at ``url``; nothing is sent before the first call.

        ``api_key`` may be a token for points only (access "prw" to a space's alias and collection, or
        to a tenant's own collection), which serves every call but the first set-up of a space or
        column and the removal of a dedicated tenant: those make and drop collections and indexes.
        """
        client = QdrantClient(url=url, api_key=api_key, timeout=REQUEST_TIMEOUT, check_compatibility=False)
        return cls(client, retry_budget=retry_budget)

    def check(self) -> str:
        version = setup.check_version(self._client, self._call)
        collections = self._call(self._client.get_collections).collections
        own = sum(collection.name.startswith("es_") for collection in collections)
        return f"Qdrant server {version}, {own} collections of embedding spaces"

    def close(self) -> None:
        self._client.close()

    def _call(self, operation: Callable[[], T]) -> T:
        return call(operation, budget=self._retry_budget)

    def _exists(self, name: str) -> bool:
        if name not in self._known and self._call(partial(self._client.collection_exists, name)):
            self._known.add(name)
        return name in self._known

    def _forget(self, scope: TenantScope, space: EmbeddingSpace) -> None:
        self._known.discard(traffic_name(scope, space))

    def _prepare(self, scope: TenantScope, space: EmbeddingSpace, fields: Sequence[str]) -> None:
        # Asked again each time: a tenant removed by another process must not stay known.
        self._forget(scope, space)
        self._require_version()
        setup.prepare(self._client, self._call, scope, space, fields)

    def _require_version(self) -> None:
        """Raises StoreRefused, once a process, for a server that would silently ignore a wall of ours."""
        if not self._version_checked:
            setup.check_version(self._client, self._call)
            self._version_checked = True

    def _write(
        self, scope: TenantScope, space: EmbeddingSpace, points: Sequence[NewPoint], guard: Where
    ) -> None:
        name = traffic_name(scope, space)
        if not self._exists(name):
            raise CollectionMissing
        upsert = partial(
            self._client.upsert,
            name,
            wait=True,
            ordering=models.WriteOrdering.MEDIUM,
            update_filter=translate(guard, DIALECT),
        )
        for part in sub_batches(points):
            batch = [server_models.point(new) for new in part]
            self._apply(name, partial(upsert, points=batch))

    def _update(self, scope: TenantScope, space: EmbeddingSpace, updates: Sequence[PayloadUpdate]) -> None:
        name = traffic_name(scope, space)
        if not self._exists(name):
            return
        send = partial(
            self._client.batch_update_points, name, wait=True, ordering=models.WriteOrdering.MEDIUM
        )
        for part in sub_batches(updates):
            operations = [server_models.set_payload(update) for update in part]
            try:
                self._apply(name, partial(send, update_operations=operations))
            except CollectionMissing:
                return

    def _remove(self, scope: TenantScope, space: EmbeddingSpace, wheres: Sequence[Where]) -> None:
        self._delete(scope, space, [translate(where, DIALECT) for where in wheres])

    def _delete(self, scope: TenantScope, space: EmbeddingSpace, filters: Sequence[models.Filter]) -> None:
        name = traffic_name(scope, space)
        delete = partial(self._client.delete, name, wait=True, ordering=models.WriteOrdering.STRONG)
        if not self._exists(name):
            return
        for doomed in filters:
            selector = models.FilterSelector(filter=doomed)
            try:
                self._apply(name, partial(delete, points_selector=selector))
            except CollectionMissing:
                return

    def _apply(self, name: str, write: Callable[[], models.UpdateResult | list[models.UpdateResult]]) -> None:
        """Send a write until the server says that all of it is applied, not merely taken."""
        try:
            self._call(applied(write))
        except CollectionMissing:
            self._known.discard(name)
            raise

    def _read(self, name: str, read: Callable[[str], T]) -> T | None:
        """``read(name)``, or None where the collection does not exist."""
        if not self._exists(name):
            return None
        try:
            return self._call(partial(read, name))
        except CollectionMissing:
            self._known.discard(name)
            return None

    def _nearest(
        self,
        scope: TenantScope,
        space: EmbeddingSpace,
        query: list[float] | WordVector,
        where: Where,
        limit: int,
        score_threshold: float | None,
    ) -> list[Found]:
        options = server_models.query_options(query, where)
        if isinstance(query, WordVector):
            self._require_version()

        def read(name: str) -> list[models.ScoredPoint]:
            return self._client.query_points(
                name,
                query_filter=translate(where, DIALECT),
                limit=limit,
                with_payload=list(payload.HIT_KEYS),
                score_threshold=score_threshold,
                **options,
            ).points

        hits = self._read(traffic_name(scope, space), read) or []
        return [Found(str(hit.id), hit.payload or {}, hit.score) for hit in hits]

    def _page(
        self,
        scope: TenantScope,
        space: EmbeddingSpace,
        where: Where,
        offset: Any,
        limit: int,
        *,
        vectors: Sequence[str] = (),
        keys: Sequence[str] = payload.AUDIT_KEYS,
    ) -> tuple[list[Found], Any]:
        def read(name: str) -> tuple[list[models.Record], Any]:
            return self._client.scroll(
                name,
                scroll_filter=translate(where, DIALECT),
                offset=offset,
                limit=limit,
                with_payload=list(keys),
                with_vectors=list(vectors) or False,
            )

        records, following = self._read(traffic_name(scope, space), read) or ([], None)
        found = [
            Found(
                str(record.id),
                record.payload or {},
                vector=server_models.dense(record.vector),
                words=server_models.words(record.vector),
            )
            for record in records
        ]
        return found, following

    def _outside(
        self, scope: TenantScope, space: EmbeddingSpace, partitions: Sequence[UUID], limit: int
    ) -> list[Found]:
        own = scope.placement is Placement.DEDICATED
        found = outside(str(scope.incarnation), [str(name) for name in partitions], DIALECT, everybody=own)

        def read(name: str) -> list[models.Record]:
            keys = [payload.TENANT, payload.PARTITION]
            return self._client.scroll(name, scroll_filter=found, limit=limit, with_payload=keys)[0]

        records = self._read(traffic_name(scope, space), read) or []
        return [Found(str(record.id), record.payload or {}) for record in records]

    def _nameless(self, scope: TenantScope, space: EmbeddingSpace, limit: int) -> list[str]:
        def read(name: str) -> list[models.Record]:
            return self._client.scroll(
                name, scroll_filter=nameless(DIALECT), limit=limit, with_payload=False
            )[0]

        return [str(record.id) for record in self._read(traffic_name(scope, space), read) or []]

    def _remove_ids(self, scope: TenantScope, space: EmbeddingSpace, ids: Sequence[str]) -> None:
        if scope.placement is Placement.DEDICATED:
            doomed = DIALECT.all_and_none([DIALECT.has_id(list(ids))], [])
        else:
            doomed = own_or_nameless(str(scope.incarnation), list(ids), DIALECT)
        self._delete(scope, space, [doomed])

    def _count(self, scope: TenantScope, space: EmbeddingSpace, where: Where) -> int:
        """Walked, not asked for: strict mode refuses an exact count and an approximate one proves nothing."""
        total, offset = 0, None
        while True:
            found, offset = self._page(scope, space, where, offset, MAX_FETCH)
            payload.check_tenant(scope, found)
            total += len(found)
            if offset is None:
                return total

    def _erase(self, scope: TenantScope, space: EmbeddingSpace) -> None:
        if scope.placement is not Placement.DEDICATED:
            self._remove(scope, space, [Where(scope.incarnation)])
            return
        name = collection_name(scope, space)
        self._forget(scope, space)
        if self._exists(name):
            self._call(partial(self._client.delete_collection, name))
            self._forget(scope, space)
