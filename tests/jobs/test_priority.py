"""A job's encoder yields to requests that callers wait for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from jobs.stages import BULK_NICENESS
from tests.support.site import JobSite, RunningJob

pytestmark = pytest.mark.ray


def niceness(process: psutil.Process, thread: int) -> int:
    """Linux keeps it by thread: field 19 of stat in proc(5), of which two are before the last bracket."""
    stat = Path(f"/proc/{process.pid}/task/{thread}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[16])


def test_the_threads_that_encode_yield(open_site: Callable[..., JobSite]) -> None:
    site = open_site(local_model="bundled", encoder_threads=2)
    site.insert(600)
    running = RunningJob(site, {})
    begun = running.wait_for(lambda job: job.processed_records > 0).processed_records
    encoder = running.worker("EncodeStage")
    before = {thread.id: thread.user_time for thread in encoder.threads()}
    running.wait_for(lambda job: job.processed_records > begun)
    spent = {thread.id: thread.user_time - before.get(thread.id, 0.0) for thread in encoder.threads()}
    busiest = sorted(spent, key=lambda thread: spent[thread])[-2:]
    assert {niceness(encoder, thread) for thread in busiest} == {BULK_NICENESS}, spent
    running.end()
