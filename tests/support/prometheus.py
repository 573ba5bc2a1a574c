"""A real Prometheus on 127.0.0.1, with this repository's configuration in a hurry."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.ports import free_port
from tests.support.tools import tool
from tests.support.waiting import wait_for

FOLDER = Path(__file__).parents[2] / "monitoring" / "prometheus"
RULES = "rowbeam.rules.yml"
_WAIT = re.compile(r"^( +for: )\d+[smh]$", re.MULTILINE)
_INTERVAL = re.compile(
    r"^( +(?:scrape|evaluation|refresh)_interval: |( +)- refresh_interval: )\d+s$", re.MULTILINE
)
_TARGETS = re.compile(r"^( +- ).*\.json$", re.MULTILINE)


def hurried_rules(text: str) -> str:
    """The alert rules with each ``for`` cut to a second; expressions and thresholds stay as they are."""
    return _WAIT.sub(r"\g<1>1s", text)


def hurried_config(text: str, targets: Path) -> str:
    """The configuration with every interval cut to a second, and ``targets`` as the one list of targets."""
    lines = _INTERVAL.sub(r"\g<1>1s", text)
    first, *_ = _TARGETS.findall(lines)
    kept = _TARGETS.sub("", lines)
    return kept.replace("        files:\n", f"        files:\n{first}{targets}\n")


class Prometheus:
    """One that runs."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=30)

    def ready(self) -> bool:
        try:
            return self._http.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def series(self, promql: str, since: float) -> list[dict[str, Any]]:
        """What an expression had, second by second, from then (Unix time) to now. One that is wrong fails."""
        span = {"start": since, "end": time.time(), "step": 1}
        answer = self._http.get("/api/v1/query_range", params={"query": promql, **span})
        assert answer.is_success, f"{promql}: {answer.text}"
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result

    def metrics(self) -> set[str]:
        """The names of everything scraped so far."""
        return set(self._http.get("/api/v1/label/__name__/values").raise_for_status().json()["data"])

    def firing(self) -> dict[str, dict[str, Any]]:
        """The alerts that fire now, by name."""
        alerts = self._http.get("/api/v1/alerts").raise_for_status().json()["data"]["alerts"]
        return {alert["labels"]["alertname"]: alert for alert in alerts if alert["state"] == "firing"}

    def close(self) -> None:
        self._http.close()


@contextmanager
def running(folder: Path, targets: Path) -> Iterator[Prometheus]:
    """Prometheus with its files in ``folder``, asking the endpoints that ``targets`` lists."""
    config = hurried_config((FOLDER / "prometheus.yml").read_text("utf-8"), targets)
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    (folder / RULES).write_text(hurried_rules((FOLDER / RULES).read_text("utf-8")), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    command = [
        tool("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    prometheus = Prometheus(f"http://{address}")
    try:
        wait_for(prometheus.ready)
        yield prometheus
    finally:
        prometheus.close()
        process.terminate()
        process.wait(30)
