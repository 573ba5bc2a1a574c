"""Whether the target is fit to take over: every range compared once more, and a sample searched for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ray_app.db import ledger
from ray_app.moving.copying import IndexCopier, Looked, Places, step
from ray_app.moving.reports import PlaceVerification
from ray_app.records.directory import key_of
from ray_app.store.port import VectorStore
from ray_app.tenants import TenantScope
from ray_app.workspace import Workspace

#: Records looked for among this many.
TOP: Final = 10
#: How much a score may differ for being computed by two engines in 32 bits.
TOLERANCE: Final = 1e-4


@dataclass
class _Sample:
    sampled: int = 0
    found: int = 0
    found_there: int = 0
    other_score: int = 0


def verify(
    workspace: Workspace,
    store: VectorStore,
    places: Places,
    copiers: Sequence[IndexCopier],
    on_look: Callable[[Looked], None],
) -> tuple[PlaceVerification, Looked]:
    """Compare every range of every index, and then search both places for a sample of records.

    What differs is copied again under the locks of its writers, so what they write meanwhile is no fault.
    Answers with what was found, too.

    Raises:
        ConflictError, TenantMoved, UnknownTenant: as ``step``.
        StoreUnavailable, DatabaseUnavailable.
    """
    total = Looked()
    for copier in copiers:
        for looked in copier.look():
            total.add(looked)
            on_look(looked)
    sample, left = _Sample(), workspace.settings.migration_sample
    for copier in copiers:
        left -= _search(workspace, store, places, copier, left, sample)
    found = PlaceVerification(
        *(total.points, len(total.differing), len(total.unknown), total.misplaced),
        *(sample.sampled, sample.found, sample.found_there, sample.other_score),
    )
    return found, total


def _search(
    workspace: Workspace,
    store: VectorStore,
    places: Places,
    copier: IndexCopier,
    size: int,
    sample: _Sample,
) -> int:
    """Search for up to ``size`` records of one index; how many there were."""
    records = _records(workspace, copier, size)
    for record in records:
        with step(workspace, places) as connection:
            # Held, so that it is the same record in both places.
            copier.align(connection, [record])
            _search_one(store, places, copier, record, sample)
    return len(records)


def _records(workspace: Workspace, copier: IndexCopier, size: int) -> Sequence[str]:
    """The same ones every time."""
    gate = copier.gate
    where = (gate.incarnation, gate.table, gate.vector_type, gate.space_id)
    with workspace.ledger.connect() as connection:
        return ledger.sample_records(connection, *where, max(size, 0))


def _search_one(
    store: VectorStore, places: Places, copier: IndexCopier, record: str, sample: _Sample
) -> None:
    key = key_of(copier.index)
    own = store.stored_vectors(places.source, key, [(record, 0)]).get((record, 0))
    if own is None:
        return  # taken out since it was chosen

    def score(scope: TenantScope) -> float | None:
        hits = store.search(scope, key, own.vector, limit=TOP)
        return _score_of(record, ((hit.record_id, hit.score) for hit in hits))

    sample.sampled += 1
    here, there = score(places.source), score(places.target)
    if here is None:
        return  # among ten or more that are as near as itself
    sample.found += 1
    if there is not None:
        sample.found_there += 1
        sample.other_score += abs(here - there) > TOLERANCE


def _score_of(record: str, hits: Iterable[tuple[str, float]]) -> float | None:
    return next((score for found, score in hits if found == record), None)
