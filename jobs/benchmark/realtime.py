"""Latency of single texts over HTTP, with a backfill running and without.

One short text every ``--period`` seconds, first with the machine to itself, then while a backfill of
generated rows keeps the encoder of a job busy, on the same cluster and the same cores. The figure to
look at is how many times longer the 95th percentile is, and that every request was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

import httpx

from jobs.benchmark.latency import Answers, steadily
from jobs.benchmark.site import Site, served
from ray_app.reports import JobState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="bundled", help="ROWBEAM_LOCAL_MODEL of the server and the job")
    parser.add_argument(
        "--rows", type=int, default=20_000, help="rows to backfill, more than there is time for"
    )
    parser.add_argument("--seconds", type=float, default=45)
    parser.add_argument("--period", type=float, default=0.25)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print both runs and their ratio; answers the record."""
    with served(local_model=args.model) as site:
        key = site.add_tenant("bench", client_id=1)
        site.insert_rows(args.rows)
        idle = asyncio.run(_measure(site, key, args))
        with httpx.Client(base_url=site.url, headers=_bearer(key), timeout=60) as client:
            started = client.post("/v1/backfills", json={"tables": ["pull_requests"]}).raise_for_status()
            job_id = started.json()["job"]["job_id"]
            before = _wait_until_writing(site, job_id)
            busy = asyncio.run(_measure(site, key, args))
            after = site.rowbeam.job(job_id)
            client.delete(f"/v1/backfills/{job_id}")
            _wait_until_over(site, job_id)
    embedded = after.counts.embedded - before
    record = {
        "idle": idle.summary(),
        "with_backfill": busy.summary(),
        "rows_embedded_meanwhile": embedded,
        "rows_per_second_meanwhile": round(embedded / args.seconds, 1),
        "p95_ratio": round(busy.percentile(0.95) / idle.percentile(0.95), 2),
    }
    for name in ("idle", "with_backfill"):
        print(f"{name:>14} {record[name]}")  # noqa: T201
    print(  # noqa: T201
        f"p95 with a backfill / without = {record['p95_ratio']};"
        f" the backfill did {record['rows_per_second_meanwhile']} rows/s meanwhile"
    )
    return record


async def _measure(site: Site, key: str, args: argparse.Namespace) -> Answers:
    async with httpx.AsyncClient(base_url=site.url, headers=_bearer(key), timeout=60) as client:
        model = (await client.get("/v1/models")).json()["data"][0]["id"]
        await steadily(client, model, 3, args.period)  # warm
        return await steadily(client, model, args.seconds, args.period)


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def _wait_until_writing(site: Site, job_id: str) -> int:
    """Until the job has written its first rows; how many."""
    while True:
        job = site.rowbeam.job(job_id)
        if not job.state.active:
            raise RuntimeError(f"The job ended before it could be measured: {job.state}, {job.error}")
        if job.counts.embedded:
            return job.counts.embedded
        time.sleep(0.5)


def _wait_until_over(site: Site, job_id: str) -> None:
    while site.rowbeam.job(job_id).state in (JobState.RUNNING, JobState.CANCEL_REQUESTED):
        time.sleep(0.5)
