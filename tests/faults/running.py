"""One run: work, a fault in the middle of it, whatever an operator would do then, and the verdict."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import text

from ray_app.encoders.stub import StubEncoder
from ray_app.reconciling.drift import Kind as Drift
from ray_app.spaces import EmbeddingSpace
from ray_app.tenants import Tenant
from tests.faults.breaking import Missed, strike
from tests.faults.plan import PUSHED, Kind, Run
from tests.faults.working import Backfill, Extraction, Owner, wait_for_moment
from tests.faults.world import World
from tests.support.exactness import Verdict, examine
from tests.support.fake_gateway_steps import vector_of
from tests.support.site import TABLE

#: Rows of a run, at least and at most.
ROWS: Final = (600, 1200)
#: Times that a fault that fell beside the work is made again.
_TRIES: Final = 4


@dataclass(frozen=True)
class Outcome:
    """What a run came to. All but the counts of work must be 0."""

    run: Run
    rows: int
    lost: int
    duplicated: int
    leaked: int
    #: Texts that a counting gateway was sent, of how many rows; 0 of 0 where the model was local.
    sent: int
    counted: int
    resumes: int
    seconds: float
    problem: str = ""

    @property
    def is_exact(self) -> bool:
        return not (self.lost or self.duplicated or self.leaked or self.problem)


def perform(world: World, run: Run) -> Outcome:
    """Do a run until its fault has fallen into the work."""
    began = time.monotonic()
    for attempt in range(_TRIES):
        now = run if attempt == 0 else run.again(attempt)
        try:
            return _attempt(world, now, f"run-{run.number}-{attempt}", began)
        except Missed as missed:
            reason = str(missed)
        finally:
            world.clock.step(timedelta(0))
    return Outcome(run, 0, 0, 0, 0, 0, 0, 0, time.monotonic() - began, f"the fault never fell: {reason}")


def _attempt(world: World, run: Run, name: str, began: float) -> Outcome:
    world.settle()
    added = world.rowbeam.add_tenant(name)
    rows = run.rng.randint(*ROWS)
    world.jobs.insert(rows, client=added.tenant.client_id)
    owner = Owner(added.tenant, added.api_key.text, rows)
    _change(world, owner, "TRUE", f"'{name} ' || title")
    sent = len(world.gateway.texts)
    by_gateway = run.kind is Kind.GATEWAY or run.rng.random() < 0.5
    pushed = run.kind in PUSHED or (run.kind is Kind.CLOCK and run.pushed)
    with world.second_node() if run.kind is Kind.NODE else nullcontext():
        work = Extraction(world, owner) if pushed else Backfill(world, owner, by_gateway=by_gateway)
        wait_for_moment(world, run, owner, work.work.is_alive)
        strike(world, run, work.driver)
        resumes = work.end()
    texts = rows
    if run.kind is Kind.CLOCK:
        world.settle()
        changed, more = _go_on(world, owner, pushed)
        texts, resumes = texts + changed, resumes + more
    sent = len(world.gateway.texts) - sent
    world.settle()
    verdict, found = judge(world, [added.tenant, world.bystander])
    if verdict.is_exact and not any(found.values()):
        # A tenant takes tens of MiB, and the disk is small. What is not exact stays, to be looked at.
        world.rowbeam.remove_tenant(name)
    counts = by_gateway and not pushed
    return Outcome(
        run,
        rows,
        lost=max(len(verdict.lost), found[Drift.MISSING] + found[Drift.STALE]),
        duplicated=max(
            len(verdict.extra), found[Drift.ORPHAN] + found[Drift.DUPLICATE] + found[Drift.WRONG_SPACE]
        ),
        leaked=max(len(verdict.leaked), found[Drift.WRONG_TENANT]),
        sent=sent if counts else 0,
        counted=texts if counts else 0,
        resumes=resumes,
        seconds=time.monotonic() - began,
        problem=_problem(verdict, found),
    )


def _go_on(world: World, owner: Owner, pushed: bool) -> tuple[int, int]:
    """What a step of the clock leaves behind shows when rows change: under the wrong clock, and under the
    right one again. Answers how many texts were changed, and how often a job was resumed."""
    resumes = 0
    changed = _change(world, owner, "id % 3 = 0")
    if pushed:
        resumes += Backfill(world, owner).end()
    else:
        Extraction(world, owner, "id % 3 = 0").end()
    world.rowbeam.sync(owner.tenant.name, tables=[TABLE])  # which leaves a mark of that clock
    world.clock.step(timedelta(0))
    changed += _change(world, owner, "id % 3 = 1")
    world.jobs.sql(
        f"DELETE FROM {TABLE} WHERE client_id = :client AND id % 15 = 2", client=owner.tenant.client_id
    )
    world.rowbeam.sync(owner.tenant.name, tables=[TABLE])
    return changed, resumes


def _change(world: World, owner: Owner, where: str, title: str = "title || ' again'") -> int:
    """Give rows another text, as an application does; how many."""
    with world.database.begin() as connection:
        done = connection.execute(
            text(f"UPDATE {TABLE} SET title = {title}, updated_at = now() WHERE client_id = :of AND {where}"),
            {"of": owner.tenant.client_id},
        )
    return int(done.rowcount)


def _problem(verdict: Verdict, found: dict[Drift, int]) -> str:
    drift = ", ".join(f"{count} {kind}" for kind, count in found.items() if count)
    return "; ".join(
        filter(None, ["" if verdict.is_exact else str(verdict), drift and f"reconcile: {drift}"])
    )


def judge(world: World, tenants: Sequence[Tenant]) -> tuple[Verdict, dict[Drift, int]]:
    """Two judges that share no code: the library's own reconcile, and a naive comparison of everything."""
    found = dict.fromkeys(Drift, 0)
    for tenant in tenants:
        report = world.rowbeam.reconcile(tenant.name, tables=[TABLE], grace=0.0)
        for item in report.found:
            found[item.kind] += item.count
    with world.rowbeam._store() as store:
        return examine(world.rowbeam.workspace, store, tenants, TABLE, _model), found


def _model(space: EmbeddingSpace, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    if space.model == "stub":
        return StubEncoder(dimensions=space.dimensions).encode(texts).vectors
    return np.array([vector_of(item, space.dimensions) for item in texts], np.float32)
