"""Faults of the endpoint behind the proxy: no text is lost or at fault, and every token is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from ray_app.errors import ProviderRefused, ProviderUnavailable
from ray_app.providers.gateway_client import HARMLESS
from ray_app.serving.breaker import Circuit
from ray_app.serving.gateway_proxy import GatewayProxy
from ray_app.serving.port import EmbedCall, Lane
from tests.support import fake_gateway_steps as fake
from tests.support.gateway_helpers import assert_embedded
from tests.support.proxy_site import SOON, ProxySite, until_answered

CALLERS = 8
OUTAGES: dict[str, tuple[fake.Step, Circuit]] = {
    "429 with a wait": (fake.rate_limited(retry_after="1.5"), Circuit.THROTTLED),
    "429 without": (fake.rate_limited(), Circuit.THROTTLED),
    "no credit": (fake.insufficient_quota(), Circuit.REFUSED),
    "401": (fake.error(401), Circuit.REFUSED),
    "403": (fake.error(403), Circuit.REFUSED),
    "500": (fake.error(500), Circuit.FAILING),
    "503": (fake.error(503), Circuit.FAILING),
    "503 with a wait": (fake.error(503, retry_after_ms="20"), Circuit.FAILING),
    "slow": (fake.Trickle(0.05), Circuit.FAILING),
    "hang": (fake.Hang(), Circuit.FAILING),
    "reset": (fake.Drop(), Circuit.FAILING),
    "reset midway": (fake.Drop(midway=True), Circuit.FAILING),
    "not JSON": (fake.Reply(200, b'{"object": "list", "data": [{"emb'), Circuit.FAILING),
    "wrong dimension": (
        fake.items(lambda items: [item | {"embedding": [0.5] * 3} for item in items]),
        Circuit.REFUSED,
    ),
    "NaN": (
        fake.items(lambda items: [item | {"embedding": [float("nan")] * 8} for item in items]),
        Circuit.FAILING,
    ),
    "one index for all": (
        fake.items(lambda items: [item | {"index": 1} for item in items]),
        Circuit.FAILING,
    ),
}


def batches(count: int = CALLERS) -> list[list[str]]:
    return [[f"caller {caller} text {number}" for number in range(6)] for caller in range(count)]


@pytest.mark.parametrize("lane", Lane)
@pytest.mark.parametrize(("step", "circuit"), OUTAGES.values(), ids=OUTAGES)
def test_an_outage_costs_no_text_and_the_breaker_opens_and_closes(
    proxy_site: ProxySite, step: fake.Step, circuit: Circuit, lane: Lane
) -> None:
    seen: list[Circuit] = []
    timeout = 0.5 if isinstance(step, fake.Hang | fake.Trickle) else 10

    async def main() -> None:
        async with proxy_site.proxy(timeout=timeout, outage_budget=1) as proxy:
            calls = [proxy_site.call(proxy, texts, lane=lane) for texts in batches()]
            with proxy_site.gateway.outage(step):
                for _ in range(20):
                    if proxy.circuit is circuit:
                        break
                    failed = await asyncio.gather(
                        *(proxy.embed(call) for call in calls), return_exceptions=True
                    )
                    assert all(isinstance(error, ProviderUnavailable) for error in failed), failed
                seen.append(proxy.circuit)
            answers = await asyncio.gather(*(until_answered(proxy, call) for call in calls))
            for call, answer in zip(calls, answers, strict=True):
                assert_embedded(answer, list(call.texts))
            seen.append(proxy.circuit)

    asyncio.run(main())
    assert seen == [circuit, Circuit.CLOSED]


def test_while_the_circuit_is_open_nothing_is_sent_and_callers_are_told_at_once(
    proxy_site: ProxySite,
) -> None:
    async def main() -> None:
        async with proxy_site.proxy(policy=replace(SOON, cool_down=60), outage_budget=30) as proxy:
            call = proxy_site.call(proxy, ["a text"])
            with proxy_site.gateway.outage():
                await open_circuit(proxy, call)
                sent = len(proxy_site.gateway.requests)
                for _ in range(20):
                    with pytest.raises(ProviderUnavailable, match="503") as caught:
                        await proxy.embed(call)
                    assert caught.value.retry_after is not None
                    assert 0 < caught.value.retry_after <= 60
                with pytest.raises(ProviderUnavailable):
                    await proxy.check()
                assert len(proxy_site.gateway.requests) == sent

    asyncio.run(main())


def test_one_harmless_text_probes_however_many_wait(proxy_site: ProxySite) -> None:
    # The probe that fails doubles it: long enough for all the calls to come.
    policy = replace(SOON, cool_down=1.0, longest_cool_down=60)

    async def main() -> None:
        async with proxy_site.proxy(policy=policy) as proxy:
            calls = [proxy_site.call(proxy, texts) for texts in batches()]
            with proxy_site.gateway.outage():
                await open_circuit(proxy, calls[0])
                await asyncio.sleep(1.0)
                proxy_site.gateway.requests.clear()
                await asyncio.gather(*(proxy.embed(call) for call in calls), return_exceptions=True)
                assert [request.texts for request in proxy_site.gateway.requests] == [[HARMLESS]]

    asyncio.run(main())


async def open_circuit(proxy: GatewayProxy, call: EmbedCall) -> None:
    while proxy.circuit is not Circuit.FAILING:
        with pytest.raises(ProviderUnavailable):
            await proxy.embed(call)


def test_a_text_that_breaks_the_endpoint_harms_nobody_else(proxy_site: ProxySite) -> None:
    proxy_site.gateway.behaviour.poison = {"venom"}
    proxy_site.gateway.behaviour.poison_status = 500

    async def main() -> None:
        async with proxy_site.proxy() as proxy:
            bad = [proxy_site.call(proxy, [f"venom {number}", "good"]) for number in range(4)]
            good = [proxy_site.call(proxy, texts) for texts in batches()]
            answers = await asyncio.gather(*(until_answered(proxy, call) for call in [*bad, *good]))
            for answer in answers[: len(bad)]:
                assert set(answer.faults) == {0}
            for call, answer in zip(good, answers[len(bad) :], strict=True):
                assert_embedded(answer, list(call.texts))
            assert proxy.circuit is Circuit.CLOSED

    asyncio.run(main())


def test_vectors_that_are_left_out_are_asked_for_again(proxy_site: ProxySite) -> None:
    """The endpoint drops every second vector of every answer, for good."""

    async def main() -> None:
        async with proxy_site.proxy() as proxy:
            texts = batches(1)[0]
            with proxy_site.gateway.outage(fake.items(lambda items: items[::2])):
                assert_embedded(await proxy.embed(proxy_site.call(proxy, texts)), texts)

    asyncio.run(main())


def test_a_wrong_dimension_is_paid_for_once_not_by_every_caller(proxy_site: ProxySite) -> None:
    async def main() -> None:
        async with proxy_site.proxy(policy=replace(SOON, refused_cool_down=60)) as proxy:
            proxy_site.gateway.dimensions = 4
            call = proxy_site.call(proxy, ["a text"])
            with pytest.raises(ProviderRefused, match="4 dimensions where 8"):
                await proxy.embed(call)
            for _ in range(10):
                with pytest.raises(ProviderRefused, match="4 dimensions"):
                    await proxy.embed(call)
            assert len(proxy_site.gateway.requests) == 1

    asyncio.run(main())


BILLED: Sequence[fake.Step] = (
    fake.error(500),
    fake.rate_limited(retry_after_ms="10"),
    fake.items(lambda items: items[::2]),
    fake.items(lambda items: [item | {"index": 0} for item in items]),
    fake.items(lambda items: [item | {"embedding": [float("inf")] * 8} for item in items]),
    fake.Drop(),
    fake.items(lambda items: items[::-1]),
)


def test_the_cost_is_right_to_the_token(proxy_site: ProxySite) -> None:
    """Answers, failures, retries and probes: errors, ledger and the endpoint's own bill agree."""
    told: list[tuple[int, Decimal]] = []

    async def until_paid(proxy: GatewayProxy, call: EmbedCall) -> None:
        while True:
            try:
                answer = await proxy.embed(call)
            except ProviderUnavailable as error:
                told.append((error.tokens, error.cost))
                await asyncio.sleep(error.retry_after or 0.01)
            else:
                told.append((answer.tokens, answer.cost))
                assert_embedded(answer, list(call.texts))
                return

    async def main() -> None:
        async with proxy_site.proxy(outage_budget=0.2) as proxy:
            for turn in range(4):
                proxy_site.gateway.script(*BILLED[turn:], *BILLED[:turn], *[fake.error(503)] * 4)
                calls = [proxy_site.call(proxy, texts) for texts in batches()]
                await asyncio.gather(*(until_paid(proxy, call) for call in calls))

    asyncio.run(main())
    tokens = sum(tokens for tokens, _ in told)
    assert tokens > sum(len(texts) * 5 for texts in batches()) * 4, "some answers were paid for twice"
    assert tokens == proxy_site.gateway.charged
    assert sum(cost for _, cost in told) == tokens
    assert proxy_site.recorded() == (tokens, Decimal(tokens))
