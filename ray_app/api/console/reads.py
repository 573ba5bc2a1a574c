"""What the pages are made of, read where it is kept."""

from __future__ import annotations

import platform
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version

from ray_app.api.console.state import Console
from ray_app.api.services import Services
from ray_app.baseline import Baseline, load_baseline
from ray_app.console.alerts import RECENT, Budget, Observations
from ray_app.console.views.dead_letters import FEW, MANY, TENANTS, LettersView, letters_view
from ray_app.console.views.providers import DAYS, ProvidersView, providers_view
from ray_app.db import dead_letters, operators
from ray_app.errors import ConfigError, RowbeamError, UnknownTenant
from ray_app.reports import Check
from ray_app.stack.checks_data import check_source, describe_database
from ray_app.stack.checks_host import check_processor
from ray_app.stack.checks_services import check_encoder, check_gateway, check_model
from ray_app.stack.doctor import run_check
from ray_app.tenants import Tenant


def now() -> datetime:
    return datetime.now(UTC)


async def observe(console: Console) -> Observations:
    """What alerts are told from; at most a few seconds old."""
    return await console.observations.get(lambda: _observe(console.services))


async def _observe(services: Services) -> Observations:
    def read() -> Observations:
        ledger, moment = services.workspace.ledger, now()
        spent = operators.spent_since(ledger, operators.this_month())
        return Observations(
            moment,
            operators.job_marks(ledger),
            operators.count_dead_letters(ledger, moment - RECENT),
            [
                Budget(tenant.name, limit, spent.get(tenant.incarnation, operators.Spent()).cost)
                for tenant in services.workspace.registry.list()
                if (limit := tenant.limits.monthly_cost) is not None
            ],
            [reason.partition(":")[0] for reason in reasons],
            store_down=_fails(services.store.check),
        )

    reasons = await services.backend.not_ready()
    return await services.in_thread(read)


async def check_setup(console: Console) -> list[Check]:
    """Those of ``rowbeam doctor`` that a router can answer, and its providers'; some seconds old."""
    return await console.checks.get(lambda: _check(console.services))


async def _check(services: Services) -> list[Check]:
    workspace, settings = services.workspace, services.workspace.settings
    checks: list[tuple[str, Callable[[], str]]] = [
        ("Server", _describe_server),
        ("Database", lambda: describe_database(workspace.ledger, settings)),
        ("Source tables", partial(check_source, settings)),
        ("Vectors", services.store.check),
        ("Model", partial(check_model, settings)),
        ("Encoder", partial(check_encoder, settings)),
        ("Gateway", partial(check_gateway, settings)),
        ("Processor", partial(check_processor, settings)),
    ]
    found = [await services.in_thread(run_check, name, check) for name, check in checks]
    return [*found, await _check_providers(services)]


async def _check_providers(services: Services) -> Check:
    reasons = await services.backend.not_ready()
    if reasons:
        return Check(
            "Providers", ok=False, detail=" ".join(reasons), hint="They are tried again by themselves."
        )
    models = ", ".join(space.model for space in services.backend.spaces())
    return Check("Providers", ok=True, detail=f"All answer. Spaces served: {models}")


def _describe_server() -> str:
    return f"Rowbeam {version('rowbeam')}, Python {platform.python_version()}, Ray {version('ray')}"


def read_letters(services: Services, wanted: str) -> LettersView:
    """Open dead letters of ``wanted``, or of all tenants for "". Blocks. Raises UnknownTenant."""
    workspace, moment = services.workspace, now()
    counts = operators.count_dead_letters(workspace.ledger, moment - RECENT)
    if wanted:
        workspace.registry.get(wanted)
        counts = [entry for entry in counts if entry.tenant == wanted]
    letters = {}
    for name in list(dict.fromkeys(entry.tenant for entry in counts))[:TENANTS]:
        tenant = _active(services, name)
        if tenant is not None:
            limit = MANY if wanted else FEW
            letters[name] = dead_letters.list_open(workspace.ledger, tenant.incarnation, limit)
    return letters_view(counts, letters, wanted, moment)


def read_providers(services: Services) -> ProvidersView:
    """Blocks."""
    today = now().date()
    services.usage.flush()
    usage = operators.daily_usage(services.workspace.ledger, today - timedelta(days=DAYS - 1), today)
    served = [(space, services.backend.load(space)) for space in services.backend.spaces()]
    return providers_view(_baseline(services), usage, served, today)


def _baseline(services: Services) -> Baseline | str | None:
    try:
        return load_baseline(services.workspace.settings.home)
    except ConfigError as error:
        return str(error)


def _active(services: Services, name: str) -> Tenant | None:
    """None for a tenant that was removed a moment ago."""
    try:
        return services.workspace.registry.get(name)
    except UnknownTenant:
        return None


def _fails(check: Callable[[], str]) -> bool:
    try:
        check()
    except RowbeamError:
        return True
    return False
