"""The work that faults fall into: a backfill, or an extraction that pushes, each until it has succeeded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import psutil
from sqlalchemy import text

from ray_app.errors import RowbeamError
from ray_app.reports import JobProgress, JobState
from ray_app.spaces import Preference
from ray_app.tenants import Tenant
from tests.faults.breaking import Missed
from tests.faults.plan import Run
from tests.faults.world import World
from tests.support.site import TABLE, JobSite

#: Rows pushed in one call.
_BATCH: Final = 50
#: Times a job is resumed.
_RESUMES: Final = 4
#: Seconds without any progress after which something hangs.
SECONDS: Final = 240.0


@dataclass(frozen=True)
class Owner:
    """The tenant of a run, and its key."""

    tenant: Tenant
    key: str
    rows: int


class Work:
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
        self._thread.join(SECONDS)
        if self._thread.is_alive():
            raise AssertionError(f"still at work after {SECONDS:g} s")
        if self._error is not None:
            raise self._error
        return self._result


class Backfill:
    """A backfill, resumed until it has succeeded."""

    def __init__(self, world: World, owner: Owner, *, by_gateway: bool = False) -> None:
        self._world = world
        self._owner = owner
        self._seen: list[JobProgress] = []
        prefer = Preference.QUALITY if by_gateway else None
        self.work = Work(lambda: self._run(prefer=prefer))

    def _run(self, **options: Any) -> JobProgress:
        name = self._owner.tenant.name
        return self._world.rowbeam.backfill(name, tables=[TABLE], on_progress=self._seen.append, **options)

    def end(self) -> int:
        """How often it was resumed."""
        resumes = 0
        job = _ended(self.work)
        while job is None or job.state is not JobState.SUCCEEDED:
            if resumes == _RESUMES:
                raise AssertionError(f"not done after {resumes} resumes: {job.error if job else 'no answer'}")
            resumes += 1
            self._world.settle()
            job = _ended(Work(lambda: self._run(resume=self._seen[0].job_id)))
        return resumes

    def driver(self) -> psutil.Process:
        return _driver(self._world.jobs, self._owner.tenant)


class Extraction:
    """Rows pushed over HTTP, each batch until it is acknowledged; those that ``where`` chooses."""

    def __init__(self, world: World, owner: Owner, where: str = "TRUE") -> None:
        query = text(
            f"SELECT to_jsonb(it) - 'client_id' FROM {TABLE} AS it"
            f" WHERE client_id = :client AND {where} ORDER BY id"
        )
        with world.database.connect() as connection:
            self._records = connection.scalars(query, {"client": owner.tenant.client_id}).all()
        self._world = world
        self._key = owner.key
        self.work = Work(self._send_all)

    def _send_all(self) -> None:
        with self._world.client(self._key) as client:
            for first in range(0, len(self._records), _BATCH):
                _send(client, self._records[first : first + _BATCH])

    def end(self) -> int:
        self.work.end()
        return 0

    def driver(self) -> psutil.Process:
        raise Missed("an extraction has no driver")


def wait_for_moment(world: World, run: Run, owner: Owner, alive: Callable[[], bool]) -> None:
    """Until the run's share of the rows is in the ledger. Raises Missed when the work is over first."""
    deadline = time.monotonic() + SECONDS
    while world.in_ledger(owner.tenant) < max(1, int(run.moment * owner.rows)):
        if not alive():
            raise Missed("the work was over")
        if time.monotonic() > deadline:
            raise AssertionError(f"no progress in {SECONDS:g} s")
        time.sleep(0.05)
    time.sleep(run.delay)
    if not alive():
        raise Missed("the work was over")


def _ended(work: Work) -> JobProgress | None:
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


def _send(client: httpx.Client, records: Sequence[dict[str, Any]]) -> None:
    deadline = time.monotonic() + SECONDS
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
