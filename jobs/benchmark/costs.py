"""What embedding many rows takes with each provider, as a plan of a backfill reckons it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from jobs.benchmark.site import INSERT
from ray_app.app import Rowbeam
from ray_app.planning import Rates, Survey, choose_targets, estimate, rates_of, survey_target
from ray_app.providers.pricing import DEFAULT_PRICES
from ray_app.reports import JobState
from ray_app.settings import GatewaySettings, Settings
from ray_app.spaces import Preference
from ray_app.workspace import Workspace

#: Sizes of table that costs are told for.
ROWS: Final = (1_000_000, 10_000_000)
TABLE: Final = "pull_requests"
#: A plan asks no gateway whose model it knows; nothing answers here.
_NOWHERE: Final = "http://127.0.0.1:9/v1"


@dataclass(frozen=True)
class Cost:
    """A million rows out of a table of ``rows`` rows, in one space."""

    rows: int
    provider: str
    model: str
    tokens: int
    seconds: float
    dollars: float
    #: Whether the speed was measured here; it is the plan's assumption otherwise.
    measured: bool

    def told(self) -> str:
        speed = "measured" if self.measured else "assumed"
        return (
            f"{self.provider} {self.model}: {self.tokens / 1e6:.1f} million tokens,"
            f" {self.seconds / 3600:.2f} h at the {speed} speed, ${self.dollars:.2f}"
        )


def measure_speed(settings: Settings, tenant: str, client: int, rows: int) -> None:
    """Backfill ``rows`` generated rows with the local model of ``settings``, whose speed plans then know.

    Raises RuntimeError when the job fails.
    """
    with Rowbeam.open(settings) as rowbeam:
        rowbeam.add_tenant(tenant, client_id=client)
        with rowbeam.workspace.ledger.begin() as connection:
            connection.execute(INSERT, {"rows": rows, "client": client})
        job = rowbeam.backfill(tenant, tables=[TABLE])
    if job.state is not JobState.SUCCEEDED:
        raise RuntimeError(f"The job that measures {settings.local_model} did not succeed: {job.error}")


def costs(settings: Settings, tenant: str, local_model: str, gateway: GatewaySettings | None) -> list[Cost]:
    """The costs of rows as ``tenant`` has them, with the local model and with the gateway.

    Without a gateway it is each model whose price is known, asked for nothing: their plans are made
    of the price table.
    """
    local = settings.model_copy(update={"local_model": local_model})
    gateways = [gateway] if gateway else [_priced(model) for model in DEFAULT_PRICES]
    found = list(_costs(local, tenant, Preference.FAST))
    for one in gateways:
        found += _costs(local.model_copy(update={"gateway": one}), tenant, Preference.QUALITY)
    return found


def _priced(model: str) -> GatewaySettings:
    return GatewaySettings(url=_NOWHERE, model=model)


def _costs(settings: Settings, tenant: str, prefer: Preference) -> Iterator[Cost]:
    workspace = Workspace(settings)
    try:
        owner = workspace.registry.get(tenant)
        (target,), _ = choose_targets(workspace, owner, [TABLE], None, prefer)
        space = target.reader.index.space
        yield from _at(ROWS, survey_target(workspace, target), rates_of(workspace, space), space.model)
    finally:
        workspace.close()


def _at(sizes: Sequence[int], survey: Survey, rates: Rates, model: str) -> Iterator[Cost]:
    for rows in sizes:
        millions = rows / 1_000_000
        whole = estimate(survey, rows, rates)
        yield Cost(
            rows=rows,
            provider=rates.provider,
            model=model,
            tokens=round(whole.tokens / millions),
            seconds=round(whole.seconds / millions, 1),
            dollars=float(whole.cost) / millions,
            measured=rates.measured,
        )
