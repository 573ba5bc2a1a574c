"""A server with a gateway, and a Prometheus that watches it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from ray_app.encoders.stub import POISON
from ray_app.stack.ray_head import RayHead
from tests.support.fake_gateway import FakeGateway
from tests.support.prometheus import Prometheus, running
from tests.support.serve_site import ServeSite, new_site
from tests.support.waiting import wait_for

KEY = "sk-test-9"
MODEL = "text-embedding-3-small"
TENANT = "acme"
TEXT_COLUMN = {"pull_requests": "title", "issues": "summary"}


@dataclass
class Watched:
    """A server, its gateway, and the Prometheus that watches them."""

    site: ServeSite
    gateway: FakeGateway
    prometheus: Prometheus
    #: A client of the tenant ``acme``.
    client: httpx.Client

    def embed(self, model: str = MODEL) -> httpx.Response:
        return self.client.post("/v1/embeddings", json={"model": model, "input": f"text {uuid4()}"})

    def load(self, folder: Path, table: str, first: int, last: int) -> None:
        """Rows that are not embedded yet; the first has a text at fault."""
        file = folder / "rows.jsonl"
        texts = {first: POISON} | {n: f"change number {n}" for n in range(first + 1, last + 1)}
        lines = (json.dumps({"id": n, TEXT_COLUMN[table]: words}) + "\n" for n, words in texts.items())
        file.write_text("".join(lines))
        self.site.rowbeam("load", str(file), "--tenant", TENANT, "--table", table)

    def start_job(self, table: str, prefer: str) -> str:
        """A backfill: quality goes through the gateway, fast through the local model. Its id."""
        answer = self.client.post("/v1/backfills", json={"tables": [table], "prefer": prefer})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job"]["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/v1/backfills/{job_id}").json()["job"]
        return found

    def end_of(self, job_id: str) -> dict[str, Any]:
        """The job, once it is over."""
        wait_for(lambda: self.job(job_id)["finished_at"] is not None)
        return self.job(job_id)


@contextmanager
def watched_site(folder: Path) -> Iterator[Watched]:
    """A site that is up, and Prometheus with its files in ``folder``."""
    with pytest.MonkeyPatch.context() as patch, FakeGateway(api_key=KEY, dimensions=8) as gateway:
        # Five times as often as by default, so that what happens is soon seen.
        patch.setenv("RAY_metrics_report_interval_ms", "2000")
        gateway.behaviour.poison.add(POISON)
        settings = {"url": gateway.url, "api_key": KEY, "model": MODEL, "dimensions": 8}
        with new_site(gateway=settings | {"price_per_million": 1000, "outage_budget": 120}) as site:
            site.up()
            with site.client() as admin:
                answer = admin.post("/v1/tenants", json={"name": TENANT})
            tenant_key = answer.json()["key"]["api_key"]
            targets = RayHead(site.settings).targets
            with running(folder, targets) as prometheus, site.client(tenant_key) as client:
                yield Watched(site, gateway, prometheus, client)
