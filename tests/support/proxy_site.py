"""A gateway proxy over a fake gateway and a real ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import select, update

from ray_app.db.schema import tenants, usage
from ray_app.errors import ProviderUnavailable
from ray_app.providers.approximate_chunker import estimate_tokens
from ray_app.providers.port import Embedded
from ray_app.serving.breaker import BreakerPolicy
from ray_app.serving.gateway_proxy import GatewayProxy
from ray_app.serving.port import EmbedCall, Lane, Purpose
from ray_app.settings import GatewaySettings
from ray_app.tenants import Limits, Placement, Tenant
from ray_app.workspace import Workspace
from tests.support.fake_gateway import FakeGateway
from tests.support.gateway_helpers import KEY, QUICK

#: No test should wait for real cool-downs.
SOON = BreakerPolicy(
    failures=3,
    cool_down=0.05,
    longest_cool_down=0.2,
    refused_cool_down=0.1,
    longest_refused_cool_down=0.3,
    throttle=0.05,
    longest_throttle=2.0,
)


@dataclass
class ProxySite:
    """A tenant ``acme`` whose calls go through a proxy to ``gateway``, at a dollar a token."""

    gateway: FakeGateway
    workspace: Workspace
    tenant: Tenant = field(init=False)

    def __post_init__(self) -> None:
        self.tenant = self.add_tenant("acme", 1)

    def add_tenant(self, name: str, client_id: int) -> Tenant:
        return self.workspace.registry.create(name, client_id, Placement.EMBEDDED)[0]

    def set_budget(self, dollars: int | None) -> None:
        limits = Limits(monthly_cost=None if dollars is None else Decimal(dollars))
        with self.workspace.ledger.begin() as connection:
            connection.execute(
                update(tenants)
                .where(tenants.c.incarnation == self.tenant.incarnation)
                .values(limits=limits.to_json())
            )

    @asynccontextmanager
    async def proxy(self, *, policy: BreakerPolicy = SOON, **settings: Any) -> AsyncIterator[GatewayProxy]:
        values = {
            "url": self.gateway.url,
            "api_key": KEY,
            "model": "fake-embedding",
            "timeout": 5.0,
            "outage_budget": 5.0,
            "price_per_million": 1_000_000,
        } | settings
        gateway = GatewaySettings.model_validate(values)
        self.workspace.settings = self.workspace.settings.model_copy(update={"gateway": gateway})
        proxy = await asyncio.to_thread(GatewayProxy, self.workspace, policy=policy, backoff=QUICK)
        self.gateway.requests.clear()
        try:
            yield proxy
        finally:
            await proxy.close()

    def call(
        self,
        proxy: GatewayProxy,
        texts: Sequence[str],
        *,
        lane: Lane = Lane.INTERACTIVE,
        job_id: str = "",
        tenant: Tenant | None = None,
    ) -> EmbedCall:
        return EmbedCall(
            space=proxy.space,
            texts=texts,
            tokens=[estimate_tokens(text) for text in texts],
            incarnation=(tenant or self.tenant).incarnation,
            purpose=Purpose.DOCUMENT,
            lane=lane,
            table="issues",
            job_id=job_id,
        )

    def recorded(self) -> tuple[int, Decimal]:
        """Tokens and dollars in the ledger, of everybody."""
        with self.workspace.ledger.connect() as connection:
            rows = connection.execute(select(usage)).all()
        return sum(row.tokens for row in rows), sum((row.cost for row in rows), Decimal(0))


async def until_answered(proxy: GatewayProxy, call: EmbedCall, tries: int = 50) -> Embedded:
    """As a client that obeys: calls again after the wait it is told."""
    for _ in range(tries):
        try:
            return await proxy.embed(call)
        except ProviderUnavailable as error:
            await asyncio.sleep(error.retry_after or 0.01)
    raise AssertionError(f"not answered in {tries} tries; the circuit is {proxy.circuit}")
