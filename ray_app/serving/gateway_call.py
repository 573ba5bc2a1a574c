"""One call through the gateway proxy: each of its requests passes the breaker, the limits and the budget."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ray_app.errors import BudgetExhausted, Overloaded, ProviderUnavailable
from ray_app.metrics.declared import GATEWAY_SECONDS
from ray_app.providers.approximate_chunker import estimate_tokens
from ray_app.providers.gateway_client import HARMLESS
from ray_app.providers.gateway_faults import Fault, Verdict
from ray_app.providers.gateway_transport import Attempt, Call
from ray_app.providers.gateway_wire import Answer
from ray_app.serving.breaker import CircuitBreaker
from ray_app.serving.cost_budget import Account, most_tokens
from ray_app.serving.port import Lane
from ray_app.serving.rate_budget import RateBudget
from ray_app.tracing.spans import annotate, span

_TOO_MANY_REQUESTS: Final = 429


class ProxiedCall(Call):
    """The requests of one call, or of one probe. All of a proxy's calls share its breaker and limits."""

    def __init__(
        self,
        label: str,
        breaker: CircuitBreaker,
        rate: RateBudget,
        account: Account,
        *,
        lane: Lane,
        patience: float,
        probing: bool = False,
    ) -> None:
        """``patience`` is how long to put up with waits and failures, in seconds; ``label`` names the
        endpoint in messages."""
        super().__init__(patience)
        self._label = label
        self._breaker = breaker
        self._rate = rate
        self._account = account
        self._lane = lane
        self._patience = patience
        self._probing = probing

    async def attempt(self, texts: Sequence[str], send: Callable[[], Awaitable[Attempt]]) -> Attempt:
        """Send one request when breaker, limits and budget allow, and tell them how it went.

        Raises:
            ProviderUnavailable: the circuit is open, or the endpoint asks to wait beyond the patience.
            Overloaded: the endpoint's limits would keep a caller waiting beyond the patience.
            BudgetExhausted: the tenant's budget does not cover another request.
        """
        most, estimate = most_tokens(texts), sum(map(estimate_tokens, texts))
        attempt = None
        try:
            self._account.cover(most)
        except BudgetExhausted as error:
            raise self.fail(error) from None
        try:
            with span("gateway wait"):
                await self._admit(estimate)
            era = self._breaker.era
            began = time.perf_counter()
            with span("gateway request", kind="client", texts=len(texts), estimated_tokens=estimate):
                attempt = await send()
                annotate(outcome=outcome_of(attempt.outcome))
            GATEWAY_SECONDS.observe(time.perf_counter() - began, self._lane, outcome_of(attempt.outcome))
        finally:
            self._account.settle(most, attempt.tokens if attempt else 0)
        self.tokens += attempt.tokens
        self._rate.settle(estimate, attempt.tokens or estimate)
        self._rate.learn(attempt.headers)
        self._report(texts, attempt.outcome, era)
        return attempt

    async def _admit(self, tokens: int) -> None:
        self._check_circuit()
        try:
            # A job's turn may come late, as long as callers are answered; that is no outage.
            patience = self._patience if self._lane is Lane.INTERACTIVE else math.inf
            await self._rate.take(tokens, self._lane, patience)
        except Overloaded as error:
            raise self.fail(error) from None
        try:
            await self._wait_out_throttle()
            self.check()
        except BaseException:
            self._rate.settle(tokens, 0, requests=0)
            raise

    async def _wait_out_throttle(self) -> None:
        self._check_circuit()
        while not self._probing and (wait := self._breaker.wait) > 0:
            if not self.clock.failed(time.monotonic(), wait):
                message = f"The gateway {self._label} asks to wait."
                raise self.fail(ProviderUnavailable(message, retry_after=wait))
            await self.pause(wait)
            self.check()
            self._check_circuit()

    def _check_circuit(self) -> None:
        if self._probing:
            return
        try:
            self._breaker.check()
        except ProviderUnavailable as error:
            raise self.fail(error) from None

    def _report(self, texts: Sequence[str], outcome: Answer | Fault, era: int) -> None:
        if self._probing:
            # Who probes tells the outcome; but a 429 is a sign of life.
            if isinstance(outcome, Fault) and _throttles(outcome):
                self._breaker.probe_succeeded()
                self._breaker.throttled(self._breaker.era, outcome.asked)
        elif isinstance(outcome, Answer):
            if len(outcome.unusable) < len(texts):
                self._breaker.succeeded(era)
            else:
                self._report_failure(era, "it answers without usable vectors", texts)
        elif outcome.verdict in {Verdict.REFUSED, Verdict.TOO_LARGE}:
            self._breaker.succeeded(era)
        elif outcome.verdict is Verdict.DENIED:
            self._breaker.refused(era, f"The gateway {self._label} refuses ({outcome.reason}).", outcome.hint)
        elif _throttles(outcome):
            self._breaker.throttled(era, outcome.asked)
        else:
            self._report_failure(
                era, outcome.reason, texts if outcome.verdict is Verdict.SUSPECT else [HARMLESS]
            )
            if outcome.asked is not None:
                self._breaker.throttled(era, outcome.asked)

    def _report_failure(self, era: int, reason: str, texts: Sequence[str]) -> None:
        self._breaker.failed(
            era, f"The gateway {self._label} is unavailable: {reason}.", suspect=list(texts) != [HARMLESS]
        )


def outcome_of(outcome: Answer | Fault) -> str:
    """How a request ended, in the words of its metric."""
    if isinstance(outcome, Answer):
        return "answered"
    if _throttles(outcome):
        return "throttled"
    refusals = {Verdict.REFUSED: "refused", Verdict.TOO_LARGE: "refused", Verdict.DENIED: "denied"}
    return refusals.get(outcome.verdict, "failed")


def _throttles(fault: Fault) -> bool:
    return fault.verdict is Verdict.WAIT and fault.status == _TOO_MANY_REQUESTS
