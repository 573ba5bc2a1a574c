"""Every operation of the store, tried where foreign points lie in the way; and walls to be taken out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID, uuid4

import pytest

from ray_app.errors import IsolationViolation
from ray_app.identity import partition_id, point_id
from ray_app.store import filters, payload
from ray_app.store.filters import Clause, Match, Where
from ray_app.store.port import DataChange, IndexKey
from ray_app.tenants import Placement, TenantScope
from tests.support.vector_store_world import SECRET, World, batch, copied, meta, unit

#: "kept": nothing foreign was seen or touched. "refused": our own check stopped the call. "leaked": neither.
Outcome = Literal["kept", "refused", "leaked"]


@dataclass
class Twins:
    """Two tenants of one space. Points of theirs also lie in our home and partition, where only a fault
    or a collision of ids can have put them: one under the id that our record "1" would have."""

    world: World
    ours: TenantScope
    theirs: TenantScope
    index: IndexKey

    @classmethod
    def made(cls, world: World) -> Twins:
        twins = cls(world, world.tenant(), world.tenant(), world.index())
        for scope, text in ((twins.theirs, "crash theirs"), (twins.ours, "crash ours")):
            world.filled(scope, twins.index, batch([meta("own", 0, text)], [unit(1)]))
        for stolen in (point_id(SECRET, twins.ours.incarnation, "issues", "content", "1", 0), uuid4()):
            world.forge(twins.ours, world.space, str(stolen), unit(1), twins.foreign_payload())
        return twins

    def foreign_payload(self) -> dict[str, Any]:
        partition = partition_id(SECRET, self.ours.incarnation, "issues", "content")
        fields = {"_t": str(self.theirs.incarnation), "_p": str(partition), "_v": 1, "_h": "h"}
        own = {"provider": "local", "at": "2026-11-23T10:00:00+00:00"}
        return {**fields, **own, "pk": "1", "c": 0, "text": "crash theirs", "d": {}}

    def foreign(self, operation: str) -> list[Any]:
        """All that is theirs, as the engine holds it: in our home, and in their own."""
        homes = [self.theirs] if operation == "erase" and self.separate else [self.ours, self.theirs]
        everything = Where(self.theirs.incarnation)
        found = [
            point
            for home in homes
            for point in self.world.store._page(
                home, self.world.space, everything, None, 100, vectors=[payload.VECTOR]
            )[0]
        ]
        return sorted((point.point_id, sorted(point.payload.items()), point.vector) for point in found)

    @property
    def separate(self) -> bool:
        """Whether erasing a tenant removes its home, with whatever lies in it."""
        return self.world.placement is not Placement.POOLED


#: The least and the greatest id.
EVERY_ID: Final = (UUID(int=0), UUID(int=2**128 - 1))

#: Each returns what it saw of theirs.
OPERATIONS: Final[dict[str, Callable[[Twins], Iterable[Any]]]] = {
    "ensure_index": lambda it: it.world.store.ensure_index(it.ours, it.index, ["status"]) or (),
    "upsert": lambda it: it.world.store.upsert(it.ours, it.index, batch([meta("1")], [unit(0, 1)], 99)) or (),
    "set_data": lambda it: (
        it.world.store.set_data(it.ours, it.index, [DataChange("1", 1, {"status": "done"})], 99) or ()
    ),
    "delete": lambda it: it.world.store.delete(it.ours, it.index, [("1", 0)]) or (),
    "search": lambda it: [
        hit for hit in it.world.store.search(it.ours, it.index, unit(1), limit=9) if "theirs" in hit.snippet
    ],
    "search_words": lambda it: [
        hit
        for hit in it.world.store.search_words(it.ours, it.index, "crash", limit=9)
        if "theirs" in hit.snippet
    ],
    "vectors_of": lambda it: list(it.world.store.vectors_of(it.ours, it.index, "1")),
    "stored_vectors": lambda it: list(it.world.store.stored_vectors(it.ours, it.index, [("1", 0)])),
    "count": lambda it: range(it.world.store.count(it.ours, it.index) - 1),
    "scroll": lambda it: [
        point for point in it.world.store.scroll(it.ours, it.index) if point.record_id != "own"
    ],
    "digest": lambda it: range(it.world.store.digest(it.ours, it.index, *EVERY_ID).points - 1),
    "points_between": lambda it: [
        point
        for point in it.world.store.points_between(it.ours, it.index, *EVERY_ID)
        if point.record_id != "own"
    ],
    "points_of": lambda it: it.world.store.points_of(it.ours, it.index, [("1", 0)]),
    "copies_after": lambda it: [
        copy for copy in it.world.store.copies_after(it.ours, it.index, None, 100) if copy.record_id != "own"
    ],
    "copies_of": lambda it: it.world.store.copies_of(it.ours, it.index, [("1", 0)]),
    "write_copies": lambda it: (
        it.world.store.write_copies(it.ours, it.index, [copied("1", unit(0, 1), version=99)]) or ()
    ),
    "census": lambda it: range(it.world.store.census(it.ours, it.world.space, 9).points - 1),
    "drop_index": lambda it: it.world.store.drop_index(it.ours, it.index) or (),
    "erase": lambda it: range(it.world.store.erase(it.ours, [it.world.space])),
}

#: Operations that are there to find and remove what is theirs in a place of ours; see ``test_audits.py``.
AUDITS: Final = {"strays", "remove_strays"}
#: Operations that name no tenant's points, and so have no entry above.
NEUTRAL: Final = {"check", "close"}


def attempt(twins: Twins, operation: str, monkeypatch: pytest.MonkeyPatch, *walls: str) -> Outcome:
    """What ``operation`` of ours does to theirs with ``walls`` taken out."""
    before = twins.foreign(operation)
    refused = False
    with monkeypatch.context() as patched:
        for wall in walls:
            WALLS[wall](patched)
        try:
            seen = list(OPERATIONS[operation](twins))
        except IsolationViolation:
            refused, seen = True, []
    if seen or twins.foreign(operation) != before:
        return "leaked"
    return "refused" if refused else "kept"


def _no_condition_on(key: str) -> Callable[[pytest.MonkeyPatch], None]:
    whole = Where.must

    def without(where: Where) -> list[Clause]:
        return [clause for clause in whole(where) if not (isinstance(clause, Match) and clause.key == key)]

    return lambda patched: patched.setattr(Where, "must", without)


#: Wall by name -> takes it out.
WALLS: Final[dict[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "tenant condition": _no_condition_on(payload.TENANT),
    "partition condition": _no_condition_on(payload.PARTITION),
    "filter check": lambda patched: patched.setattr(filters, "require_tenant", lambda compiled, tenant: None),
    "result check": lambda patched: patched.setattr(payload, "check_tenant", lambda scope, found: None),
}
