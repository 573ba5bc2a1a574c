"""One run: work, a fault in the middle of it, whatever an operator would do then, and the verdict."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import numpy as np
import numpy.typing as npt
import psutil
from sqlalchemy import text

from ray_app.encoders.stub import StubEncoder
from ray_app.errors import RowbeamError
from ray_app.reconciling.drift import Kind as Drift
from ray_app.reports import JobProgress, JobState
from ray_app.spaces import EmbeddingSpace, Preference
from ray_app.tenants import Tenant
from tests.faults.breaking import Missed, strike
from tests.faults.plan import PUSHED, Kind, Run
from tests.faults.world import World
from tests.support.exactness import Verdict, examine
from tests.support.fake_gateway_steps import vector_of
from tests.support.site import TABLE, JobSite

#: Rows of a run, at least and at most.
ROWS: Final = (600, 1200)
#: Rows pushed in one call.
_BATCH: Final = 50
#: Times a job is resumed, and a fault that fell beside the work made again.
_RESUMES: Final = 4
_TRIES: Final = 4
_SECONDS: Final = 240.0


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
    return Outcome(run, 0, 0, 0, 0, 0, 0, 0, time.monotonic() - began, f"the fault never fell: {reason}")


def _attempt(world: World, run: Run, name: str, began: float) -> Outcome:
    world.settle()
    added = world.rowbeam.add_tenant(name)
    rows = run.rng.randint(*ROWS)
    world.jobs.insert(rows, client=added.tenant.client_id)
    world.jobs.sql(
        f"UPDATE {TABLE} SET title = '{name} ' || title WHERE client_id = :client",
        client=added.tenant.client_id,
    )
    sent = len(world.gateway.texts)
    if run.kind in PUSHED:
        _push(world, run, added.tenant, added.api_key.text, rows)
        resumes, by_gateway = 0, False
    else:
        by_gateway = run.kind is Kind.GATEWAY or run.rng.random() < 0.5
        resumes = _job(world, run, added.tenant, rows, by_gateway)
    sent = len(world.gateway.texts) - sent
    world.settle()
    verdict, found = judge(world, [added.tenant, world.bystander])
    if verdict.is_exact and not any(found.values()):
        # A tenant takes tens of MiB, and the disk is small. What is not exact stays, to be looked at.
        world.rowbeam.remove_tenant(name)
    return Outcome(
        run,
        rows,
        lost=max(len(verdict.lost), found[Drift.MISSING] + found[Drift.STALE]),
        duplicated=max(
            len(verdict.extra), found[Drift.ORPHAN] + found[Drift.DUPLICATE] + found[Drift.WRONG_SPACE]
        ),
        leaked=max(len(verdict.leaked), found[Drift.WRONG_TENANT]),
        sent=sent if by_gateway else 0,
        counted=rows if by_gateway else 0,
        resumes=resumes,
        seconds=time.monotonic() - began,
        problem=_problem(verdict, found),
    )


def _problem(verdict: Verdict, found: dict[Drift, int]) -> str:
    drift = ", ".join(f"{count} {kind}" for kind, count in found.items() if count)
    return "; ".join(
        filter(None, ["" if verdict.is_exact else str(verdict), drift and f"reconcile: {drift}"])
    )


def _wait(world: World, run: Run, tenant: Tenant, rows: int, alive: Callable[[], bool]) -> None:
    """Until the run's share of the rows is in the ledger. Raises Missed when the work is over first."""
    deadline = time.monotonic() + _SECONDS
    while world.in_ledger(tenant) < max(1, int(run.moment * rows)):
        if not alive():
            raise Missed("the work was over")
        if time.monotonic() > deadline:
            raise AssertionError(f"no progress in {_SECONDS:g} s")
        time.sleep(0.05)
    time.sleep(run.delay)
    if not alive():
        raise Missed("the work was over")


class _Work:
    """Something done in a thread, whose result or error is asked for."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> Any:
        self._thread.join(_SECONDS)
        if self._thread.is_alive():
            raise AssertionError(f"still at work after {_SECONDS:g} s")
        if self._error is not None:
            raise self._error
        return self._result


def _job(world: World, run: Run, tenant: Tenant, rows: int, by_gateway: bool) -> int:
    """A backfill with the fault in it, resumed until it has succeeded. How often it was."""
    prefer = Preference.QUALITY if by_gateway else None
    seen: list[JobProgress] = []

    def backfill(**options: Any) -> JobProgress:
        return world.rowbeam.backfill(tenant.name, tables=[TABLE], on_progress=seen.append, **options)

    work = _Work(lambda: backfill(prefer=prefer))
    _wait(world, run, tenant, rows, work.is_alive)
    strike(world, run, lambda: _driver(world.jobs, tenant))
    resumes = 0
    job = _ended(work)
    while job is None or job.state is not JobState.SUCCEEDED:
        if resumes == _RESUMES:
            raise AssertionError(f"not done after {resumes} resumes: {job.error if job else 'no answer'}")
        resumes += 1
        world.settle()
        job = _ended(_Work(lambda: backfill(resume=seen[0].job_id)))
    return resumes


def _ended(work: _Work) -> JobProgress | None:
    """None when the caller was cut off by the fault."""
    try:
        job: JobProgress = work.end()
    except RowbeamError:
        return None
    return job


def _driver(site: JobSite, tenant: Tenant) -> psutil.Process:
    query = text(
        "SELECT owner_pid FROM rowbeam.jobs WHERE incarnation = :of ORDER BY created_at DESC LIMIT 1"
    )
    with site.database.connect() as connection:
        pid = connection.scalar(query, {"of": tenant.incarnation})
    if pid is None:
        raise Missed("the job had no driver")
    return psutil.Process(pid)


def _push(world: World, run: Run, tenant: Tenant, key: str, rows: int) -> None:
    """An extraction that sends its rows, each batch until it is acknowledged."""
    query = text(
        f"SELECT to_jsonb(it) - 'client_id' FROM {TABLE} AS it WHERE client_id = :client ORDER BY id"
    )
    with world.database.connect() as connection:
        records = connection.scalars(query, {"client": tenant.client_id}).all()

    def send() -> None:
        with world.client(key) as client:
            for first in range(0, rows, _BATCH):
                _send(client, records[first : first + _BATCH])

    work = _Work(send)
    _wait(world, run, tenant, rows, work.is_alive)
    strike(world, run, lambda: _driver(world.jobs, tenant))
    work.end()


def _send(client: httpx.Client, records: Sequence[dict[str, Any]]) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            answer = client.put(f"/v1/tables/{TABLE}/records", json={"records": records})
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.status_code == httpx.codes.OK:
            return
        if answer is not None and answer.status_code not in (429, 503):
            raise AssertionError(f"{answer.status_code} {answer.text[:200]}")
        if time.monotonic() > deadline:
            raise AssertionError("the server did not come back")
        time.sleep(0.3)


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
