"""A circuit breaker that keeps apart why an endpoint does not answer. No clock but the injected one.

While the circuit is open nobody waits for an endpoint that is down: callers are told at once and for
how long. After the cool-down one request probes (half-open), and what becomes of it decides
(M. Nygard, "Release It!", chapter on stability patterns).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ray_app.errors import ProviderRefused, ProviderUnavailable
from ray_app.metrics.declared import GATEWAY_OPENINGS

#: What callers are told to wait while a probe is under way: it takes about one answer's time.
PROBE_SECONDS: Final = 1.0


class Circuit(StrEnum):
    """The state of the breaker."""

    CLOSED = "closed"
    #: Healthy, but it asked everybody to wait.
    THROTTLED = "throttled"
    #: Open after errors, timeouts or refused connections; cools down for seconds.
    FAILING = "failing"
    #: Open because of a key, a quota or a model; only an operator helps, so it is probed rarely.
    REFUSED = "refused"
    #: Half-open: one probe is under way.
    PROBING = "probing"


@dataclass(frozen=True)
class BreakerPolicy:
    """When to open and for how long, in seconds. Cool-downs double with each probe that fails."""

    #: Failures in a row that open the circuit.
    failures: int = 5
    cool_down: float = 1.0
    longest_cool_down: float = 60.0
    refused_cool_down: float = 30.0
    longest_refused_cool_down: float = 300.0
    #: First wait after a 429 that does not say how long; doubles while no request succeeds.
    throttle: float = 1.0
    #: No wait is longer, whatever the endpoint asks for.
    longest_throttle: float = 60.0
    #: For how long texts that made a healthy endpoint fail are remembered, so that it is probed less.
    acquittal: float = 60.0


class CircuitBreaker:
    """The state of one endpoint, for all that talk to it. Belongs to one event loop.

    Results are reported with the ``era`` in which their request began: one that began before the
    circuit opened or closed says nothing about the time since. ``reason`` is a sentence for people.
    """

    def __init__(
        self, policy: BreakerPolicy | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._policy = policy or BreakerPolicy()
        self._clock = clock
        self._open: Circuit | None = None
        self._reason = ""
        self._hint: str | None = None
        #: Until when the circuit stays open, or throttled.
        self._until = 0.0
        self._probing = False
        #: Times in a row it opened without closing, for the length of the cool-down.
        self._openings = 0
        self._failures = 0
        self._throttles = 0
        #: Whether texts may be why it opened, and how often a probe has then found it well.
        self._suspected = False
        self._acquittals = 0
        self._acquitted_at = 0.0
        self.era = 0

    @property
    def circuit(self) -> Circuit:
        if self._probing:
            return Circuit.PROBING
        if self._open is not None:
            return self._open
        return Circuit.THROTTLED if self.wait > 0 else Circuit.CLOSED

    @property
    def wait(self) -> float:
        """Seconds until a request, or a probe, may leave."""
        if self._probing:
            return PROBE_SECONDS
        return max(0.0, self._until - self._clock())

    def check(self) -> None:
        """Raises ProviderUnavailable (ProviderRefused) while the circuit is open or half-open."""
        if self._open is None:
            return
        wait = max(self.wait, PROBE_SECONDS)
        kind = ProviderRefused if self._open is Circuit.REFUSED else ProviderUnavailable
        raise kind(
            f"{self._reason} It is not asked again for {wait:.0f} s.", hint=self._hint, retry_after=wait
        )

    def take_probe(self) -> bool:
        """Whether the caller must probe now; it then reports how that went.

        True for one caller after each cool-down.
        """
        if self._open is None or self._probing or self.wait > 0:
            return False
        self._probing = True
        return True

    def drop_probe(self) -> None:
        """The probe ended without a word on the endpoint; the next caller probes."""
        self._probing = False

    def succeeded(self, era: int) -> None:
        """The endpoint answered, be it that it refused a text."""
        if era == self.era and self._open is None:
            self._failures = self._throttles = 0

    def throttled(self, era: int, asked: float | None) -> None:
        """It asked everybody to wait, for ``asked`` seconds if it said."""
        if era != self.era or self._open is not None:
            return
        growing = self._policy.throttle * 2.0 ** min(self._throttles, 30)
        self._throttles += 1
        wait = min(growing if asked is None else asked, self._policy.longest_throttle)
        self._until = max(self._until, self._clock() + wait)

    def failed(self, era: int, reason: str, *, suspect: bool = False) -> None:
        """A request failed. ``suspect``: its texts may be why.

        Texts keep nothing open: after enough such failures a harmless one is probed with at once. Each
        time that succeeds, twice as many are needed, or texts at fault would hold up the others.
        """
        if era != self.era or self._open is not None:
            return
        self._failures += 1
        if self._clock() - self._acquitted_at > self._policy.acquittal:
            self._acquittals = 0
        needed = self._policy.failures * (2 ** min(self._acquittals, 30) if suspect else 1)
        if self._failures >= needed:
            self._suspected = suspect
            self._open_for(Circuit.FAILING, reason, None, 0.0 if suspect else self._policy.cool_down)

    def refused(self, era: int, reason: str, hint: str | None) -> None:
        """It refuses until an operator changes something."""
        if era == self.era and self._open is None:
            self._open_for(Circuit.REFUSED, reason, hint, self._policy.refused_cool_down)

    def probe_failed(self, reason: str, *, refused: bool = False, hint: str | None = None) -> None:
        """The probe failed: open again, for longer."""
        policy = self._policy
        first, longest = (
            (policy.refused_cool_down, policy.longest_refused_cool_down)
            if refused
            else (policy.cool_down, policy.longest_cool_down)
        )
        cool_down = min(longest, first * 2.0 ** min(self._openings, 30))
        self._suspected, self._acquittals = False, 0
        self._open_for(Circuit.REFUSED if refused else Circuit.FAILING, reason, hint, cool_down)

    def probe_succeeded(self) -> None:
        """Closed: everybody may ask."""
        if self._suspected:
            self._acquittals += 1
            self._acquitted_at = self._clock()
            self._suspected = False
        self._open = None
        self._probing = False
        self._failures = self._openings = self._throttles = 0
        self._until = 0.0
        self.era += 1

    def _open_for(self, circuit: Circuit, reason: str, hint: str | None, cool_down: float) -> None:
        self._open, self._reason, self._hint = circuit, reason, hint
        self._until = self._clock() + cool_down
        self._probing = False
        self._openings += 1
        self.era += 1
        GATEWAY_OPENINGS.add(1, circuit)
