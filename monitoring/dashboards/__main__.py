"""Write every dashboard to ``monitoring/grafana/dashboards``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from monitoring.dashboards import jobs, operations, providers, tenants
from monitoring.dashboards.panels import Dashboard

FOLDER: Final = Path(__file__).parents[1] / "grafana" / "dashboards"
ALL: Final[tuple[Dashboard, ...]] = (
    operations.DASHBOARD,
    providers.DASHBOARD,
    jobs.DASHBOARD,
    tenants.DASHBOARD,
)


def text_of(dashboard: Dashboard) -> str:
    """The file's content."""
    return json.dumps(dashboard.to_json(), indent=2) + "\n"


def main() -> None:
    for dashboard in ALL:
        (FOLDER / f"{dashboard.uid}.json").write_text(text_of(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main()
