"""Dashboards, alert rules and provisioning as they are in ``monitoring/``, and what they ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.promql import without_variables

ROOT = Path(__file__).parents[2]
PROVISIONING = ROOT / "monitoring" / "grafana" / "provisioning"
DASHBOARDS = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in (ROOT / "monitoring" / "grafana" / "dashboards").glob("*.json")
}
RULES = yaml.safe_load((ROOT / "monitoring" / "prometheus" / "rowbeam.rules.yml").read_text("utf-8"))
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Where each PromQL expression is, and the expression."""
    for name, alert in ALERTS.items():
        yield name, alert["expr"]
    for uid, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                if "expr" in target:
                    yield f"{uid}: {panel['title']}", without_variables(target["expr"])
        for variable in dashboard["templating"]["list"]:
            if match := re.fullmatch(r"label_values\((\w+), (\w+)\)", variable.get("definition", "")):
                yield f"{uid}: ${variable['name']}", f'{match[1]}{{{match[2]}!=""}}'
