"""One embeddings request over HTTP, asked again until it is answered or the endpoint counts as down."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

from ray_app.errors import ProviderRefused, ProviderUnavailable, RowbeamError
from ray_app.providers.approximate_chunker import estimate_tokens
from ray_app.providers.gateway_endpoint import Endpoint
from ray_app.providers.gateway_faults import Fault, Verdict, judge
from ray_app.providers.gateway_wire import Answer, MalformedAnswer, RequestForm, decode_answer, decode_error
from ray_app.providers.retry import Backoff, OutageClock, asked_wait

logger: Final = logging.getLogger(__name__)

#: Attempts after which a request that fails for no stated reason is taken apart.
_SUSPECT_ATTEMPTS: Final = 4
_CONNECT_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Attempt:
    """One request on the wire and what came of it."""

    outcome: Answer | Fault
    #: Tokens the endpoint charged for it, answered usably or not.
    tokens: int = 0
    #: The answer's headers, names in any case; none when no answer came.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Call:
    """What the requests of one ``embed`` call share: patience, spending, and the failure that ends all."""

    def __init__(self, outage_budget: float) -> None:
        self.clock = OutageClock(outage_budget)
        self.tokens = 0
        self._failure: RowbeamError | None = None
        self._failed = asyncio.Event()

    async def attempt(
        self,
        texts: Sequence[str],  # noqa: ARG002 - for subclasses
        send: Callable[[], Awaitable[Attempt]],
    ) -> Attempt:
        """Send one request for ``texts``. A subclass may hold it back, refuse it, and see how it went."""
        attempt = await send()
        self.tokens += attempt.tokens
        return attempt

    def fail(self, error: RowbeamError) -> RowbeamError:
        """End the call: nothing more is sent, what is on the wire is awaited. Returns the first error."""
        self._failure = self._failure or error
        self._failed.set()
        return self._failure

    def check(self) -> None:
        """Raises what the call has failed with, if it has."""
        if self._failure is not None:
            raise self._failure

    async def pause(self, seconds: float) -> None:
        """Sleep, but wake up when the call fails."""
        try:
            async with asyncio.timeout(seconds):
                await self._failed.wait()
        except TimeoutError:
            return


class Transport:
    """Sends requests to one endpoint. Belongs to the event loop it is first used on."""

    def __init__(self, endpoint: Endpoint, *, timeout: float, connections: int, backoff: Backoff) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._backoff = backoff
        #: No request leaves before this instant: a limit holds for all users of the endpoint.
        self._not_before = 0.0
        self._http = httpx.AsyncClient(
            headers=endpoint.headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def exchange(
        self, call: Call, form: RequestForm, texts: Sequence[str], *, suspicious: bool = True
    ) -> Answer | Fault:
        """The answer to one request, or a fault that asking again does not cure (refused, too large).

        With ``suspicious`` false, errors that may be a text's fault are taken for the endpoint's.

        Raises:
            ProviderUnavailable: no success of the call for the outage budget, or another request ended it.
            ProviderRefused: an answer that only an operator can change.
        """
        body = form.encode(texts)
        attempt = suspected = 0
        while True:
            await self._hold(call)
            started = time.monotonic()
            outcome = (await call.attempt(texts, lambda: self._attempt(body, texts))).outcome
            if isinstance(outcome, Answer):
                call.clock.succeeded()
                return outcome
            if outcome.verdict in {Verdict.REFUSED, Verdict.TOO_LARGE}:
                return outcome
            if outcome.verdict is Verdict.DENIED:
                raise call.fail(self._refused(outcome))
            suspected += outcome.verdict is Verdict.SUSPECT
            if suspicious and suspected == _SUSPECT_ATTEMPTS:
                return outcome
            await self._back_off(call, outcome, attempt, started)
            attempt += 1

    async def _hold(self, call: Call) -> None:
        """Wait until the endpoint wants to be asked again."""
        while (wait := self._not_before - time.monotonic()) > 0:
            call.check()
            if not call.clock.failed(time.monotonic(), wait):
                raise call.fail(self._down("it asks to wait", wait))
            await call.pause(wait)
        call.check()

    async def _back_off(self, call: Call, fault: Fault, attempt: int, started: float) -> None:
        wait = self._backoff.wait(attempt, fault.asked)
        if not call.clock.failed(started, wait):
            raise call.fail(self._down(fault.reason, fault.asked))
        logger.warning(
            "The gateway %s fails: %s. Next try in %.1f s.", self._endpoint.label, fault.reason, wait
        )
        if fault.asked:
            asked = min(fault.asked, self._backoff.longest)
            self._not_before = max(self._not_before, time.monotonic() + asked)
        await call.pause(wait)

    async def _attempt(self, body: bytes, texts: Sequence[str]) -> Attempt:
        response = await self._post(body)
        if isinstance(response, Fault):
            return Attempt(response)
        headers, status = response.headers, response.status_code
        if not response.is_success:
            said = decode_error(response.content)
            return Attempt(judge(status, said, len(texts), asked_wait(headers, said.message)), 0, headers)
        try:
            answer = decode_answer(response.content, len(texts))
        except MalformedAnswer as error:
            return Attempt(Fault(Verdict.SUSPECT, str(error), status), error.tokens or 0, headers)
        charged = sum(map(estimate_tokens, texts)) if answer.tokens is None else answer.tokens
        return Attempt(answer, charged, headers)

    async def _post(self, body: bytes) -> httpx.Response | Fault:
        try:
            # httpx counts each read on its own; an answer that trickles in must not take for ever.
            async with asyncio.timeout(self._timeout):
                return await self._http.post(self._endpoint.url, content=body)
        except (TimeoutError, httpx.TimeoutException):
            return Fault(Verdict.WAIT, f"no answer within {self._timeout:g} s")
        except httpx.ConnectError as error:
            return Fault(Verdict.WAIT, f"no connection ({error})")
        except httpx.TransportError as error:
            return Fault(Verdict.WAIT, f"the connection broke ({type(error).__name__})")
        except httpx.RequestError as error:
            return Fault(Verdict.SUSPECT, f"an answer that cannot be read ({type(error).__name__})")

    def _refused(self, fault: Fault) -> ProviderRefused:
        return ProviderRefused(
            f"The gateway {self._endpoint.label} refuses ({fault.reason}).", hint=fault.hint
        )

    def _down(self, reason: str, asked: float | None) -> ProviderUnavailable:
        return ProviderUnavailable(
            f"The gateway {self._endpoint.label} is unavailable: {reason}.", retry_after=asked
        )
