"""What a reader chooses at the top of a dashboard."""

from __future__ import annotations

from typing import Final

from monitoring.dashboards.panels import POSTGRES, PROMETHEUS, Json

#: The Prometheus that is asked.
DATASOURCE: Final[Json] = {
    "name": "datasource",
    "label": "Prometheus",
    "type": "datasource",
    "query": "prometheus",
    "refresh": 1,
    "current": {},
    "hide": 0,
}


def labels_of(name: str, label: str, metric: str) -> Json:
    """The values of a metric's label, several at once, all at first."""
    query = f"label_values({metric}, {name})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": PROMETHEUS,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def rows_of(name: str, label: str, sql: str) -> Json:
    """The rows of a query on the ledger, several at once, all at first."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": POSTGRES,
        "definition": sql,
        "query": sql,
        "refresh": 1,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }
