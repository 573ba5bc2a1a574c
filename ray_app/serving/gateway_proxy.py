"""The one place that talks to the AI gateway, for callers and for jobs."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass
from datetime import date
from typing import Final
from uuid import UUID

from ray_app.db.budgets import Standing, read_standing
from ray_app.errors import BudgetExhausted, ConfigError, ProviderRefused, ProviderUnavailable, RowbeamError
from ray_app.metrics.declared import GATEWAY_CIRCUIT, GATEWAY_OPENINGS
from ray_app.providers.gateway import gateway_space
from ray_app.providers.gateway_client import GatewayClient, Work
from ray_app.providers.gateway_endpoint import endpoint_of
from ray_app.providers.port import Embedded
from ray_app.providers.pricing import price_per_million
from ray_app.providers.retry import Backoff
from ray_app.serving.breaker import BreakerPolicy, Circuit, CircuitBreaker
from ray_app.serving.cost_budget import Account, CostBudgets, most_tokens
from ray_app.serving.gateway_call import ProxiedCall
from ray_app.serving.port import EmbedCall, Lane, Load, Purpose
from ray_app.serving.rate_budget import RateBudget
from ray_app.serving.speed import Speed
from ray_app.serving.usage_log import UsageKey, UsageLog
from ray_app.serving.usage_writer import UsageWriter
from ray_app.spaces import EmbeddingSpace
from ray_app.workspace import Workspace

logger: Final = logging.getLogger(__name__)

#: Requests under way at once, by lane: jobs never take the connections of callers.
CONCURRENCY: Final = {Lane.INTERACTIVE: 16, Lane.BULK: 4}
#: Seconds of waits and failures that a call is carried through. A job that wants more calls again.
PATIENCE: Final = 10.0
#: Seconds one request may take at most; a job's may be as long as the settings say.
TIMEOUT: Final = {Lane.INTERACTIVE: 30.0, Lane.BULK: math.inf}
#: Seconds that calls under way get to finish when the proxy is closed.
GRACE: Final = 5.0


@dataclass(eq=False)
class _Request:
    """A call that is being served."""

    call: EmbedCall
    #: Its requests, once there are any.
    proxied: ProxiedCall | None = None
    #: The caller is gone.
    abandoned: bool = False

    def abandon(self) -> None:
        """Send nothing more; what is on the wire is awaited, for it is paid for."""
        self.abandoned = True
        if self.proxied is not None:
            self.proxied.fail(ProviderUnavailable("The caller has gone."))


class GatewayProxy:
    """An ``EmbeddingTarget`` over the gateway of a workspace's settings; belongs to one event loop.

    Every HTTP request passes the endpoint's rate budget (callers before jobs), its circuit breaker
    and the tenant's cost budget, retries and probes included. What a call is charged is counted
    against the budget even if it fails or its caller hangs up, and for online calls is in the
    ledger before the answer is given; a job records its own. A request that ends without an answer
    may be billed by the endpoint all the same: nobody can tell, and it counts as free.

    There must be one for each endpoint key, or the limits and budgets hold for each one alone.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        space: EmbeddingSpace | None = None,
        policy: BreakerPolicy | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """``space`` saves the request that finds the size of an unknown model's vectors.

        Raises:
            ProviderUnavailable: that request failed.
            ConfigError: no gateway is configured, or its URL or key cannot be used.
        """
        settings = workspace.settings.gateway
        if settings is None:
            raise ConfigError("No gateway is configured.", hint="Set ROWBEAM_GATEWAY_URL.")
        endpoint = endpoint_of(settings)
        self._space = space or gateway_space(settings, backoff=backoff)
        self._label = endpoint.label
        self._model = settings.model
        self._ledger = workspace.ledger
        self._breaker = CircuitBreaker(policy)
        self._rate = RateBudget(settings.requests_per_minute, settings.tokens_per_minute)
        self._price = price_per_million(settings.model, settings.price_per_million)
        self._budgets = CostBudgets(self._read_standing, self._price)
        self._usage = UsageLog(workspace.ledger)
        self._writer = UsageWriter(self._usage)
        self._clients = {
            lane: GatewayClient(
                settings.model_copy(update={"timeout": min(settings.timeout, TIMEOUT[lane])}),
                endpoint,
                dimensions=self._space.dimensions,
                concurrency=CONCURRENCY[lane],
                backoff=backoff or Backoff(),
            )
            for lane in Lane
        }
        self._patience = min(PATIENCE, settings.outage_budget)
        self._under_way: dict[asyncio.Task[Embedded], _Request] = {}
        self._speed = Speed()
        for circuit in (Circuit.FAILING, Circuit.REFUSED):
            GATEWAY_OPENINGS.start(circuit)

    def __repr__(self) -> str:
        return f"GatewayProxy({self._label!r}, model={self._model!r})"

    @property
    def name(self) -> str:
        return "gateway"

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    def circuit(self) -> Circuit:
        """The state of the breaker."""
        return self._breaker.circuit

    def sample(self) -> None:
        """Set the gauges of the breaker."""
        GATEWAY_CIRCUIT.choose(self._breaker.circuit, Circuit)

    @property
    def load(self) -> Load:
        """Tokens as the calls guessed them, and as the gateway counted them."""
        queued = sum(request.call.total_tokens for request in self._under_way.values())
        return Load(queued, self._speed.tokens_per_second)

    async def embed(self, call: EmbedCall) -> Embedded:
        """The vectors of ``call.texts``; texts at fault are named in ``faults``.

        Raises:
            ProviderUnavailable: the gateway is down, throttles or refuses (ProviderRefused), with what
                was spent before.
            Overloaded: the endpoint's limits for this minute are used up.
            BudgetExhausted: the tenant's budget does not cover the call.
            RateLimited: the rest of the budget is held by the tenant's calls under way.
            ConfigError: the call is for another space.
            UnknownTenant: nobody to charge.
            DatabaseUnavailable: the ledger is down and nothing is known of the tenant's budget.
        """
        if call.space.space_id != self._space.space_id:
            raise ConfigError(f"The gateway serves {self._space.model}, not {call.space.model}.")
        request = _Request(call)
        task = asyncio.create_task(self._serve(request))
        self._under_way[task] = request
        task.add_done_callback(self._under_way.pop)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            request.abandon()
            task.add_done_callback(_end_unheard)
            raise

    async def check(self) -> None:
        """Raises ProviderUnavailable while the circuit is open. Asks the endpoint nothing: that costs."""
        if self._breaker.wait > 0:
            self._breaker.check()

    async def close(self) -> None:
        """Let calls under way finish for ``GRACE`` seconds, record what they spent, close connections."""
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=GRACE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._writer.close()
        for client in self._clients.values():
            await client.aclose()

    async def _serve(self, request: _Request) -> Embedded:
        call = request.call
        prefix = self._space.query_prefix if call.purpose is Purpose.QUERY else self._space.document_prefix
        texts = [prefix + text if text else text for text in call.texts]
        if self._breaker.wait > 0:
            self._breaker.check()
        account = await self._budgets.open(call.incarnation, most_tokens(texts), self._patience)
        work = None
        started = time.monotonic()
        self._speed.begin()
        try:
            work = await self._embed(request, account, texts)
        except (ProviderUnavailable, BudgetExhausted) as error:
            error.tokens, error.cost = account.spent_tokens, account.cost
            raise
        finally:
            account.close()
            answered = 0 if work is None else len(texts) - len(work.faults)
            self._speed.end(account.spent_tokens if answered else 0)
            await self._record(request, account, answered, time.monotonic() - started)
        return Embedded(work.vectors, account.spent_tokens, account.cost, work.faults)

    async def _embed(self, request: _Request, account: Account, texts: list[str]) -> Work:
        lane = request.call.lane
        if self._breaker.take_probe():
            await self._probe(account, lane)
        client = self._clients[lane]
        if lane is Lane.BULK and math.isfinite(self._rate.bulk_tokens):
            client.lower(max_tokens=int(self._rate.bulk_tokens))
        request.proxied = self._proxied(account, lane)
        if request.abandoned:
            request.abandon()
        work = Work(request.proxied, texts, self._space.dimensions)
        try:
            await client.embed(work)
        except ProviderRefused as error:
            # Such as vectors of another size: not one request's failure, and each try would be charged.
            self._breaker.refused(self._breaker.era, error.message, error.hint)
            raise self._timed(error) from None
        except ProviderUnavailable as error:
            raise self._timed(error) from None
        return work

    async def _probe(self, account: Account, lane: Lane) -> None:
        """Decide about the open circuit with one harmless text, at the expense of the call that needs it."""
        call = self._proxied(account, lane, probing=True)
        try:
            await self._clients[lane].probe(call)
        except ProviderUnavailable as error:
            if self._breaker.circuit is Circuit.PROBING:
                refused = isinstance(error, ProviderRefused)
                self._breaker.probe_failed(error.message, refused=refused, hint=error.hint)
            raise self._timed(error) from None
        except BaseException:
            self._breaker.drop_probe()
            raise
        self._breaker.probe_succeeded()
        logger.info("The gateway %s answers again.", self._label)

    def _proxied(self, account: Account, lane: Lane, *, probing: bool = False) -> ProxiedCall:
        return ProxiedCall(
            self._label,
            self._breaker,
            self._rate,
            account,
            lane=lane,
            patience=0.0 if probing else self._patience,
            probing=probing,
        )

    def _timed(self, error: RowbeamError) -> RowbeamError:
        """The error with the wait after which the breaker lets a request through, where it holds them up."""
        if isinstance(error, ProviderUnavailable) and self._breaker.wait > 0:
            error.retry_after = self._breaker.wait
        return error

    async def _record(self, request: _Request, account: Account, texts: int, seconds: float) -> None:
        call = request.call
        if account.spent_tokens == 0 or (call.job_id and not request.abandoned):
            return
        self._usage.add(
            UsageKey(call.incarnation, self.name, self._model, call.table),
            texts=texts,
            tokens=account.spent_tokens,
            cost=account.cost,
            seconds=seconds,
        )
        await self._writer.flush()

    async def _read_standing(self, incarnation: UUID, month: date) -> Standing:
        return await asyncio.to_thread(read_standing, self._ledger, incarnation, month)


def _end_unheard(task: asyncio.Task[Embedded]) -> None:
    """Take what a call raised whose caller has gone; asyncio would log all of it as never retrieved."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, RowbeamError):
        logger.error("A call whose caller had gone failed.", exc_info=error)
