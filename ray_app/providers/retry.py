"""When to ask an endpoint again: backoff, the waits endpoints ask for, and when an outage is one."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

_RANDOM: Final = random.SystemRandom()
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
#: "Please retry after 9 seconds" (Azure), "Please try again in 1.2s" (OpenAI).
_ASKED_IN_WORDS: Final = re.compile(
    r"(?:retry after|try again in)\s+(?:((?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+)|(\d+(?:\.\d+)?)\s*sec)"
)


@dataclass(frozen=True)
class Backoff:
    """Exponential backoff with full jitter: uniform in [0, min(cap, base * 2**attempt)].

    Full jitter spreads clients that failed together best (M. Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015). All in seconds.
    """

    base: float = 0.5
    cap: float = 30.0
    #: No wait is longer, whatever the endpoint asks for: Azure has asked for 86,400 s on a limit per minute.
    longest: float = 60.0

    def wait(
        self,
        attempt: int,
        asked: float | None = None,
        uniform: Callable[[float, float], float] = _RANDOM.uniform,
    ) -> float:
        """Seconds before attempt ``attempt`` + 1, counted from 0.

        At least what the endpoint asked for, up to ``longest``; the jitter comes on top, so that
        clients told the same wait do not come back at the same instant.
        """
        # 2**attempt overflows a float long before the cap stops mattering.
        jitter = uniform(0.0, min(self.cap, self.base * 2.0 ** min(attempt, 30)))
        return min(self.longest, (asked or 0.0) + jitter)


class OutageClock:
    """How long an endpoint has been failing without one success in between.

    ``budget`` is the longest such time to put up with, in seconds. One request that keeps failing
    beside others that succeed is no outage.
    """

    def __init__(self, budget: float, now: Callable[[], float] = time.monotonic) -> None:
        self._budget = budget
        self._now = now
        self._since: float | None = None

    def succeeded(self) -> None:
        self._since = None

    def failed(self, started: float, wait: float) -> bool:
        """Note a failure of what began at ``started``; whether the budget holds ``wait`` more seconds."""
        self._since = started if self._since is None else min(self._since, started)
        return self._now() - self._since + wait <= self._budget


def asked_wait(headers: Mapping[str, str], message: str = "", now: datetime | None = None) -> float | None:
    """Seconds an answer asks to wait, uncapped, or None when it does not say.

    Read in this order: ``retry-after-ms`` (Azure), ``Retry-After`` in seconds or as an HTTP date
    (RFC 9110, 10.2.3), ``x-ratelimit-reset-*`` of a limit that is used up (OpenAI), the words of
    the message. ``headers`` has lower-case names or ignores case.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    header = headers.get("retry-after")
    if header is not None:
        seconds = _number(header)
        return _until(header, now or datetime.now(UTC)) if seconds is None else seconds
    resets = [
        wait
        for kind in ("requests", "tokens")
        if _number(headers.get(f"x-ratelimit-remaining-{kind}")) == 0
        and (wait := parse_duration(headers.get(f"x-ratelimit-reset-{kind}", ""))) is not None
    ]
    return max(resets) if resets else _asked_in_words(message)


def parse_duration(text: str) -> float | None:
    """Seconds of a duration as rate-limit headers write it ("1s", "6m0s", "120ms"), or None."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return math.fsum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _until(date: str, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _asked_in_words(message: str) -> float | None:
    found = _ASKED_IN_WORDS.search(message.lower())
    if found is None:
        return None
    return parse_duration(found[1]) if found[1] else float(found[2])
