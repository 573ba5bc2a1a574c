"""How many encoders a job starts: what fits beside a server, never what could not be placed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.placement import ROUTER_CPUS, cpu_placement
from jobs.pipeline import READ_CPUS, READERS, WRITE_CPUS, size_pool
from ray_app.errors import RayUnavailable
from ray_app.serving.options import ServingOptions

IO = READERS * READ_CPUS + WRITE_CPUS
#: Logical CPUs of a head on two cores; see ``ray_app.stack.ray_head``.
SMALLEST_HEAD = 4


@given(
    st.sampled_from(["stub", "local-cpu", "local-gpu", "gateway"]),
    st.integers(0, 1024).map(lambda quarters: quarters / 4),
    st.integers(0, 16).map(lambda halves: halves / 2),
)
def test_what_is_started_fits(provider: str, free: float, gpus: float) -> None:
    try:
        pool = size_pool(provider, free, gpus)
    except RayUnavailable:
        return
    assert pool.size >= 1
    assert IO + pool.size * pool.cpus <= free
    assert pool.size * pool.gpus <= gpus


def test_a_job_fits_beside_a_server_on_two_cores() -> None:
    server = ROUTER_CPUS + cpu_placement(ServingOptions(cpu_threads=1)).threads
    assert size_pool("local-cpu", SMALLEST_HEAD - server, 0).size == 1


def test_a_job_fits_beside_a_server_on_one_gpu() -> None:
    assert size_pool("local-gpu", 4, 1 - ServingOptions().gpu_share).size == 1


def test_a_gpu_that_is_taken_is_a_clear_error() -> None:
    with pytest.raises(RayUnavailable, match="of a GPU"):
        size_pool("local-gpu", 64, 0)
