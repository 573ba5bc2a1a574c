"""The gateway as a job uses it where no server runs: outages are ridden out, spending is never forgotten."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest

from jobs.gateway import BulkGateway
from jobs.stages import BULK_NICENESS
from ray_app.errors import BudgetExhausted, ProviderRefused, ProviderUnavailable
from ray_app.providers.gateway import gateway_space
from ray_app.serving.cost_budget import most_tokens
from ray_app.settings import GatewaySettings
from tests.support import fake_gateway_steps as fake
from tests.support.fake_gateway import FakeGateway
from tests.support.gateway_helpers import KEY, QUICK, TEXTS, assert_embedded, expected
from tests.support.proxy_site import ProxySite

Connect = Callable[..., BulkGateway]


@pytest.fixture
def connect_job(proxy_site: ProxySite) -> Iterator[Connect]:
    made: list[BulkGateway] = []

    def connect(**settings: object) -> BulkGateway:
        values = {
            "url": proxy_site.gateway.url,
            "api_key": KEY,
            "model": "fake-embedding",
            "dimensions": 8,
            "timeout": 5.0,
            "outage_budget": 5.0,
            "price_per_million": 1_000_000,
        } | settings
        gateway = GatewaySettings.model_validate(values)
        proxy_site.workspace.settings = proxy_site.workspace.settings.model_copy(update={"gateway": gateway})
        incarnation = proxy_site.tenant.incarnation
        made.append(BulkGateway(proxy_site.workspace, gateway_space(gateway), incarnation, "job-1", QUICK))
        return made[-1]

    yield connect
    for provider in made:
        provider.close()


def test_a_job_rides_out_an_outage_and_pays_for_every_answer(
    gateway: FakeGateway, proxy_site: ProxySite, connect_job: Connect
) -> None:
    provider = connect_job(outage_budget=30)
    useless = fake.items(lambda items: [item | {"index": 0} for item in items])
    gateway.script(useless, *[fake.error(503)] * 4)
    with gateway.outage():
        threading.Timer(0.5, lambda: setattr(gateway.behaviour, "outage", None)).start()
        answer = provider.embed_documents(TEXTS)
    assert_embedded(answer, TEXTS)
    assert answer.tokens == gateway.charged > 30
    assert answer.cost == answer.tokens
    assert proxy_site.recorded() == (0, 0), "a job records its own, with the part"


def test_an_outage_beyond_the_budget_is_raised_with_what_was_spent(
    gateway: FakeGateway, connect_job: Connect
) -> None:
    provider = connect_job(outage_budget=0.3)
    gateway.script(fake.items(lambda items: [item | {"index": 0} for item in items]))
    with gateway.outage(), pytest.raises(ProviderUnavailable) as caught:
        provider.embed_documents(TEXTS)
    assert (caught.value.tokens, caught.value.cost) == (30, Decimal(30))


def test_what_only_an_operator_can_change_is_not_waited_for(
    gateway: FakeGateway, connect_job: Connect
) -> None:
    provider = connect_job(outage_budget=300)
    gateway.script(fake.insufficient_quota())
    with pytest.raises(ProviderRefused, match="quota"):
        provider.embed_documents(TEXTS)


def test_a_spent_budget_ends_the_job_at_once_and_says_what_to_do(
    gateway: FakeGateway, proxy_site: ProxySite, connect_job: Connect
) -> None:
    proxy_site.set_budget(most_tokens(TEXTS))
    provider = connect_job(outage_budget=300)
    assert provider.embed_documents(TEXTS).cost == 30
    with pytest.raises(BudgetExhausted, match="monthly_cost"):
        provider.embed_documents(TEXTS)
    assert gateway.charged == 30


def test_a_query_is_embedded_too(connect_job: Connect) -> None:
    vector = connect_job().embed_query("find me")
    assert vector == pytest.approx(expected(["find me"])[0])


def test_a_local_encoder_yields_to_callers() -> None:
    code = "import os, jobs.stages as s; [s.yield_to_callers() for _ in '12']; print(os.nice(0))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) == max(BULK_NICENESS, os.nice(0))
