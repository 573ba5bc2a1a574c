"""The contract's stores: Edge, the server adapter over its local double, a real server when there is one."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge
from qdrant_client import QdrantClient, models

from ray_app.spaces import EmbeddingSpace
from ray_app.store.edge import EdgeStore
from ray_app.store.server import ServerStore
from ray_app.store.server_models import traffic_name
from ray_app.store.words import document_vector
from ray_app.tenants import Placement, TenantScope
from tests.support.vector_store_world import World

SERVER_URL = os.environ.get("ROWBEAM_TEST_QDRANT_URL")
KINDS: list[Any] = ["edge", "local-pooled", "local-dedicated"]
if SERVER_URL:
    KINDS += [pytest.param(f"server-{kind}", marks=pytest.mark.server) for kind in ("pooled", "dedicated")]


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    engine, _, placement = request.param.partition("-")
    if engine == "edge":
        made = edge_world(tmp_path)
    else:
        client = QdrantClient(":memory:") if engine == "local" else QdrantClient(url=SERVER_URL)
        made = server_world(client, Placement(placement))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Payload indexes have no effect in the local Qdrant")
        yield made
    for scope in made.scopes:
        made.store.erase(scope, [made.space])
    if engine == "server" and made.placement is Placement.POOLED:
        client.delete_collection(f"{traffic_name(made.tenant(), made.space)}_v1")
    made.store.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EdgeStore]:
    """An Edge store that keeps two shards open at most."""
    made = EdgeStore(tmp_path, max_open=2)
    yield made
    made.close()


def edge_world(root: Path) -> World:
    store = EdgeStore(root)

    def forge(
        scope: TenantScope, space: EmbeddingSpace, point: str, vector: np.ndarray, payload: Mapping[str, Any]
    ) -> None:
        store.close()
        name = str(scope.incarnation)
        shard = qdrant_edge.EdgeShard.load(str(root / space.space_id / name[:2] / name))
        vectors = {"dense": vector.tolist()}
        words = document_vector(payload["text"])
        if words is not None:
            vectors["bm25"] = qdrant_edge.SparseVector(words.indices, words.weights)
        forged = qdrant_edge.Point(point, vectors, dict(payload))
        shard.update(qdrant_edge.UpdateOperation.upsert_points([forged]))
        shard.flush()
        shard.close()

    return World(store, Placement.EMBEDDED, forge)


def server_world(client: QdrantClient, placement: Placement) -> World:
    def forge(
        scope: TenantScope, space: EmbeddingSpace, point: str, vector: np.ndarray, payload: Mapping[str, Any]
    ) -> None:
        vectors = {"dense": vector.tolist()}
        words = document_vector(payload["text"])
        if words is not None:
            vectors["bm25"] = models.SparseVector(indices=words.indices, values=words.weights)
        forged = models.PointStruct(id=point, vector=vectors, payload=dict(payload))
        client.upsert(traffic_name(scope, space), [forged], wait=True)

    return World(ServerStore(client), placement, forge)
