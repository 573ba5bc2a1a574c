"""The turns actor: one for each cluster, which jobs ask before they embed a part."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import ray
from ray.exceptions import RayActorError

from ray_app.actors.cluster import NAMESPACE
from ray_app.providers.approximate_chunker import estimate_tokens
from ray_app.turns import Ask, FairTurns

log: Final = logging.getLogger(__name__)

ACTOR_NAME: Final = "turns"
#: Seconds between two words of a worker; several fit into ``ray_app.turns.LEASE``.
BEAT: Final = 2.0
#: Parts that may wait at once, of all jobs: two for each encoder.
CALLS: Final = 1000


@dataclass(frozen=True)
class Terms:
    """On what terms a job's parts take turns; plain values that travel through Ray."""

    tenant: str
    #: What is shared: a provider. Turns of one leave those of another alone, so that a gateway that
    #: answers nobody stops no local model.
    resource: str
    #: Turns at once that the job could use.
    capacity: int
    #: Whether a worker has one model that works for one part at a time.
    one_each: bool


class TurnsActor:
    """``FairTurns`` by resource. After a restart it begins empty: what is held then is not counted.

    A job that could use more turns raises the capacity of all, and nothing lowers it: it is what
    the cluster has been seen to have room for.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._turns: dict[str, FairTurns] = {}
        self._begun: dict[str, asyncio.Event] = {}

    async def take(self, resource: str, capacity: int, ask: Ask) -> None:
        """Answers when it is the part's turn, or when its worker was silent for so long that it has none.

        Ray goes on with a call whose caller has died; this one must not keep what the dead held.
        """
        turns = self._turns.setdefault(resource, FairTurns(capacity, self._now))
        turns.capacity = max(turns.capacity, capacity)
        event = self._begun.setdefault(ask.name, asyncio.Event())
        turns.ask(ask)
        self._begin(turns)
        try:
            while turns.knows(ask.name) and not turns.holds(ask.name):
                with suppress(TimeoutError):
                    await asyncio.wait_for(event.wait(), BEAT)
                self._begin(turns)  # somebody may have fallen silent
        finally:
            self._begun.pop(ask.name, None)

    async def give_back(self, resource: str, name: str) -> None:
        turns = self._turns.get(resource)
        if turns is not None:
            turns.give_back(name)
            self._begin(turns)

    async def hear(self, resource: str, worker: str) -> None:
        if resource in self._turns:
            self._turns[resource].hear(worker)

    async def waiting(self) -> dict[str, dict[str, int]]:
        """Parts that wait, by resource and tenant."""
        return {resource: turns.waiting() for resource, turns in self._turns.items()}

    def _begin(self, turns: FairTurns) -> None:
        for name in turns.begin():
            if name in self._begun:
                self._begun[name].set()


def turns_actor() -> Any:
    """The cluster's turns actor, started if there is none; it lives as long as the cluster."""
    return (
        ray.remote(TurnsActor)
        .options(
            name=ACTOR_NAME,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=CALLS,
        )
        .remote()
    )


class JobTurns:
    """A worker's side: asks for turns, and says that it lives. Safe to call from several threads.

    When the actor cannot be reached the part goes ahead: fairness stops no work.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._actor = turns_actor()
        self._worker = uuid4().hex
        self._own = threading.local()
        threading.Thread(target=self._beat, name="turns", daemon=True).start()

    @contextmanager
    def turn(self, texts: Sequence[str], priority: int = 0) -> Iterator[None]:
        """Held while ``texts`` are embedded; entering waits for the turn."""
        self._take(max(1, sum(map(estimate_tokens, texts))), priority)
        try:
            yield
        finally:
            self._give_back()

    def rest(self, seconds: float) -> None:
        """Sleep without the turn that this thread holds, and wait for another: others go on meanwhile."""
        held = getattr(self._own, "name", None) is not None
        self._give_back()
        time.sleep(seconds)
        if held:
            self._take(1, self._own.priority)

    def _take(self, tokens: int, priority: int) -> None:
        terms = self._terms
        name = uuid4().hex
        self._own.priority = priority
        engine = self._worker if terms.one_each else None
        ask = Ask(name, terms.tenant, tokens, self._worker, engine, priority)
        try:
            ray.get(self._actor.take.remote(terms.resource, terms.capacity, ask))
        except RayActorError as error:
            log.warning("No turns are given (%s); the part goes ahead.", type(error).__name__)
        self._own.name = name

    def _give_back(self) -> None:
        name = getattr(self._own, "name", None)
        if name is not None:
            self._own.name = None
            self._actor.give_back.remote(self._terms.resource, name)

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            self._actor.hear.remote(self._terms.resource, self._worker)
