"""All providers together: picks one of the call's space, and another when that one fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np

from ray_app.errors import (
    ConfigError,
    InputError,
    LimitReached,
    Overloaded,
    ProviderUnavailable,
    RowbeamError,
)
from ray_app.metrics.declared import PROVIDER_SECONDS, PROVIDER_UP
from ray_app.providers.port import Embedded
from ray_app.serving.port import EmbedCall, EmbeddingTarget, Load, Served
from ray_app.serving.target_health import FIRST_PAUSE, TargetHealth
from ray_app.spaces import EmbeddingSpace, Preference

#: US dollars that a second of waiting is worth, which decides between a busy free provider and a quick
#: paid one: about the price of a second on a cloud machine of 8 cores. ``fast`` does not look at prices.
_SECOND_WORTH: Final = 1e-4
#: Seconds one target's check may take before it counts as not ready.
_CHECK_LIMIT: Final = 35.0


@dataclass(frozen=True)
class PricedTarget:
    """A target and what it charges."""

    target: EmbeddingTarget
    #: US dollars per million tokens; None when the price is unknown, which counts as free.
    price_per_million: Decimal | None = Decimal(0)
    #: As measured some other time, to go by until it is measured here; 0 when nobody knows.
    tokens_per_second: float = 0.0


@dataclass
class _Member:
    target: EmbeddingTarget
    dollars_per_token: float
    health: TargetHealth


class ProviderPool:
    """An ``EmbeddingBackend`` over targets; the first target's space is the default one.

    Within a space a call goes to the target with the least expected cost: seconds until the
    answer at the speed measured lately, and dollars in seconds' worth. A target that failed is left out
    for a while, then one call tries it. Another target is asked only when one is unavailable or
    overloaded, never for a text's fault or a budget that is spent. Used from one event loop at a time.
    """

    def __init__(
        self,
        targets: Iterable[PricedTarget],
        *,
        preference: Preference = Preference.BALANCED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._price_matters = preference is not Preference.FAST
        self._spaces: dict[str, EmbeddingSpace] = {}
        self._members: dict[str, list[_Member]] = {}
        for priced in targets:
            space = priced.target.space
            self._spaces.setdefault(space.space_id, space)
            self._members.setdefault(space.space_id, []).append(
                _Member(
                    priced.target,
                    float(priced.price_per_million or 0) / 1e6,
                    TargetHealth(clock, priced.tokens_per_second),
                )
            )

    def spaces(self) -> Sequence[EmbeddingSpace]:
        return tuple(self._spaces.values())

    async def embed(self, call: EmbedCall) -> Served:
        """See ``EmbeddingBackend``; an answer of the wrong shape counts as a failure of its target."""
        members = self._of(call.space)
        started = self._clock()
        error: ProviderUnavailable | Overloaded | None = None
        tried: list[_Member] = []
        while member := self._best([member for member in members if member not in tried], call):
            tried.append(member)
            try:
                with _timed(member.target.name), member.health.calling(call.total_tokens):
                    embedded = await member.target.embed(call)
                    _check_answer(embedded, call, member.target.name)
            except (ProviderUnavailable, Overloaded) as failure:
                error = failure
            else:
                return Served(embedded, member.target.name, self._clock() - started)
        raise _unserved(error, members)

    def sample(self) -> None:
        """Set the gauges of the providers."""
        for members in self._members.values():
            for member in members:
                PROVIDER_UP.set(member.health.open, member.target.name)

    def load(self, space: EmbeddingSpace) -> Load:
        """What this pool has sent and not got back; other routers' calls are not counted.

        Raises:
            ConfigError: nothing here serves ``space``.
        """
        healths = [member.health for member in self._of(space)]
        return Load(
            sum(health.tokens for health in healths),
            sum(health.tokens_per_second for health in healths if health.open),
        )

    async def not_ready(self) -> Sequence[str]:
        members = [member for members in self._members.values() for member in members]
        reasons = await asyncio.gather(*(_reason(member.target) for member in members))
        return [reason for reason in reasons if reason]

    def _best(self, members: list[_Member], call: EmbedCall) -> _Member | None:
        usable = [member for member in members if member.health.open]
        if not usable:
            return None
        fastest = max(member.health.tokens_per_second for member in usable) or 1.0

        def cost(member: _Member) -> tuple[float, float]:
            health = member.health
            speed = health.expected_speed
            # One that nothing is known of is worth a try: it may be the fastest.
            seconds = (health.tokens + call.total_tokens) / speed if speed else health.tokens / fastest
            dollars = call.total_tokens * member.dollars_per_token if self._price_matters else 0.0
            return seconds + dollars / _SECOND_WORTH, health.answered_at

        return min(usable, key=cost)

    def _of(self, space: EmbeddingSpace) -> list[_Member]:
        members = self._members.get(space.space_id)
        if members is None:
            raise ConfigError(
                f"Nothing here serves model {space.model}, revision {space.revision}.",
                hint=f"Served: {', '.join(sorted(space.model for space in self._spaces.values()))}.",
            )
        return members


def _unserved(
    error: ProviderUnavailable | Overloaded | None, members: list[_Member]
) -> ProviderUnavailable | Overloaded:
    """The last failure, or that all are left out; with the wait after which one is tried again."""
    # One that is being tried just now may be back in use at any moment.
    wait = min(member.health.reopens_in or FIRST_PAUSE for member in members)
    if error is None:
        return ProviderUnavailable(
            "Every provider of this model failed a moment ago.",
            retry_after=wait,
            hint="Try again; they are tried again too.",
        )
    error.retry_after = max(error.retry_after or 0.0, wait)
    return error


async def _reason(target: EmbeddingTarget) -> str:
    """Why a target cannot serve; "" when it can."""
    try:
        async with asyncio.timeout(_CHECK_LIMIT):
            await target.check()
    except RowbeamError as error:
        return f"{target.name}: {error.message}"
    except TimeoutError:
        return f"{target.name}: no answer within {_CHECK_LIMIT:g} s."
    return ""


@contextmanager
def _timed(provider: str) -> Iterator[None]:
    """Measure one call, by how it ends."""
    began, outcome = time.perf_counter(), "failed"
    try:
        yield
        outcome = "answered"
    except ProviderUnavailable:
        outcome = "unavailable"
        raise
    except Overloaded:
        outcome = "overloaded"
        raise
    except (LimitReached, InputError):
        outcome = "refused"
        raise
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    finally:
        PROVIDER_SECONDS.observe(time.perf_counter() - began, provider, outcome)


def _check_answer(embedded: Embedded, call: EmbedCall, name: str) -> None:
    """Refuse what would be stored under the wrong text or could not be searched.

    Raises:
        ProviderUnavailable: counts, dimensions, type or numbers are wrong.
    """
    vectors, expected = embedded.vectors, (len(call.texts), call.space.dimensions)
    if vectors.shape != expected or vectors.dtype != np.float32:
        wrong = f"an array of {vectors.dtype} {vectors.shape} instead of float32 {expected}"
    elif not np.isfinite(vectors).all():
        wrong = "numbers that are not finite"
    elif any(not 0 <= place < expected[0] for place in embedded.faults):
        wrong = "faults of texts it was not given"
    elif set(np.flatnonzero(~np.any(vectors, axis=1)).tolist()) - set(embedded.faults):
        wrong = "vectors of zeros"
    else:
        return
    raise ProviderUnavailable(f"{name} answered with {wrong}.")
