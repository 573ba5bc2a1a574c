"""What online embedding used, noted where no provider notes it."""

from __future__ import annotations

from typing import Final

from ray_app.api.services import Services
from ray_app.serving.splitting import Joined
from ray_app.serving.usage_log import UsageKey
from ray_app.spaces import EmbeddingSpace
from ray_app.tenants import Tenant

#: The provider that writes its own usage to the ledger before it answers, for it is charged for it.
_RECORDS_ITSELF: Final = "gateway"


def record_usage(
    services: Services, tenant: Tenant, space: EmbeddingSpace, joined: Joined, *, table: str = ""
) -> None:
    """Add what local models did for ``joined`` to the tenant's usage."""
    for share in joined.shares:
        if share.provider != _RECORDS_ITSELF:
            key = UsageKey(tenant.incarnation, share.provider, space.model, table)
            services.usage.add(key, texts=share.texts, tokens=share.tokens, seconds=share.seconds)
