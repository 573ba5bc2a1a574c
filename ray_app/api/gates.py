"""What a tenant's request passes before its route, where no tokens are at stake."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ray_app.api.principals import FromTenant
from ray_app.api.services import FromServices


async def admitted(services: FromServices, caller: FromTenant) -> AsyncIterator[None]:
    """Count the request against its tenant's limits while it is under way; for ``dependencies``.

    Raises:
        RateLimited, Overloaded: it has to come back later.
    """
    with services.admission.admit(caller.tenant, 0):
        yield
