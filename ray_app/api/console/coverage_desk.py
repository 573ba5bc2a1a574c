"""Coverage for pages: counted in the background, for it reads whole tables, and remembered."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from ray_app.api.errors import say
from ray_app.api.services import Services
from ray_app.console.views.tenants import Counted
from ray_app.coverage import coverage
from ray_app.errors import RowbeamError
from ray_app.reports import CoverageRow
from ray_app.tenants import Tenant

#: Seconds for which a count is good enough; at least so many times what it took, so that a page that is
#: left open keeps a thread busy for a twentieth of the time at most.
FRESH: Final = 15.0
_REST: Final = 20.0
#: Tenants remembered; the one that was counted longest ago makes room.
_TENANTS: Final = 1000


class CoverageDesk:
    """Counts when it is asked to and what it knows is old. Used on one event loop."""

    def __init__(self, services: Services, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._clock = clock
        self._known: OrderedDict[UUID, tuple[float, Counted]] = OrderedDict()
        self._under_way: dict[UUID, asyncio.Task[None]] = {}
        self._waiting: OrderedDict[UUID, Tenant] = OrderedDict()
        self._worker: asyncio.Task[None] | None = None

    def known(self, tenant: Tenant) -> Counted | None:
        found = self._known.get(tenant.incarnation)
        return found[1] if found else None

    async def soon(self, tenant: Tenant, patience: float) -> Counted | None:
        """Count it now; what is known after ``patience`` seconds at the latest."""
        if self._is_old(tenant):
            await asyncio.wait([self._begin(tenant)], timeout=patience)
        return self.known(tenant)

    async def later(self, tenants: Iterable[Tenant], patience: float) -> dict[UUID, Counted]:
        """Count them one after the other, a tenant's own requests between; what is known by then."""
        for tenant in tenants:
            if self._is_old(tenant):
                self._waiting.setdefault(tenant.incarnation, tenant)
        if self._waiting and (self._worker is None or self._worker.done()):
            self._worker = asyncio.create_task(self._work())
        if self._worker is not None and not self._worker.done():
            await asyncio.wait([self._worker], timeout=patience)
        return {incarnation: counted for incarnation, (_, counted) in self._known.items()}

    def _is_old(self, tenant: Tenant) -> bool:
        found = self._known.get(tenant.incarnation)
        if found is None:
            return True
        at, counted = found
        return self._clock() - at > max(FRESH, _REST * counted.seconds)

    async def _work(self) -> None:
        while self._waiting:
            _, tenant = self._waiting.popitem(last=False)
            if self._is_old(tenant):
                await asyncio.wait([self._begin(tenant)])

    def _begin(self, tenant: Tenant) -> asyncio.Task[None]:
        task = self._under_way.get(tenant.incarnation)
        if task is None:
            task = asyncio.create_task(self._count(tenant))
            self._under_way[tenant.incarnation] = task
            task.add_done_callback(lambda _: self._under_way.pop(tenant.incarnation, None))
        return task

    async def _count(self, tenant: Tenant) -> None:
        services, began = self._services, self._clock()

        def read() -> list[CoverageRow]:
            return coverage(services.workspace, tenant)

        rows: list[CoverageRow] = []
        failure = None
        try:
            rows = await services.surveys.run(tenant, lambda: services.in_thread(read))
        except RowbeamError as error:
            failure = f"It could not be counted. {say(error)[1]}"
        now = self._clock()
        counted = Counted(tuple(rows), datetime.now(UTC), now - began, failure)
        self._known[tenant.incarnation] = now, counted
        self._known.move_to_end(tenant.incarnation)
        if len(self._known) > _TENANTS:
            self._known.popitem(last=False)
