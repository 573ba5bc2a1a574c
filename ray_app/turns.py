"""Whose turn it is to embed, among the tenants whose jobs share a cluster. Pure.

Start-time fair queueing, after P. Goyal, H. Vin and H. Cheng, "Start-time fair queuing: a scheduling
algorithm for integrated services packet switching networks" (SIGCOMM 1996), with several turns held at
once, as in W. Jin, J. Chase and J. Kaur, "Interposed proportional sharing for a storage service utility"
(SIGMETRICS 2004). Each tenant has a clock that its turns advance by tokens / weight; the tenant whose clock
is furthest behind goes next, so how many jobs it has, or how large they are, gives it no larger share.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

#: Seconds without a word from a worker after which what it holds and waits for is somebody else's.
LEASE: Final = 10.0


@dataclass(frozen=True)
class Ask:
    """One part that wants to be embedded."""

    #: Unique; asked again under the same name, it is the same turn.
    name: str
    tenant: str
    #: What is to be embedded, at least 1.
    tokens: int
    #: Who asks. Its turns end when it falls silent.
    worker: str
    #: What does one turn's work at a time: a model. None: it takes any number.
    engine: str | None = None
    #: Of a tenant's waiting parts the greatest goes first, then the one that asked first.
    priority: int = 0
    weight: float = 1.0


@dataclass
class _Line:
    """One tenant. ``clock`` is the start tag of its next turn, in tokens over weight."""

    clock: float = 0.0
    waiting: dict[str, tuple[int, Ask]] = field(default_factory=dict)
    held: int = 0


class FairTurns:
    """At most ``capacity`` turns at once over what several jobs share.

    Between two tenants that both wait without a break, the tokens of turns begun, each over its tenant's
    weight, differ by no more than the largest part of each over its weight (Goyal et al., theorem 1). A
    tenant that has had nothing to do saves nothing up, and owes nothing. A turn goes unused only when nobody
    who could use it waits.
    """

    def __init__(self, capacity: int, now: Callable[[], float] = time.monotonic) -> None:
        """``now`` is in seconds.

        Raises:
            ValueError: a capacity below 1.
        """
        if capacity < 1:
            raise ValueError("there must be at least one turn")
        self.capacity = capacity
        self._now = now
        self._arrivals = count()
        self._lines: dict[str, _Line] = {}
        self._held: dict[str, Ask] = {}
        self._heard: dict[str, float] = {}
        #: Start tag of the turn begun last.
        self._virtual = 0.0

    def ask(self, ask: Ask) -> None:
        """Wait for a turn. Asked twice, it waits, or holds, once."""
        if ask.tokens < 1 or not ask.weight > 0:
            raise ValueError("a part has tokens, and its tenant a weight above 0")
        self.hear(ask.worker)
        line = self._lines.setdefault(ask.tenant, _Line(self._virtual))
        if ask.name in self._held or ask.name in line.waiting:
            return
        if not line.waiting and not line.held:
            line.clock = max(line.clock, self._virtual)
        line.waiting[ask.name] = (next(self._arrivals), ask)

    def hear(self, worker: str) -> None:
        """Note that a worker lives."""
        self._heard[worker] = self._now()

    def give_back(self, name: str) -> None:
        """End a turn, or the wait for one. One that is not known has ended before."""
        ask = self._held.pop(name, None)
        if ask is not None:
            self._lines[ask.tenant].held -= 1
        for line in self._lines.values():
            line.waiting.pop(name, None)
        self._tidy()

    def begin(self) -> list[str]:
        """Begin every turn that can be: the names of parts whose turn it is now."""
        self._drop_silent()
        begun: list[str] = []
        busy: set[str | None] = {ask.engine for ask in self._held.values() if ask.engine is not None}
        while len(self._held) < self.capacity and (chosen := self._choose(busy)) is not None:
            line = self._lines[chosen.tenant]
            del line.waiting[chosen.name]
            self._virtual = max(self._virtual, line.clock)
            line.clock += chosen.tokens / chosen.weight
            line.held += 1
            self._held[chosen.name] = chosen
            if chosen.engine is not None:
                busy.add(chosen.engine)
            begun.append(chosen.name)
        return begun

    def waiting(self) -> dict[str, int]:
        """Parts that wait, by tenant."""
        return {tenant: len(line.waiting) for tenant, line in self._lines.items() if line.waiting}

    def holds(self, name: str) -> bool:
        return name in self._held

    def knows(self, name: str) -> bool:
        """Whether a part waits or holds a turn; one whose worker fell silent does neither."""
        return name in self._held or any(name in line.waiting for line in self._lines.values())

    @property
    def held(self) -> int:
        return len(self._held)

    def _choose(self, busy: set[str | None]) -> Ask | None:
        """The best part of the tenant that is furthest behind, of those whose engine is free."""
        heads: list[tuple[float, int, Ask]] = []
        for line in self._lines.values():
            free = [
                item for item in line.waiting.values() if item[1].engine is None or item[1].engine not in busy
            ]
            if free:
                arrival, ask = min(free, key=lambda item: (-item[1].priority, item[0]))
                heads.append((line.clock, arrival, ask))
        return min(heads, key=lambda head: head[:2])[2] if heads else None

    def _drop_silent(self) -> None:
        silent = {worker for worker, heard in self._heard.items() if self._now() - heard > LEASE}
        if not silent:
            return
        for name in [name for name, ask in self._held.items() if ask.worker in silent]:
            self._lines[self._held.pop(name).tenant].held -= 1
        for line in self._lines.values():
            for name in [name for name, (_, ask) in line.waiting.items() if ask.worker in silent]:
                del line.waiting[name]
        for worker in silent:
            del self._heard[worker]
        self._tidy()

    def _tidy(self) -> None:
        """Forget idle tenants whose clock the others have passed: coming back, they begin where those are."""
        idle = [
            tenant
            for tenant, line in self._lines.items()
            if not line.waiting and not line.held and line.clock <= self._virtual
        ]
        for tenant in idle:
            del self._lines[tenant]
