"""Rounds: look for anything of a retired tenant in store and ledger, erase it, and look again.

A round that finds nothing is what proves a removal. The writers were fenced off before the first one; one
that is found to have come through all the same starts the retention anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from ray_app.db import erasures, fences, ledger
from ray_app.errors import ConflictError
from ray_app.offboarding.records import SigningKey, describe
from ray_app.offboarding.reports import Erasure, Round
from ray_app.onboarding import ever_used_spaces
from ray_app.spaces import EmbeddingSpace
from ray_app.store.port import VectorStore
from ray_app.tenants import TenantScope
from ray_app.workspace import Workspace

#: Rounds made one after the other; a tenant of which they all find something is being written to.
MAX_ROUNDS: Final = 5
#: Points without a tenant's name that are looked at in one space.
_NAMELESS: Final = 1000
#: What the deployment's signing key is derived for.
_PURPOSE: Final = "erasure-record"


@dataclass(frozen=True)
class _Place:
    """One space of one placement, and what is there without a name and of nobody else."""

    scope: TenantScope
    space: EmbeddingSpace
    points: int
    nameless: Sequence[UUID]


def signing_key(workspace: Workspace) -> SigningKey:
    """The deployment's; it follows from the ledger's secret, and no other secret is kept for it."""
    return SigningKey(workspace.registry.derived_secret(_PURPOSE))


def purge(workspace: Workspace, store: VectorStore, incarnation: UUID) -> Erasure:
    """Erase what there is of a retired tenant until a round finds nothing, and sign what was found.

    Cut off anywhere, it goes on where it was when called again. Whoever calls it is ``alone``, and knows
    that the round is due.

    Raises:
        ConflictError: the tenant is active, or a shared collection is too damaged to be looked through.
        StoreUnavailable, DatabaseUnavailable: cut off.
    """
    for _ in range(MAX_ROUNDS):
        places = _look(workspace, store, incarnation)
        found = _round(workspace, incarnation, places)
        erasures.add_round(workspace.ledger, incarnation, found)
        # Also where nothing was found: folders and collections without points go too.
        if not _erase(workspace, store, incarnation, places):
            continue
        erasures.end_round(workspace.ledger, incarnation)
        if found.clean:
            return _conclude(workspace, incarnation)
    return erasures.get(workspace.ledger, incarnation)


def _look(workspace: Workspace, store: VectorStore, incarnation: UUID) -> list[_Place]:
    places = []
    for placement in erasures.get(workspace.ledger, incarnation).placements:
        scope = workspace.registry.removal_scope(incarnation, placement)
        for space in ever_used_spaces(workspace):
            census = store.census(scope, space, _NAMELESS)
            theirs = erasures.others_points(workspace.ledger, incarnation, space.space_id, census.nameless)
            # A point that no other tenant's ledger knows is this one's, or nobody's.
            nameless = [point for point in census.nameless if point not in theirs]
            if not nameless and len(theirs) == _NAMELESS:
                raise ConflictError(
                    f"Space {space.space_id} has {_NAMELESS:,} points of other tenants without a name, behind"
                    " which this tenant's cannot be seen.",
                    hint="Repair its replicas, run rowbeam reconcile for the other tenants, then try again.",
                )
            places.append(_Place(scope, space, census.points, nameless))
    return places


def _round(workspace: Workspace, incarnation: UUID, places: Sequence[_Place]) -> Round:
    points: dict[str, dict[str, int]] = {}
    for place in places:
        points.setdefault(str(place.scope.placement), {})[place.space.space_id] = place.points
    with workspace.ledger.connect() as connection:
        rows = ledger.count_tenant_rows(connection, incarnation)
    return Round(datetime.now(UTC), points, sum(len(place.nameless) for place in places), rows)


def _erase(workspace: Workspace, store: VectorStore, incarnation: UUID, places: Sequence[_Place]) -> bool:
    """Points first, ledger second; whether nothing is left of either, counted afterwards."""
    left = 0
    for place in places:
        if place.nameless:
            store.remove_strays(place.scope, place.space, place.nameless)
        left += store.erase(place.scope, [place.space])
    with workspace.ledger.begin() as connection:
        ledger.erase_tenant_rows(connection, incarnation)
    with workspace.ledger.connect() as connection:
        left += sum(ledger.count_tenant_rows(connection, incarnation).values())
    return left == 0


def _conclude(workspace: Workspace, incarnation: UUID) -> Erasure:
    """Stamp the round that found nothing, let go of the tenant's name, and sign: all or nothing."""
    retention = timedelta(hours=workspace.settings.erasure_retention_hours)
    key = signing_key(workspace)
    with workspace.ledger.begin() as connection:
        erasure = erasures.advance(connection, incarnation, retention)
        erasures.keep_record(connection, incarnation, key.sign(describe(erasure, retention)))
        fences.forget(connection, incarnation)
    return erasures.get(workspace.ledger, incarnation)
