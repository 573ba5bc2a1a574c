"""Providers: what they did when they were last measured, and what they have done since."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from ray_app.baseline import Baseline, ProviderMeasurement
from ray_app.console.charts import Chart, Lying, days_chart, lying_chart
from ray_app.console.formats import NOTHING, count, dollars, figure, percent, short
from ray_app.db.operators import DayUsage
from ray_app.serving.port import Load
from ray_app.spaces import EmbeddingSpace
from ray_app.wording import duration, money

#: Days of usage that are plotted, today included.
DAYS: Final = 30


@dataclass(frozen=True)
class MeasuredLine:
    """A provider of one space as the benchmark found it."""

    name: str
    model: str
    texts: str
    tokens: str
    p50: str
    p95: str
    price: str
    agreement: str


@dataclass(frozen=True)
class UsedLine:
    """What one provider and model did in the days that are plotted."""

    name: str
    model: str
    texts: str
    tokens: str
    busy: str
    #: Tokens for each second that it was busy.
    speed: str
    cost: str
    price: str


@dataclass(frozen=True)
class SpaceLine:
    """A space that this router serves, and how busy its providers are with what it sent them."""

    model: str
    space_id: str
    dimensions: int
    queued: str
    speed: str


@dataclass(frozen=True)
class ProvidersView:
    measured: tuple[MeasuredLine, ...]
    #: When and on what the baseline was taken, or why there is none.
    measured_on: str
    measured_charts: tuple[Chart, ...]
    used: tuple[UsedLine, ...]
    used_charts: tuple[Chart, ...]
    spaces: tuple[SpaceLine, ...]
    days: int


def providers_view(
    baseline: Baseline | str | None,
    usage: Sequence[DayUsage],
    served: Sequence[tuple[EmbeddingSpace, Load]],
    today: date,
) -> ProvidersView:
    """``baseline`` is the text of an error where it cannot be read; ``usage`` is that of ``DAYS`` days."""
    measured = baseline.providers if isinstance(baseline, Baseline) else ()
    return ProvidersView(
        measured=tuple(_measured(item) for item in measured),
        measured_on=_measured_on(baseline),
        measured_charts=_measured_charts(measured),
        used=_used(usage),
        used_charts=_used_charts(usage, today),
        spaces=tuple(
            SpaceLine(
                *(space.model, space.space_id, space.dimensions, count(load.queued_tokens)),
                f"{figure(load.tokens_per_second)} tokens/s" if load.tokens_per_second else NOTHING,
            )
            for space, load in served
        ),
        days=DAYS,
    )


def _measured_on(baseline: Baseline | str | None) -> str:
    if isinstance(baseline, str):
        return baseline
    if baseline is None:
        return "Nothing is measured yet. Run: rowbeam bench providers."
    return f"Measured {baseline.measured} on {baseline.machine}."


def _measured(item: ProviderMeasurement) -> MeasuredLine:
    price = item.dollars_per_million_tokens
    return MeasuredLine(
        name=item.name,
        model=item.model,
        texts=figure(item.texts_per_second),
        tokens=figure(item.tokens_per_second),
        p50=f"{figure(item.p50_ms)} ms",
        p95=f"{figure(item.p95_ms)} ms",
        price=NOTHING if price is None else dollars(price),
        agreement=percent(item.top_10_agreement),
    )


def _measured_charts(measured: Sequence[ProviderMeasurement]) -> tuple[Chart, ...]:
    if not measured:
        return ()
    names = [f"{item.name}, {item.model.rpartition('/')[2]}" for item in measured]
    speeds = [
        Lying(name, item.texts_per_second, figure(item.texts_per_second), colour)
        for colour, (name, item) in enumerate(zip(names, measured, strict=True))
    ]
    delays = [
        Lying(f"{name}, {what}", value, f"{figure(value)} ms", colour)
        for colour, (name, item) in enumerate(zip(names, measured, strict=True))
        for what, value in (("median", item.p50_ms), ("95th percentile", item.p95_ms))
    ]
    prices = [
        Lying(name, price, dollars(price), colour)
        for colour, (name, item) in enumerate(zip(names, measured, strict=True))
        if (price := item.dollars_per_million_tokens) is not None
    ]
    charts = [
        lying_chart("Speed: texts a second", speeds),
        lying_chart("Latency of one short text: milliseconds", delays),
    ]
    if prices:
        charts.append(lying_chart("Cost: US dollars for a million tokens", prices))
    return tuple(charts)


def _used(usage: Sequence[DayUsage]) -> tuple[UsedLine, ...]:
    rows: defaultdict[tuple[str, str], list[DayUsage]] = defaultdict(list)
    for row in usage:
        rows[row.provider, row.model].append(row)
    return tuple(_used_line(name, model, of) for (name, model), of in sorted(rows.items()))


def _used_line(name: str, model: str, rows: Sequence[DayUsage]) -> UsedLine:
    tokens, seconds = sum(row.tokens for row in rows), sum(row.seconds for row in rows)
    cost = sum((row.cost for row in rows), Decimal(0))
    return UsedLine(
        name=name,
        model=model,
        texts=count(sum(row.texts for row in rows)),
        tokens=count(tokens),
        busy=duration(seconds),
        speed=figure(tokens / seconds) if seconds else NOTHING,
        cost=money(cost),
        price=dollars(float(cost) / tokens * 1e6) if tokens else NOTHING,
    )


def _used_charts(usage: Sequence[DayUsage], today: date) -> tuple[Chart, ...]:
    if not usage:
        return ()
    first = today - timedelta(days=DAYS - 1)
    tokens: defaultdict[date, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    costs: defaultdict[date, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in usage:
        tokens[row.day][row.provider] += row.tokens
        costs[row.day][row.provider] += float(row.cost)
    charts = [days_chart("Tokens a day", tokens, first, today, short)]
    if any(row.cost for row in usage):
        charts.append(days_chart("Cost a day, US dollars", costs, first, today, dollars))
    return tuple(charts)
