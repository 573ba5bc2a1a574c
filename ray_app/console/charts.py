"""Bar charts as geometry: what is drawn where. The templates make SVG of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, TypeAlias

#: Units of the drawing. As many as a small phone has pixels, so that its text stays readable there.
WIDTH: Final = 360
_LEFT: Final = 52
_RIGHT: Final = 6
_TOP: Final = 8
_PLOT: Final = 110
_BOTTOM: Final = 20
#: Of a row of a chart with lying bars.
_ROW: Final = 34
_BAR: Final = 14
#: How an amount is written.
Figure: TypeAlias = Callable[[float], str]
#: Series that have a colour of their own.
COLOURS: Final = 6


@dataclass(frozen=True)
class Rectangle:
    """A bar or a piece of one; ``colour`` is the place of its series."""

    x: float
    y: float
    width: float
    height: float
    colour: int
    #: What a pointer that rests on it is shown.
    title: str


@dataclass(frozen=True)
class Label:
    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A drawing of ``WIDTH`` by ``height`` units."""

    title: str
    height: float
    bars: tuple[Rectangle, ...]
    #: Beside the vertical axis and at the ends of bars, ends at x.
    right_labels: tuple[Label, ...] = ()
    #: Begins at x.
    left_labels: tuple[Label, ...] = ()
    #: Heights at which a line goes across.
    lines: tuple[float, ...] = ()
    #: Names of the series, in the order of their colours.
    legend: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.bars


@dataclass(frozen=True)
class Lying:
    """One row of a chart with lying bars."""

    name: str
    value: float
    #: The value as it is written.
    text: str
    colour: int = 0


def days_chart(
    title: str, amounts: Mapping[date, Mapping[str, float]], first: date, last: date, write: Figure
) -> Chart:
    """A standing bar for each day from ``first`` to ``last``, pieced by series; ``write`` words amounts."""
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    legend = tuple(
        sorted({name for day in days for name, amount in amounts.get(day, {}).items() if amount > 0})
    )
    top = nice_top(max((sum(amounts.get(day, {}).values()) for day in days), default=0.0))
    step = (WIDTH - _LEFT - _RIGHT) / len(days)
    bars = []
    for place, day in enumerate(days):
        floor = float(_TOP + _PLOT)
        for name, amount in sorted(amounts.get(day, {}).items()):
            height = _PLOT * amount / top
            if amount <= 0:
                continue
            floor -= height
            bars.append(
                Rectangle(
                    x=round(_LEFT + place * step + step * 0.1, 2),
                    y=round(floor, 2),
                    width=round(step * 0.8, 2),
                    height=round(height, 2),
                    colour=legend.index(name) % COLOURS,
                    title=f"{day}, {name}: {write(amount)}",
                )
            )
    marks = [(_TOP + _PLOT * (1 - share), top * share) for share in (0, 0.5, 1)] if bars else []
    baseline = float(_TOP + _PLOT + 14)
    return Chart(
        title,
        float(_TOP + _PLOT + _BOTTOM),
        tuple(bars),
        right_labels=(
            *(Label(_LEFT - 4, y + 4, write(amount)) for y, amount in marks),
            Label(WIDTH - _RIGHT, baseline, f"{last:%d %b}"),
        ),
        left_labels=(Label(_LEFT, baseline, f"{first:%d %b}"),),
        lines=tuple(y for y, _ in marks),
        legend=legend,
    )


def lying_chart(title: str, rows: Sequence[Lying]) -> Chart:
    """A lying bar for each row, its name above and its value at its end."""
    longest = max((row.value for row in rows), default=0.0)
    room = WIDTH - _RIGHT - 74
    bars, values, names = [], [], []
    for place, row in enumerate(rows):
        y = place * _ROW + 14.0
        length = max(1.0, room * row.value / longest) if longest > 0 else 1.0
        bars.append(Rectangle(0, y, round(length, 2), _BAR, row.colour % COLOURS, f"{row.name}: {row.text}"))
        names.append(Label(0, y - 3, row.name))
        values.append(Label(round(length, 2) + 4, y + 11, row.text))
    return Chart(title, float(len(rows) * _ROW), tuple(bars), left_labels=(*names, *values))


def nice_top(value: float) -> float:
    """The next of 1, 2 and 5 times a power of ten: an axis that ends there is easy to read."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if value <= step * power * (1 + 1e-9))
