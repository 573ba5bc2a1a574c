"""Panels and dashboards as Grafana's JSON (schema 39, Grafana 10 and later).

https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

#: Columns of Grafana's grid, and the height of a panel and of a row's heading.
_COLUMNS: Final = 24
_HEIGHT: Final = 8
_HEADING: Final = 1
#: The variable by which the reader chooses a Prometheus: the same name as in Ray's dashboards.
PROMETHEUS: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
#: As provisioning/datasources/rowbeam.yml names it.
POSTGRES: Final[Json] = {"type": "postgres", "uid": "rowbeam-ledger"}
GREEN: Final = "green"
ORANGE: Final = "orange"
RED: Final = "red"


@dataclass(frozen=True)
class Query:
    """PromQL and how its series are called; ``{{label}}`` is filled in."""

    promql: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel. ``unit`` is an id of Grafana's, such as ``s``, ``reqps`` or ``percentunit``."""

    kind: str
    title: str
    unit: str
    description: str
    queries: Sequence[Query | str]
    width: int = 8
    #: (from this value on, colour), beside green for what is below.
    thresholds: Sequence[tuple[float, str]] = ()
    #: What numbers mean, as text and colour.
    words: dict[int, tuple[str, str]] = field(default_factory=dict)
    options: Json = field(default_factory=dict)
    custom: Json = field(default_factory=dict)
    #: Units of single columns or series, by name.
    units: dict[str, str] = field(default_factory=dict)
    decimals: int | None = None
    top: float | None = None
    #: Added to each query: its format, and whether one moment or a span is asked for.
    target: Json = field(default_factory=dict)

    def to_json(self, number: int, x: int, y: int) -> Json:
        source = PROMETHEUS if all(isinstance(query, Query) for query in self.queries) else POSTGRES
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": source,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": _HEIGHT},
            "fieldConfig": {"defaults": self._defaults(), "overrides": self._overrides()},
            "options": self.options,
            "targets": [
                {"refId": letter, "datasource": source, **_asked(query), **self.target}
                for letter, query in zip("ABCDEF", self.queries, strict=False)
            ],
        }

    def _defaults(self) -> Json:
        steps: list[Json] = [{"color": GREEN, "value": None}]
        steps += [{"color": color, "value": value} for value, color in self.thresholds]
        defaults: Json = {
            "unit": self.unit,
            "min": 0,
            "color": {"mode": "thresholds" if self.thresholds or self.words else "palette-classic"},
            "thresholds": {"mode": "absolute", "steps": steps},
            "mappings": [_mapping(self.words)] if self.words else [],
            "custom": self.custom,
        }
        if self.decimals is not None:
            defaults["decimals"] = self.decimals
        if self.top is not None:
            defaults["max"] = self.top
        return defaults

    def _overrides(self) -> list[Json]:
        return [
            {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": unit}]}
            for name, unit in self.units.items()
        ]


def _asked(query: Query | str) -> Json:
    if isinstance(query, Query):
        return {"expr": query.promql, "legendFormat": query.legend or "__auto"}
    return {"rawQuery": True, "editorMode": "code", "rawSql": query}


def _mapping(words: dict[int, tuple[str, str]]) -> Json:
    options = {
        str(value): {"text": text, "color": color, "index": index}
        for index, (value, (text, color)) in enumerate(words.items())
    }
    return {"type": "value", "options": options}


def timeseries(
    title: str, unit: str, description: str, *queries: Query, stacked: bool = False, **more: Any
) -> Panel:
    """Lines over time, or areas one upon another; a threshold is drawn as a line."""
    custom: Json = {
        "fillOpacity": 25 if stacked else 5,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stacked else "none"},
        # Ray's gauges come every 10 s; what is missing for a minute is not there.
        "spanNulls": 60_000,
        "thresholdsStyle": {"mode": "line" if more.get("thresholds") else "off"},
    }
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel("timeseries", title, unit, description, queries, options=options, custom=custom, **more)


def stat(title: str, unit: str, description: str, *queries: Query, **more: Any) -> Panel:
    """The number now, in the colour of its threshold."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "auto",
    }
    return Panel(
        "stat",
        title,
        unit,
        description,
        queries,
        options=options,
        target={"instant": True, "range": False},
        **{"width": 4, **more},
    )


def states(
    title: str, description: str, *queries: Query, words: dict[int, tuple[str, str]], **more: Any
) -> Panel:
    """A bar for each series, coloured by its state through time."""
    options = {
        "mergeValues": True,
        "showValue": "never",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
    }
    custom = {"fillOpacity": 80, "lineWidth": 0}
    return Panel(
        "state-timeline",
        title,
        "none",
        description,
        queries,
        words=words,
        options=options,
        custom=custom,
        **more,
    )


def table(title: str, description: str, sql: str, **more: Any) -> Panel:
    """The rows of a query, as they are."""
    options = {"showHeader": True, "cellHeight": "sm"}
    return Panel(
        "table",
        title,
        "short",
        description,
        [sql],
        options=options,
        target={"format": "table"},
        **{"width": 24, **more},
    )


def sql_over_time(title: str, unit: str, description: str, sql: str, **more: Any) -> Panel:
    """Stacked bars of a query with the columns ``time``, ``metric`` and a value."""
    custom = {"drawStyle": "bars", "fillOpacity": 80, "stacking": {"mode": "normal"}}
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel(
        "timeseries",
        title,
        unit,
        description,
        [sql],
        options=options,
        custom=custom,
        target={"format": "time_series"},
        **{"width": 12, **more},
    )


@dataclass(frozen=True)
class Dashboard:
    """Rows of panels under a heading each."""

    uid: str
    title: str
    description: str
    rows: Sequence[tuple[str, Sequence[Panel]]]
    variables: Sequence[Json]
    #: Time shown at first, and how often it is asked anew ("" for never).
    since: str = "now-3h"
    refresh: str = "30s"

    def to_json(self) -> Json:
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["rowbeam"],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "timezone": "utc",
            "time": {"from": self.since, "to": "now"},
            "refresh": self.refresh,
            "links": [
                {
                    "type": "dashboards",
                    "title": "Rowbeam",
                    "tags": ["rowbeam"],
                    "asDropdown": True,
                    "keepTime": True,
                }
            ],
            "templating": {"list": list(self.variables)},
            "annotations": {"list": []},
            "panels": list(self._placed()),
        }

    def _placed(self) -> Iterable[Json]:
        number, y = 1, 0
        for heading, panels in self.rows:
            yield {
                "id": number,
                "type": "row",
                "title": heading,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": _HEADING},
                "panels": [],
            }
            number, x, y = number + 1, 0, y + _HEADING
            for panel in panels:
                if x + panel.width > _COLUMNS:
                    x, y = 0, y + _HEIGHT
                yield panel.to_json(number, x, y)
                number, x = number + 1, x + panel.width
            y += _HEIGHT
