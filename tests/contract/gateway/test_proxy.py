"""The gateway proxy when the endpoint is well: budgets, lanes, usage, and callers that go away."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import make_url, text

from ray_app.db.engine import engine_for
from ray_app.encoders.stub import STUB_SPACE
from ray_app.errors import BudgetExhausted, ConfigError, UnknownTenant
from ray_app.providers.port import Embedded
from ray_app.serving.cost_budget import most_tokens
from ray_app.serving.port import Lane, Purpose
from ray_app.serving.rate_budget import BURST_SHARE
from tests.support import fake_gateway_steps as fake
from tests.support.gateway_helpers import TEXTS, assert_embedded, expected
from tests.support.proxy_site import ProxySite
from tests.support.waiting import wait_for


def embed(site: ProxySite, texts: Sequence[str], purpose: Purpose = Purpose.DOCUMENT) -> Embedded:
    async def main() -> Embedded:
        async with site.proxy() as proxy:
            return await proxy.embed(replace(site.call(proxy, texts), purpose=purpose))

    return asyncio.run(main())


def test_an_answer_is_in_the_ledger_before_it_is_given(proxy_site: ProxySite) -> None:
    async def main() -> None:
        async with proxy_site.proxy() as proxy:
            answer = await proxy.embed(proxy_site.call(proxy, TEXTS))
            assert_embedded(answer, TEXTS)
            assert answer.tokens == proxy_site.gateway.charged == 30
            assert proxy_site.recorded() == (30, Decimal(30))
            assert proxy.load.queued_tokens == 0
            assert proxy.load.tokens_per_second > 0
            await proxy.check()

    asyncio.run(main())


def test_a_job_records_its_own_but_its_spending_counts(proxy_site: ProxySite) -> None:
    proxy_site.set_budget(most_tokens(TEXTS) + 29)

    async def main() -> None:
        async with proxy_site.proxy() as proxy:
            call = proxy_site.call(proxy, TEXTS, lane=Lane.BULK, job_id="j1")
            assert (await proxy.embed(call)).cost == 30
            with pytest.raises(BudgetExhausted):
                await proxy.embed(call)

    asyncio.run(main())
    assert proxy_site.recorded() == (0, 0)


@pytest.mark.parametrize("budget", [0, 500, 3000])
def test_a_hundred_calls_at_once_never_overspend(proxy_site: ProxySite, budget: int) -> None:
    proxy_site.set_budget(budget)

    async def main() -> list[Embedded | BaseException]:
        async with proxy_site.proxy() as proxy:
            calls = [proxy_site.call(proxy, [f"text {n} {'word ' * (n % 40)}"]) for n in range(100)]
            return await asyncio.gather(*(proxy.embed(call) for call in calls), return_exceptions=True)

    outcomes = asyncio.run(main())
    paid = sum(outcome.tokens for outcome in outcomes if isinstance(outcome, Embedded))
    assert all(isinstance(outcome, Embedded | BudgetExhausted) for outcome in outcomes)
    assert paid <= budget
    assert paid == proxy_site.gateway.charged
    assert proxy_site.recorded() == (paid, Decimal(paid))
    refused = sum(isinstance(outcome, BudgetExhausted) for outcome in outcomes)
    assert (refused > 0) == (budget < 3000)


def test_one_tenants_budget_is_not_anothers(proxy_site: ProxySite) -> None:
    proxy_site.set_budget(0)
    other = proxy_site.add_tenant("other", 2)

    async def main() -> None:
        async with proxy_site.proxy() as proxy:
            with pytest.raises(BudgetExhausted, match="monthly_cost"):
                await proxy.embed(proxy_site.call(proxy, TEXTS))
            assert_embedded(await proxy.embed(proxy_site.call(proxy, TEXTS, tenant=other)), TEXTS)

    asyncio.run(main())


def test_what_was_spent_before_a_restart_counts(proxy_site: ProxySite) -> None:
    proxy_site.set_budget(most_tokens(TEXTS))
    embed(proxy_site, TEXTS)
    with pytest.raises(BudgetExhausted):
        embed(proxy_site, TEXTS)


def test_a_caller_that_hangs_up_is_charged_for_what_is_on_the_wire(
    proxy_site: ProxySite, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with proxy_site.proxy(max_inputs=1) as proxy:
            proxy_site.gateway.behaviour.latency = 0.2
            call = asyncio.create_task(proxy.embed(proxy_site.call(proxy, TEXTS * 10)))
            while not proxy_site.gateway.requests:
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(main())
    requests = proxy_site.gateway.requests
    wait_for(lambda: all(request.status for request in requests))
    assert 0 < len(requests) < 100, "nothing more is sent"
    charged = proxy_site.gateway.charged
    assert charged > 0
    assert proxy_site.recorded() == (charged, Decimal(charged))
    gc.collect()
    assert "never retrieved" not in caplog.text, "that the caller has gone is no error"


def test_callers_and_jobs_share_one_limit_and_callers_come_first(proxy_site: ProxySite) -> None:
    async def main() -> None:
        async with proxy_site.proxy(requests_per_minute=600) as proxy:
            bulk = [
                asyncio.create_task(proxy.embed(proxy_site.call(proxy, [f"bulk {n}"], lane=Lane.BULK)))
                for n in range(400)  # more than leave in half a minute, whatever stalls
            ]
            while len(proxy_site.gateway.requests) < 40:
                await asyncio.sleep(0.01)
            online = [proxy_site.call(proxy, [f"online {n}"]) for n in range(10)]
            await asyncio.gather(*(proxy.embed(call) for call in online))
            assert sum(not task.done() for task in bulk) > 10, "jobs still wait while callers are answered"
            while len(proxy_site.gateway.requests) < 75:
                await asyncio.sleep(0.01)
            for task in bulk:
                task.cancel()
            await asyncio.gather(*bulk, return_exceptions=True)

    asyncio.run(main())
    check_rate([request.at for request in proxy_site.gateway.requests], limit=600)


def test_the_limits_an_endpoint_states_are_kept(proxy_site: ProxySite) -> None:
    headers = {"x-ratelimit-limit-requests": "600", "x-ratelimit-limit-tokens": "1000000"}
    vector = fake.vector_of("x", 8).tolist()
    body = {"data": [{"index": 0, "embedding": vector}], "usage": {"total_tokens": 1}}

    async def main() -> None:
        async with proxy_site.proxy() as proxy:
            proxy_site.gateway.script(fake.Reply(200, json.dumps(body).encode(), headers))
            await proxy.embed(proxy_site.call(proxy, ["x"]))
            calls = [proxy_site.call(proxy, [f"text {n}"]) for n in range(70)]
            await asyncio.gather(*(proxy.embed(call) for call in calls))

    asyncio.run(main())
    check_rate([request.at for request in proxy_site.gateway.requests], limit=600)


def check_rate(arrivals: Sequence[float], limit: int) -> None:
    """Any two seconds hold a burst and what flowed in since; arrivals may lag by a second."""
    burst, flow = limit * BURST_SHARE, limit * (1 - BURST_SHARE) / 60
    for at in arrivals:
        assert sum(at <= other < at + 2 for other in arrivals) <= burst + 3 * flow + 1
    assert len(arrivals) > burst, "or the limit was never reached"


def test_a_ledger_that_goes_away_delays_the_record_not_the_answer(
    proxy_site: ProxySite, database_url: str
) -> None:
    name = make_url(database_url).database

    def admit(connections: bool) -> None:
        admin = engine_for(make_url(database_url).set(database="postgres").render_as_string(False))
        with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {str(connections).lower()}"))
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
                {"name": name},
            )
        admin.dispose()

    async def main() -> None:
        async with proxy_site.proxy() as proxy:
            await proxy.embed(proxy_site.call(proxy, TEXTS))
            await asyncio.to_thread(admit, False)
            for _ in range(3):
                assert_embedded(await proxy.embed(proxy_site.call(proxy, TEXTS)), TEXTS)
            await asyncio.to_thread(admit, True)
            assert proxy_site.recorded() == (30, 30)

    asyncio.run(main())
    assert proxy_site.recorded() == (120, 120), "closing writes what was kept"


def test_texts_of_another_space_and_of_nobody_are_refused(proxy_site: ProxySite) -> None:
    async def main() -> None:
        async with proxy_site.proxy() as proxy:
            call = proxy_site.call(proxy, TEXTS)
            with pytest.raises(ConfigError, match="stub"):
                await proxy.embed(replace(call, space=STUB_SPACE))
            with pytest.raises(UnknownTenant):
                await proxy.embed(replace(call, incarnation=uuid4()))
            assert proxy_site.gateway.requests == []

    asyncio.run(main())


def test_a_query_and_an_empty_text(proxy_site: ProxySite) -> None:
    answer = embed(proxy_site, ["find me", " "], purpose=Purpose.QUERY)
    np.testing.assert_allclose(answer.vectors[:1], expected(["find me"]), rtol=1e-5)
    assert set(answer.faults) == {1}
