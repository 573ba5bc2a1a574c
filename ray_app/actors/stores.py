"""How a tenant's vectors are reached from inside a Ray cluster."""

from __future__ import annotations

from ray_app.actors.vector_owner import OwnedStore
from ray_app.settings import Settings
from ray_app.store.routing import RoutedStore, open_store
from ray_app.tenants import Placement


def open_cluster_store(settings: Settings) -> RoutedStore:
    """Embedded tenants through the owner actor, others through the Qdrant server."""
    return open_store(settings, embedded=lambda: OwnedStore(settings))


def start_store(settings: Settings, placement: Placement) -> None:
    """Start the owner actor on this machine, where an embedded tenant's vectors are; does not wait for it."""
    if placement is Placement.EMBEDDED:
        OwnedStore(settings)
