"""Figures and moments as the console's pages write them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from ray_app.wording import duration

#: Where a value is not known or means nothing.
NOTHING = "–"


def percent(share: float | None) -> str:
    """A share of 1 with one decimal, rounded down: 100 % is said of nothing less."""
    return NOTHING if share is None else f"{math.floor(share * 1000 + 1e-9) / 10:.1f} %"


def count(number: int | None) -> str:
    return NOTHING if number is None else f"{number:,}"


def short(number: float) -> str:
    """With at most three significant digits and a suffix: for the axis of a plot."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.3g}{suffix}"
    return f"{number:.3g}"


def dollars(amount: float) -> str:
    """US dollars, for the axis of a plot."""
    return f"${short(amount)}"


def figure(number: float) -> str:
    """A measured value: as many decimals as its size leaves sense for."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def moment(when: datetime | None) -> str:
    """In UTC, to the second."""
    return NOTHING if when is None else f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def age(when: datetime | None, now: datetime) -> str:
    """How long ago it was, in the largest unit that fits."""
    if when is None:
        return NOTHING
    seconds = max(0, int((now - when).total_seconds()))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def span(length: timedelta) -> str:
    return duration(max(0.0, length.total_seconds()))
