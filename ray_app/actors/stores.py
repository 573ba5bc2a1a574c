"""How a tenant's vectors are reached from inside a Ray cluster."""

from __future__ import annotations

from ray_app.actors.vector_owner import OwnedStore
from ray_app.settings import Settings
from ray_app.store.port import VectorStore
from ray_app.store.routing import open_store


def open_cluster_store(settings: Settings) -> VectorStore:
    """Embedded tenants through the owner actor, others through the Qdrant server."""
    return open_store(settings, embedded=lambda: OwnedStore(settings))
